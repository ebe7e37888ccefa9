# SPDX-License-Identifier: Apache-2.0
"""``pretrained``: the backbone of a checkpoint, and nothing else of it."""
import pytest
import torch
from mmpretrain.registry import MODELS

import pic_plugin  # noqa: F401
from toys.checkpoints import pic_content

BACKBONE = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
MODEL = dict(type='PIC', backbone=BACKBONE, head=dict(type='PICHead', feat_dim=8),
             neck=dict(type='MoCoV2Neck', in_channels=64, hid_channels=16, out_channels=8))


def test_backbone_alone_is_taken(tmp_path):
    content = pic_content(BACKBONE, 64)
    torch.save(content, tmp_path / 'epoch_1.pth')
    model = MODELS.build(dict(MODEL, pretrained=str(tmp_path / 'epoch_1.pth')))
    model.init_weights()
    for name, value in model.state_dict().items():
        if name.startswith('backbone.'):
            assert torch.equal(value, content['state_dict'][name]), name
    first = next(iter(model.neck.state_dict()))
    assert not torch.equal(model.neck.state_dict()[first], content['state_dict'][f'neck.{first}'])


def test_a_file_without_a_backbone_is_no_start(tmp_path):
    torch.save({'conv1.weight': torch.zeros(1)}, tmp_path / 'bare.pth')
    model = MODELS.build(dict(MODEL, pretrained=str(tmp_path / 'bare.pth')))
    with pytest.raises(AssertionError, match='backbone'):
        model.init_weights()
