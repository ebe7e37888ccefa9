# SPDX-License-Identifier: Apache-2.0
"""Transformers and ConvNeXts in other libraries' networks: the same feature for the same image."""
from pathlib import Path

import pytest
import torch
import torchvision
from mmpretrain.registry import MODELS

from pic_plugin.models.pooling import pooled
from pic_plugin.transfer.export import export_backbone, exported_weights, file_content
from toys.checkpoints import randomise

VIT = dict(
    type='VisionTransformer', img_size=32, patch_size=8,
    arch=dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48))
CONVNEXT = dict(type='ConvNeXt', arch=dict(depths=[1, 2, 1, 1], channels=[8, 16, 24, 32]))
SWIN = dict(type='SwinTransformer', img_size=224,
            arch=dict(embed_dims=12, depths=[2, 2, 2, 2], num_heads=[1, 2, 3, 4]))
NARROW = dict(type='ResNet', depth=18, stem_channels=16, base_channels=16)
NETWORKS = {
    'resnet': dict(type='ResNet', depth=18), 'vit': VIT,
    'mocov3': dict(VIT, type='MoCoV3ViT', stop_grad_conv1=True), 'convnext': CONVNEXT,
    'convnext-tiny': dict(type='ConvNeXt', arch='tiny'), 'swin': SWIN,
    'swin-window': dict(SWIN, window_size=4, img_size=128)}
# What `pretrain` takes on a CPU, and wider forms of it; timm has no such networks.
NARROW_NETWORKS = {
    'narrow': NARROW, 'narrow-50': dict(NARROW, depth=50, base_channels=8),
    'cifar': dict(NARROW, type='ResNet_CIFAR', strides=(2, 1, 2, 2)),
    'wide-cifar': dict(type='ResNet_CIFAR', depth=18)}


def trained(cfg):
    """Weights of which none is at a starting value that hides it."""
    torch.manual_seed(0)
    network = MODELS.build(cfg)
    constants = {name: value.clone() for name, value in network.state_dict().items()
                 if name.endswith('relative_position_index')}
    randomise(network)
    network.load_state_dict(constants, strict=False)
    network.eval()  # some give nothing back
    return network


def made(export, **libraries):
    """The network by the lines that are printed."""
    scope = dict(libraries)
    exec('\n'.join(export.code), scope)
    return scope['network']


def check(network, other, cfg):
    """Both give the same features."""
    other.eval()
    side = cfg.get('img_size', 64)
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected, got = pooled(network(images)), other(images)
    assert expected.shape == got.shape
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize('cfg', [*NETWORKS.values(), *NARROW_NETWORKS.values()],
                         ids=[*NETWORKS, *NARROW_NETWORKS])
def test_torchvision_gives_the_same_features(cfg):
    network = trained(cfg)
    export = export_backbone(network.state_dict(), cfg, 'torchvision')
    assert export.num_loaded == len(network.state_dict())
    other = made(export, torch=torch, torchvision=torchvision)
    missing, unused = other.load_state_dict(export.state_dict, strict=False)
    # The classifier alone has no weights in the file.
    classifiers = {name.rpartition('.')[0] for name in missing}
    assert classifiers <= {'fc', 'heads.head', 'classifier.2', 'head'} and not unused
    for name in classifiers:
        other.get_submodule(name).register_forward_hook(lambda module, inputs, output: inputs[0])
    check(network, other, cfg)


@pytest.mark.parametrize('name, form', [
    *((name, 'torchvision') for name in (*NETWORKS, *NARROW_NETWORKS)),
    *((name, 'timm') for name in NETWORKS)])
def test_there_and_back(name, form):
    cfg = {**NETWORKS, **NARROW_NETWORKS}[name]
    weights = trained(cfg).state_dict()
    export = export_backbone(weights, cfg, form)
    back = exported_weights(file_content(export, {}, cfg, Path('epoch_1.pth'), form))
    assert set(back) == set(weights)
    for key, value in weights.items():
        assert back[key].dtype == value.dtype and torch.equal(back[key], value), key


@pytest.mark.parametrize('cfg', [VIT, CONVNEXT, SWIN], ids=['vit', 'convnext', 'swin'])
def test_a_file_that_lacks_a_weight_or_has_one_too_many(cfg):
    """Nothing is invented and nothing is dropped: what loads the weights then says so."""
    weights = trained(cfg).state_dict()
    export = export_backbone(weights, cfg, 'torchvision')
    content = file_content(export, {}, cfg, Path('epoch_1.pth'), 'torchvision')
    name, value = content['state_dict'].popitem()
    content['state_dict']['another'] = value
    back = exported_weights(content)
    assert 'another' in back and len(set(weights) - set(back)) == 1
    content['state_dict'][name] = content['state_dict'].pop('another')[:-1]
    back = exported_weights(content)
    assert set(back) == set(weights) and sum(
        back[key].shape != weights[key].shape for key in weights) == 1


@pytest.mark.downstream
@pytest.mark.parametrize('name', NETWORKS)
def test_timm_gives_the_same_features(name, tmp_path):
    """The environment of the downstream group has timm."""
    import timm
    cfg = NETWORKS[name]
    network = trained(cfg)
    export = export_backbone(network.state_dict(), cfg, 'timm')
    other = made(export, timm=timm)
    torch.save(dict(state_dict=export.state_dict), tmp_path / 'backbone.pth')
    timm.models.load_checkpoint(other, str(tmp_path / 'backbone.pth'))  # every weight
    check(network, other, cfg)


def test_known_sizes_have_known_names():
    for cfg, line in ((dict(type='ConvNeXt', arch='small'), 'convnext_small()'),
                      (dict(type='SwinTransformer', arch='tiny'), 'swin_t()'),
                      (dict(type='ResNet', depth=34), 'resnet34()')):
        network = MODELS.build(cfg)
        export = export_backbone(network.state_dict(), cfg, 'torchvision')
        assert export.code[0] == f'network = torchvision.models.{line}'


def test_what_timm_lacks():
    with pytest.raises(ValueError, match='timm has no network like .*: use --format torchvision'):
        export_backbone(trained(NARROW).state_dict(), NARROW, 'timm')


@pytest.mark.parametrize('cfg, what', [
    (dict(VIT, img_size=(32, 64)), 'not square'), (dict(VIT, pre_norm=True), 'norm before'),
    (dict(VIT, out_type='avg_featmap'), "out_type='avg_featmap'"),
    (dict(CONVNEXT, use_grn=True, layer_scale_init_value=0.), 'ConvNeXt V2'),
    (dict(CONVNEXT, gap_before_final_norm=False), 'gap_before_final_norm'),
    (dict(SWIN, use_abs_pos_embed=True), 'absolute position'),
    (dict(NARROW, deep_stem=True), 'deep stem'), (dict(NARROW, avg_down=True), 'avg_down'),
    (dict(SWIN, out_indices=(2, 3)), r'out_indices=\(2, 3\)')])
def test_what_torchvision_lacks(cfg, what):
    with pytest.raises(ValueError, match=f'torchvision has no .*{what}.*openmmlab'):
        export_backbone(trained(cfg).state_dict(), cfg, 'torchvision')
