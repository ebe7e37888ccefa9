# SPDX-License-Identifier: Apache-2.0
"""Words for people."""
from pic_plugin.wording import counted, first_few


def test_one_and_several():
    assert [counted(number, 'picture') for number in (0, 1, 3068)] == [
        '0 pictures', '1 picture', '3,068 pictures']
    assert [counted(number, 'class', 'classes') for number in (1, 2)] == ['1 class', '2 classes']


def test_first_few():
    assert first_few(['a', 'b', 'c']) == 'a, b, c'
    assert first_few(['a', 'b', 'c', 'd', 'e']) == 'a, b, c and 2 more'
