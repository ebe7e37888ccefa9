# SPDX-License-Identifier: Apache-2.0
"""The configs in README.md, word for word, trained and measured on small images."""
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pic_plugin.tools import test as test_tool
from pic_plugin.tools import train as train_tool

README = (Path(__file__).resolve().parents[2] / 'README.md').read_text(encoding='utf-8')
SMALLER = [
    'model.backbone.depth=18', 'model.neck.in_channels=512', 'model.neck.hid_channels=8',
    'train_dataloader.dataset.pipeline.2.size=32', 'train_dataloader.batch_size=4',
    'train_dataloader.num_workers=0', 'train_dataloader.sampler.window_size=8',
    'train_dataloader.sampler.stride=4', 'train_cfg.max_epochs=2',
    'default_hooks.checkpoint.interval=1']


def block(mark):
    return re.search(rf'<!-- {mark} -->\n```python\n(.*?)```\n<!-- /{mark} -->', README,
                     re.DOTALL)[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for place, number in (('images', 16), ('labelled/train/a', 4), ('labelled/train/b', 4),
                          ('labelled/val/a', 3), ('labelled/val/b', 2)):
        path = tmp_path / 'data' / place
        path.mkdir(parents=True)
        for i in range(number):
            Image.fromarray(generator.integers(0, 256, (40, 48, 3), np.uint8)).save(
                path / f'{i}.png')
    return tmp_path


def test_pic_in_an_existing_config(folder):
    (folder / 'my_config.py').write_text(block('existing-config'))
    train_tool.main(['my_config.py', '--cfg-options', *SMALLER])
    weights = torch.load('work_dirs/my_config/epoch_2.pth')['state_dict']
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_features_are_measured(folder):
    (folder / 'my_config.py').write_text(block('existing-config') + block('knn-config'))
    smaller = [
        *SMALLER, 'val_evaluator.topk=3', 'val_dataloader.num_workers=0',
        'val_dataloader.batch_size=4', 'train_cfg.val_interval=1', *(
            f'val_dataloader.dataset.datasets.{i}.pipeline.{key}' for i in (0, 1)
            for key in ('1.scale=36', '2.crop_size=32'))]
    train_tool.main(['my_config.py', '--cfg-options', *smaller])
    log = next(Path('work_dirs/my_config').glob('*/*.log')).read_text()
    values = re.findall(r'knn/top1_k3: ([0-9.]+)', log)
    assert len(values) == 2
    test_tool.main(['my_config.py', 'work_dirs/my_config/epoch_2.pth', '--out', 'out.json',
                    '--cfg-options', *smaller])
    assert f"{json.loads(Path('out.json').read_text())['knn/top1_k3']:.4f}" == values[-1]
