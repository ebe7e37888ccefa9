# SPDX-License-Identifier: Apache-2.0
"""The configs that the pages show, word for word, trained and measured on small images."""
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

from pic_plugin.tools import test as test_tool
from pic_plugin.tools import train as train_tool
from toys.checkpoints import pic_content
from toys.pages import block

SMALLER = [
    'model.backbone.depth=18', 'model.backbone.stem_channels=8', 'model.backbone.base_channels=8',
    'model.neck.in_channels=64', 'model.neck.hid_channels=8',
    'train_dataloader.dataset.pipeline.0.size=32', 'train_dataloader.batch_size=4',
    'train_dataloader.num_workers=0', 'train_dataloader.sampler.window_size=8',
    'train_dataloader.sampler.stride=4',
    'default_hooks.checkpoint.interval=1']


@pytest.fixture
def folder(tmp_path, monkeypatch, work_dir):
    """An empty work folder with pictures where the pages' configs look for them."""
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


def write_config(folder, *snippets):
    """The page's config with others of the pages merged into it, as my_config.py."""
    cfg = Config.fromstring(block('existing-config').text, '.py')
    for snippet in snippets:
        cfg.merge_from_dict(Config.fromstring(snippet, '.py').to_dict())
    (folder / 'my_config.py').write_text(cfg.pretty_text)


def test_pic_in_an_existing_config(folder):
    (folder / 'my_config.py').write_text(block('existing-config').text)
    words = shlex.split(block('existing-config-train').text)
    assert words[:3] == ['python', '-m', 'pic_plugin.tools.train']
    train_tool.main([*words[3:], '--cfg-options', *SMALLER, 'max_epochs=2'])
    weights = torch.load('work_dirs/my_config/epoch_2.pth')['state_dict']
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_features_are_measured(folder):
    (folder / 'my_config.py').write_text(block('existing-config').text + block('knn-config').text)
    smaller = [
        *SMALLER, 'max_epochs=2', 'val_evaluator.topk=3', 'val_dataloader.num_workers=0',
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


def test_rows_in_a_file_without_decay_and_curves(folder):
    path = '/fast/disk/class_weights.bank'
    rows_in_a_file = block('rows-in-a-file').text
    assert path in rows_in_a_file
    write_config(folder, rows_in_a_file.replace(path, str(folder / 'rows.bank')),
                 block('half-precision-rows').text, block('no-decay').text,
                 block('tensorboard').text)
    train_tool.main(['my_config.py', '--cfg-options', *SMALLER, 'model.head.num_negatives=8',
                     'train_cfg.max_epochs=2'])
    # 16 rows of weight and momentum in half precision, with steps and little else.
    assert 0 < next(folder.glob('rows.bank*')).stat().st_size < 16 * (8 * 128)
    assert list(Path('work_dirs/my_config').rglob('events.out.tfevents*'))
    rates = torch.load('work_dirs/my_config/epoch_2.pth')['optimizer']['param_groups']
    assert {group['weight_decay'] for group in rates} == {0, 1e-4}


def test_large_k_with_a_hook_for_interrupts(folder):
    write_config(folder, block('large-k').text, block('save-on-interrupt').text)
    train_tool.main(['my_config.py', '--cfg-options', *SMALLER, 'train_cfg.max_epochs=1'])
    head = Config.fromfile('work_dirs/my_config/my_config.py').model.head
    assert head.sharded and head.num_negatives == 1048576 and head.feat_dim == 128


def test_backbone_in_openmmlab(tmp_path):
    content = pic_content(dict(type='ResNet', depth=18), channels=512)
    torch.save(content, tmp_path / 'epoch_200.pth')
    cfg = Config.fromstring(block('export-init-cfg').text, '.py').backbone
    cfg.depth, cfg.init_cfg.checkpoint = 18, str(tmp_path / cfg.init_cfg.checkpoint)
    backbone = MODELS.build(cfg)
    backbone.init_weights()
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, content['state_dict'][f'backbone.{name}'])
