# SPDX-License-Identifier: Apache-2.0
"""Transformers and ConvNeXts in other libraries' networks: the same feature for the same image."""
import pytest
import torch
import torchvision  # noqa: F401  of the constructors
from mmpretrain.registry import MODELS

from pic_plugin.models.pooling import pooled
from pic_plugin.transfer.export import export_backbone

VIT = dict(
    type='VisionTransformer', img_size=32, patch_size=8,
    arch=dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48))
CONVNEXT = dict(type='ConvNeXt', arch=dict(depths=[1, 2, 1, 1], channels=[8, 16, 24, 32]))
SWIN = dict(type='SwinTransformer', img_size=224,
            arch=dict(embed_dims=12, depths=[2, 2, 2, 2], num_heads=[1, 2, 3, 4]))
NETWORKS = {
    'vit': VIT, 'mocov3': dict(VIT, type='MoCoV3ViT', stop_grad_conv1=True), 'convnext': CONVNEXT,
    'convnext-tiny': dict(type='ConvNeXt', arch='tiny'), 'swin': SWIN,
    'swin-window': dict(SWIN, window_size=4, img_size=128)}


def trained(cfg):
    """Weights of which none is at a starting value that hides it."""
    torch.manual_seed(0)
    network = MODELS.build(cfg)
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.3)
    network.eval()  # some give nothing back
    return network


def check(network, cfg, form, build):
    """The network that the printed line builds gives the features of ours."""
    export = export_backbone(network.state_dict(), cfg, form)
    assert export.num_loaded == len(network.state_dict())
    other = build(export)
    other.eval()
    side = cfg.get('img_size', 64)
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected, got = pooled(network(images)), other(images)
    assert expected.shape == got.shape
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize('name', NETWORKS)
def test_torchvision_gives_the_same_features(name):
    def build(export):
        other = eval(export.constructor)
        # The classifier alone has no weights in the file.
        missing, unused = other.load_state_dict(export.state_dict, strict=False)
        classifier = {'heads.head', 'classifier.2', 'head'}
        assert {one.rpartition('.')[0] for one in missing} <= classifier and not unused
        for one in missing:
            other.get_submodule(one.rpartition('.')[0]).register_forward_hook(
                lambda module, inputs, output: inputs[0])
        return other

    check(trained(NETWORKS[name]), NETWORKS[name], 'torchvision', build)


@pytest.mark.downstream
@pytest.mark.parametrize('name', NETWORKS)
def test_timm_gives_the_same_features(name, tmp_path):
    """The environment of the downstream group has timm."""
    import timm

    def build(export):
        other = eval(export.constructor, dict(timm=timm))
        torch.save(dict(state_dict=export.state_dict), tmp_path / 'backbone.pth')
        timm.models.load_checkpoint(other, str(tmp_path / 'backbone.pth'))  # every weight
        return other

    check(trained(NETWORKS[name]), NETWORKS[name], 'timm', build)


def test_known_sizes_have_known_names():
    for cfg, line in ((dict(type='ConvNeXt', arch='small'), 'torchvision.models.convnext_small()'),
                      (dict(type='SwinTransformer', arch='tiny'), 'torchvision.models.swin_t()')):
        network = MODELS.build(cfg)
        assert export_backbone(network.state_dict(), cfg, 'torchvision').constructor == line


@pytest.mark.parametrize('cfg, what', [
    (dict(VIT, img_size=(32, 64)), 'not square'), (dict(VIT, pre_norm=True), 'norm before'),
    (dict(VIT, out_type='avg_featmap'), "out_type='avg_featmap'"),
    (dict(CONVNEXT, use_grn=True, layer_scale_init_value=0.), 'ConvNeXt V2'),
    (dict(CONVNEXT, gap_before_final_norm=False), 'gap_before_final_norm'),
    (dict(SWIN, use_abs_pos_embed=True), 'absolute position'),
    (dict(SWIN, out_indices=(2, 3)), r'out_indices=\(2, 3\)')])
def test_what_torchvision_lacks(cfg, what):
    with pytest.raises(ValueError, match=f'torchvision has no .*{what}.*openmmlab'):
        export_backbone(trained(cfg).state_dict(), cfg, 'torchvision')
