# SPDX-License-Identifier: Apache-2.0
"""Vision transformers of mmpretrain in torchvision and timm."""
from __future__ import annotations

from typing import Any

from torch import nn

from pic_plugin.engine.checkpoint.foreign_checkpoint import StateDict
from pic_plugin.transfer.foreign_network import ForeignNetwork, check_form, renamed

_NAMES = dict(
    torchvision=(
        (r'^cls_token$', 'class_token'),
        (r'^pos_embed$', 'encoder.pos_embedding'),
        (r'^patch_embed\.projection\.', 'conv_proj.'),
        (r'^ln1\.', 'encoder.ln.'),
        (r'^layers\.(\d+)\.', r'encoder.layers.encoder_layer_\1.'),
        (r'\.ln([12])\.', r'.ln_\1.'),
        (r'\.attn\.qkv\.', '.self_attention.in_proj_'),
        (r'\.attn\.proj\.', '.self_attention.out_proj.'),
        (r'\.ffn\.layers\.0\.0\.', '.mlp.0.'),
        (r'\.ffn\.layers\.1\.', '.mlp.3.'),
    ),
    timm=(
        (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
        (r'^ln1\.', 'norm.'),
        (r'^layers\.(\d+)\.', r'blocks.\1.'),
        (r'\.ln([12])\.', r'.norm\1.'),
        (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
        (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
    ))


def rename(weights: StateDict, form: str) -> StateDict:
    """See :class:`Family`."""
    return renamed(weights, _NAMES[form])


def build(network: Any) -> ForeignNetwork:
    """See :class:`Family`. The feature is the class token."""
    first = network.layers[0]
    image, patch = network.img_size, network.patch_embed.projection.kernel_size
    check_form('ViT', (
        (image[0] == image[1] and patch[0] == patch[1], 'images or patches that are not square'),
        (network.cls_token is not None, 'no class token'),
        (network.final_norm, 'no final norm'),
        # It has a norm of its own for the mean, and the class token was not trained.
        (network.out_type == 'cls_token', f'out_type={network.out_type!r}'),
        (isinstance(network.pre_norm, nn.Identity), 'a norm before the first block')))
    sizes = (image[0], patch[0], network.num_layers, first.attn.num_heads, network.embed_dims,
             first.ffn.feedforward_channels)
    return ForeignNetwork(
        (f'network = torchvision.models.VisionTransformer{sizes}', ), 'heads',
        (f'network = timm.models.VisionTransformer(img_size={image[0]}, patch_size={patch[0]}, '
         f'embed_dim={network.embed_dims}, depth={network.num_layers}, '
         f'num_heads={first.attn.num_heads}, '
         f'mlp_ratio={first.ffn.feedforward_channels / network.embed_dims}, num_classes=0)', ))
