# SPDX-License-Identifier: Apache-2.0
"""Words for people."""
import pytest

from pic_plugin.wording import counted, duration, first_few


def test_one_and_several():
    assert [counted(number, 'picture') for number in (0, 1, 3068)] == [
        '0 pictures', '1 picture', '3,068 pictures']
    assert [counted(number, 'class', 'classes') for number in (1, 2)] == ['1 class', '2 classes']


def test_first_few():
    assert first_few(['a', 'b', 'c']) == 'a, b, c'
    assert first_few(['a', 'b', 'c', 'd', 'e']) == 'a, b, c and 2 more'


@pytest.mark.parametrize('seconds, text', [
    (42.4, '42 s'), (600, '10 min'), (3600 * 3.4, '3.4 h'), (86400 * 2.1, '2.1 days'),
    (float('inf'), 'unknown')])
def test_times(seconds, text):
    assert duration(seconds) == text
