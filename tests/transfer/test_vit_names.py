# SPDX-License-Identifier: Apache-2.0
"""A vision transformer in torchvision's network: positions and class token included."""
import pytest
import torch
from mmpretrain.registry import MODELS

from pic_plugin.transfer.export import export_backbone
from pic_plugin.transfer.vit_names import torchvision_vit

VIT = dict(
    type='VisionTransformer', img_size=32, patch_size=8,
    arch=dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=40))


def trained(cfg):
    """Weights of which none is at a starting value that hides it."""
    torch.manual_seed(0)
    network = MODELS.build(cfg)
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.3)
    return network


@pytest.mark.parametrize('cfg', [
    VIT, dict(VIT, type='MoCoV3ViT', stop_grad_conv1=True)], ids=['plain', 'mocov3'])
def test_torchvision_gives_the_same_class_token(cfg):
    network = trained(cfg)
    export = export_backbone(network.state_dict(), cfg, 'torchvision')
    other = torchvision_vit(network).eval()
    missing, unused = other.load_state_dict(export.state_dict, strict=False)
    assert missing == ['heads.head.weight', 'heads.head.bias'] and not unused
    other.heads = torch.nn.Identity()
    network.eval()  # gives nothing back
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(other(images), network(images)[-1], rtol=1e-4, atol=1e-4)
    assert export.num_loaded == len(network.state_dict())


def test_timm_names():
    # The names of timm's vision_transformer.py.
    block = [f'blocks.0.{name}.{kind}' for name in ('norm1', 'attn.qkv', 'attn.proj', 'norm2',
                                                    'mlp.fc1', 'mlp.fc2')
             for kind in ('weight', 'bias')]
    export = export_backbone(trained(VIT).state_dict(), VIT, 'timm')
    names = set(export.state_dict)
    assert {'cls_token', 'pos_embed', 'patch_embed.proj.weight', 'patch_embed.proj.bias',
            'norm.weight', 'norm.bias', *block} <= names
    assert len(names) == 6 + 2 * len(block)


@pytest.mark.parametrize('change', [
    dict(img_size=(32, 64)), dict(pre_norm=True), dict(out_type='avg_featmap')])
def test_what_torchvision_lacks(change):
    cfg = dict(VIT, **change)
    with pytest.raises(ValueError, match='torchvision'):
        export_backbone(trained(cfg).state_dict(), cfg, 'torchvision')
