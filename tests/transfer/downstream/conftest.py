# SPDX-License-Identifier: Apache-2.0
"""Data in the three formats, and PIC checkpoints with weights that nothing else has."""
import pytest
import torch
from mmengine.config import Config

from pic_plugin.tools import make_scenes
from toys.checkpoints import pic_content

from .launch import ROOT


@pytest.fixture(scope='session')
def checkpoints(tmp_path_factory):
    """Files of PIC checkpoints by kind of backbone."""
    folder = tmp_path_factory.mktemp('checkpoints')
    files = {}
    demo = Config.fromfile(ROOT / 'configs' / 'pic' / 'pic_demo.py').model
    for kind, cfg, channels in (
            ('r50', dict(type='ResNet', depth=50, zero_init_residual=True), 2048),
            ('r18', dict(type='ResNet', depth=18), 512),
            ('demo', demo.backbone.to_dict(), demo.neck.in_channels),
            ('swin', dict(type='SwinTransformer', arch='tiny', img_size=224), 768),
            ('convnext', dict(type='ConvNeXt', arch='tiny'), 768)):
        files[kind] = folder / f'{kind}.pth'
        torch.save(pic_content(cfg, channels), files[kind])
    return files


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    """A folder with ``data/VOCdevkit``, ``data/coco`` and ``data/cityscapes``."""
    root = tmp_path_factory.mktemp('downstream')
    make_scenes.main([str(root / 'data'), '--format', 'voc', 'coco', 'cityscapes', '--train', '8',
                      '--val', '4', '--size', '128', '96'])
    return root
