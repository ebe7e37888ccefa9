# SPDX-License-Identifier: Apache-2.0
"""Nothing in a work folder is overwritten or mixed with other data."""
import os
from pathlib import Path

import pytest

from pic_plugin.pretrain.work_folder import (
    PICTURES,
    PREPARED,
    QUERIES,
    REFERENCES,
    WorkFolder,
    default_out,
)


def test_a_new_folder_and_one_with_a_plan_only(tmp_path):
    work = WorkFolder(tmp_path / 'run')
    work.check(['/a'], resume=False)
    work.write('x = 1\n', dict(folders=['/a']))
    assert work.config.read_text() == 'x = 1\n'
    work.check(['/a'], resume=False)  # after --dry-run
    text = work.config.read_text()
    work.config.write_text(text + 'max_epochs = 3\n')
    with pytest.raises(ValueError, match='was changed by hand.*tools.train .*pretrain.py --work-'):
        work.check(['/a'], resume=False)
    work.config.write_text(text)
    assert not list(work.path.glob('*.partial'))


def test_what_is_left_of_a_run_that_was_killed_while_it_prepared(tmp_path):
    work = WorkFolder(tmp_path / 'run')
    for name in (*PREPARED, f'{QUERIES}.partial', 'pretrain.py.partial', 'pretrain.json.partial'):
        work.write_list(name, ['x'])
    work.check(['/a'], resume=False)
    work.write('x = 1\n', dict(folders=['/a']))
    work.config.unlink()  # the last that is written
    work.check(['/a'], resume=False)
    with pytest.raises(ValueError, match='holds no run of pretrain to go on with'):
        work.check(['/a'], resume=True)
    work.state.unlink()
    work.write_list('pictures_of_mine.txt', ['x'])
    with pytest.raises(ValueError, match='is not empty and holds no run'):
        work.check(['/a'], resume=False)


def test_what_is_refused(tmp_path):
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'thesis.tex').write_text('x')
    with pytest.raises(ValueError, match='is not empty and holds no run'):
        WorkFolder(other).check(['/a'], resume=False)
    with pytest.raises(ValueError, match='holds no run of pretrain to go on with'):
        WorkFolder(other).check(['/a'], resume=True)
    with pytest.raises(ValueError, match='is a file'):
        WorkFolder(other / 'thesis.tex').check(['/a'], resume=False)
    work = WorkFolder(tmp_path / 'run')
    work.write('', dict(folders=['/a', '/b']))
    with pytest.raises(ValueError, match='is the work folder of /a, /b, not of /a:'):
        work.check(['/a'], resume=False)
    work.check(['/b', '/a'], resume=False)
    (work.path / 'epoch_1.pth').write_bytes(b'')
    with pytest.raises(ValueError, match='add --resume'):
        work.check(['/a', '/b'], resume=False)
    work.check(['/a', '/b'], resume=True)
    work.state.write_text('{')
    with pytest.raises(ValueError, match='is damaged'):
        work.check(['/a', '/b'], resume=True)


def test_lists_follow_what_moved(tmp_path):
    """What lies elsewhere, or did not come along, keeps its place."""
    work, old, new = WorkFolder(tmp_path / 'run'), tmp_path / 'old', tmp_path / 'new'
    new.mkdir()
    (new / 'a b.png').touch()
    pictures = work.write_list(PICTURES, ['a b.png'])
    for name in (REFERENCES, QUERIES):
        work.write_list(name, [f'{old}/a b.png 0', f'{old}/gone.png 1', f'{old}er/a b.png 1'])
    work.write('train_dataloader = dict(dataset=dict('
               f'data_root={str(old)!r}, ann_file={str(pictures)!r}))\n',
               dict(folders=[str(old)], labels=str(old)))
    work.follow(str(new), [str(new)])
    for name in (REFERENCES, QUERIES):
        assert work.read_list(name) == [
            f'{new}/a b.png 0', f'{old}/gone.png 1', f'{old}er/a b.png 1']
    assert work.read_state()['folders'] == [str(new)]
    assert Path(work.read_state()['labels']) == new


def test_names():
    assert str(default_out(('/data/my photos/', '/b'))) == 'work_dirs/pretrain_my photos_and_1'
    assert str(default_out((os.fsdecode(b'caf\xe9 \xc3\xa9'),))) == 'work_dirs/pretrain_caf_ é'
