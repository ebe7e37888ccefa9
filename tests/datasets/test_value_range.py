# SPDX-License-Identifier: Apache-2.0
"""Black and white, measured."""
import cv2
import numpy as np
import pytest

from pic_plugin.datasets.value_range import measure_value_range
from pic_plugin.tools import value_range as tool


@pytest.fixture
def scans(tmp_path):
    """20 images of 16 bits with values around 1003 to 1241, and single defect pixels."""
    generator = np.random.default_rng(0)
    for i in range(20):
        values = generator.integers(1003, 1242, (50, 60)).astype(np.uint16)
        values[0, 0] = 65535
        cv2.imwrite(str(tmp_path / f'{i:02d}.png'), values)
    return tmp_path


def test_defect_pixels_do_not_count(scans):
    found = measure_value_range(sorted(scans.iterdir()), channels=1)
    assert found.extremes == (1003, 65535)
    assert 1003 <= found.value_range[0] <= 1005 and 1239 <= found.value_range[1] <= 1241
    assert (found.depths, found.num_images, found.unreadable) == (['uint16'], 20, [])


def test_a_few_are_read_from_everywhere(scans):
    for i in range(10):
        cv2.imwrite(str(scans / f'{i:02d}.png'), np.full((50, 60), 7, np.uint16))
    found = measure_value_range(sorted(scans.iterdir()), channels=1, num_images=4)
    assert found.num_images == 4
    assert found.value_range[0] == 7 and found.value_range[1] > 1200


def test_the_command_prints_what_to_write(scans, capsys):
    (scans / 'broken.png').write_bytes(b'no image')
    tool.main([str(scans), '--channels', '1'])
    out = capsys.readouterr().out
    assert '20 of 21 images, uint16: values from 1003 to 65535' in out
    assert 'not read: ' in out and 'broken.png' in out
    black, white = eval(out[out.index('value_range=') + len('value_range='):].split('#')[0])
    assert 1003 <= black <= 1005 and 1239 <= white <= 1241


def test_nothing_to_measure(tmp_path, capsys):
    with pytest.raises(ValueError, match='none of 0 files'):
        measure_value_range([])
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((5, 5), 9, np.uint16))
    with pytest.raises(ValueError, match='all pixels have the value 9'):
        measure_value_range([tmp_path / 'a.png'], channels=1)
    with pytest.raises(SystemExit):
        tool.main([str(tmp_path / 'nothing')])
    assert 'there is no folder' in capsys.readouterr().err
