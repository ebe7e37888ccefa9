# SPDX-License-Identifier: Apache-2.0
"""Necks that take their channels from the backbone, and what is said of those that do not fit."""
import pytest
import torch
from mmpretrain.registry import MODELS

import pic_plugin  # noqa: F401
from pic_plugin.models.neck_channels import project, with_in_channels

RESNET = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
GREY = dict(RESNET, in_channels=1)
VIT = dict(type='VisionTransformer', img_size=64, patch_size=16, out_type='cls_token',
           arch=dict(embed_dims=24, num_layers=1, num_heads=2, feedforward_channels=32))
MAPS = dict(VIT, out_type='featmap')
NECK = dict(type='MoCoV2Neck', in_channels=None, hid_channels=8, out_channels=8)


def model(backbone, neck):
    torch.manual_seed(0)
    return MODELS.build(dict(type='PIC', backbone=dict(backbone), neck=dict(neck),
                             head=dict(type='PICHead', feat_dim=8)))


@pytest.mark.parametrize('backbone, channels, images', [
    (RESNET, 64, (2, 3, 64, 64)), (GREY, 64, (2, 1, 64, 64)), (VIT, 24, (2, 3, 64, 64)),
    (MAPS, 24, (2, 3, 64, 64)), (dict(RESNET, norm_eval=True), 64, (2, 3, 64, 64))])
def test_channels_are_the_backbones(backbone, channels, images):
    built = model(backbone, NECK)
    given = dict(NECK, in_channels=channels)
    if backbone is VIT:
        given['with_avg_pool'] = False
    named = model(backbone, given)
    # The same weights and statistics: asking leaves no trace.
    for name, value in named.state_dict().items():
        assert torch.equal(built.state_dict()[name], value), name
    assert built.neck(built.backbone(torch.rand(images)))[0].shape == (2, 8)
    assert built.backbone.training


def test_what_is_given_is_left_alone():
    for neck in (dict(NECK, in_channels=3), dict(type='GlobalAveragePooling')):
        assert with_in_channels(RESNET, neck) == (RESNET, neck)


def test_no_neck_at_all():
    """It was None that could not be called, in the first step. What the message says works."""
    cfg = dict(type='PIC', backbone=RESNET, neck=None, head=dict(type='PICHead', feat_dim=64))
    with pytest.raises(ValueError, match=r"neck=None: .*neck=dict\(type='GlobalAveragePooling'\)"):
        MODELS.build(cfg)
    built = MODELS.build(dict(cfg, neck=dict(type='GlobalAveragePooling')))
    assert built.neck(built.backbone(torch.rand(2, 3, 64, 64)))[-1].shape == (2, 64)


def test_a_backbone_that_cannot_be_asked():
    backbone = torch.nn.Sequential(torch.nn.Linear(5, 2))
    with pytest.raises(ValueError, match='Sequential cannot be asked .* 3 x 64 x 64'):
        with_in_channels(backbone, NECK)


@pytest.mark.parametrize('backbone, neck, match', [
    (RESNET, dict(NECK, in_channels=2048), 'backbone gives 64 channels, and MoCoV2Neck takes 2048: '
                                           'set model.neck.in_channels=64'),
    (VIT, dict(NECK, in_channels=24), r'shape \(2, 24\), and MoCoV2Neck pools maps .*'
                                      'with_avg_pool=False and model.neck.in_channels=24'),
    (VIT, dict(NECK, in_channels=2048, with_avg_pool=False),
     'gives 24 channels, and .* takes 2048'),
])
def test_both_numbers_are_named(backbone, neck, match):
    built = model(backbone, neck)
    features = built.backbone(torch.rand(2, 3, 64, 64))
    with pytest.raises(ValueError, match=match):
        project(built.neck, features)
    with pytest.raises(ValueError, match=match):
        built.loss(torch.rand(2, 3, 64, 64), [])


def test_other_errors_come_through():
    class Failing(torch.nn.Module):
        def forward(self, features):
            raise RuntimeError('out of memory')

    with pytest.raises(RuntimeError, match='out of memory'):
        project(Failing(), torch.rand(2, 3))
