# SPDX-License-Identifier: Apache-2.0
"""What could not be loaded is said at the end, whoever had to skip it."""
from __future__ import annotations

import re

import pytest
from mmengine.dataset import ConcatDataset
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from pic_plugin.datasets import ImageFiles
from pic_plugin.engine.train_loader import skipped_notice
from toys.pictures import write_pictures
from toys.processes import load_and_train, run_ranks
from toys.training import make_config, train

SAID = r'(\d+) files? could not be loaded, (\d+) times? in all'


@pytest.fixture
def said(monkeypatch):
    texts = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *args: texts.append(str(text)))
    return texts


def options(folder, work_dir, num_workers):
    loader = make_config(work_dir)['train_dataloader']
    dataset = dict(type='ImageFiles', data_root=str(folder), pipeline=[
        dict(type='DecodeRandomCrop', size=2), dict(type='PackInputs', meta_keys=('sample_idx', ))])
    # Joined with itself: a file in both parts is one image.
    return dict(max_epochs=2, seed=0, train_dataloader=dict(
        loader, num_workers=num_workers,
        dataset=dict(type='ConcatDataset', datasets=[dataset, dataset])))


@pytest.mark.parametrize('num_workers', [0, 2])
def test_broken_files_are_counted(work_dir, tmp_path, said, num_workers):
    folder = write_pictures(tmp_path / 'pictures', 20, side=8)
    train(work_dir / 'whole', **options(folder, work_dir, num_workers))
    assert not any(re.match(SAID, text) for text in said)
    for name in ('0003.png', '0011.png'):
        (folder / name).write_bytes(b'no picture')
    train(work_dir / 'broken', **options(folder, work_dir, num_workers))
    (files, loads), = (found.groups() for found in (re.match(SAID, text) for text in said) if found)
    # Asked for once or twice in each of two epochs, and again as replacements.
    assert int(files) == 2 and 4 <= int(loads) <= 16


def test_parts_of_one_data_set_count_together(tmp_path):
    folder = write_pictures(tmp_path, 6, side=8)
    (folder / '0001.png').write_bytes(b'no picture')
    whole = ImageFiles(data_root=str(folder), pipeline=[dict(type='DecodeRandomCrop', size=2)])
    joined = ConcatDataset([whole.get_subset([0, 1, 2]), whole.get_subset([3, 4, 5])])
    loader = DataLoader(joined)
    assert skipped_notice(loader) is None
    joined.datasets[0].pipeline(whole.get_data_info(1))
    assert re.match(SAID, skipped_notice(loader)).groups() == ('1', '1')


def test_no_process_waits_for_one_that_has_no_space_for_its_cache(tmp_path):
    pack = dict(type='PackInputs', meta_keys=('sample_idx', ))
    crop = dict(type='DecodeRandomCrop', size=2, cache=dict(max_bytes=2**60, short_edge=2))
    results = run_ranks(load_and_train, 2, [[dict(type='ToyPixels'), pack], [crop, pack]],
                        str(tmp_path), dict(seed=0, max_epochs=1, batch_size=4), seconds=60)
    for result, error in zip(results, ('RuntimeError: process 1 failed', 'ValueError: a cache of')):
        assert error in result and 'choose another folder, or lower max_bytes' in result
