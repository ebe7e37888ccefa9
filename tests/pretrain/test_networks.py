# SPDX-License-Identifier: Apache-2.0
"""Backbones by usual names, and what is found out about them."""
import pytest

from pic_plugin.pretrain.networks import find_backbone, known_backbones, look_at, usual_name


@pytest.mark.parametrize('name, cfg', [
    ('resnet50', dict(type='ResNet', depth=50)), ('ResNet-50', dict(type='ResNet', depth=50)),
    ('vit-small', dict(type='VisionTransformer', arch='small')),
    ('swin_tiny', dict(type='SwinTransformer', arch='tiny')),
    ('convnext-tiny', dict(type='ConvNeXt', arch='tiny')),
    ('efficientnet-b0', dict(type='EfficientNet', arch='b0')),
    ('resnet-cifar-18', dict(type='ResNet_CIFAR', depth=18)),
])
def test_usual_names(name, cfg):
    assert find_backbone(name) == cfg


def test_a_config_has_the_name_that_gives_it():
    known = known_backbones()
    assert all(known[usual_name(cfg)] == cfg for cfg in known.values())
    # With other arguments too.
    name = 'resnet18-quarter'
    assert usual_name(dict(known[name], zero_init_residual=False)) == name
    assert usual_name(dict(type='mmpretrain.ResNet', depth=50, norm_eval=True)) == 'resnet50'
    assert usual_name(dict(type='ResNet', arch=dict(depths=[1]))) == 'ResNet'


def test_a_model_of_mmpretrain_by_its_name():
    cfg = find_backbone('resnet18_8xb32_in1k')
    assert cfg['type'] == 'ResNet' and cfg['depth'] == 18 and 'init_cfg' not in cfg


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match='no backbone resnett50: the nearest names are resnet50'):
        find_backbone('resnett50')
    with pytest.raises(ValueError, match='nearest names are'):
        find_backbone('')


@pytest.mark.parametrize('name, side, channels, is_map, is_transformer', [
    ('resnet18', 32, 512, True, False), ('vit-deit-tiny', 96, 192, False, True),
    ('convnext-atto', 96, 320, False, True), ('swin-tiny', 96, 768, True, True),
    ('mobilenetv3-small', 64, 576, True, False), ('resnet18-quarter', 96, 128, True, False),
    ('resnet-cifar-18-quarter', 32, 128, True, False)])
def test_what_comes_out(name, side, channels, is_map, is_transformer):
    found = look_at(name, side)
    assert (found.channels, found.is_map, found.is_transformer) == (
        channels, is_map, is_transformer)
    assert found.num_parameters > 5e5


def test_networks_without_one_feature_are_refused():
    with pytest.raises(ValueError, match='the projection takes one tensor'):
        look_at('hrnet-w18', 96)
    with pytest.raises(ValueError, match='cannot be built for images of 8 pixels'):
        look_at('densenet121', 8)


def test_there_are_many():
    names = known_backbones()
    assert len(names) > 200 and all(name == name.lower() for name in names)
