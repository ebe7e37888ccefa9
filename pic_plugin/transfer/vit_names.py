# SPDX-License-Identifier: Apache-2.0
"""Vision transformers of mmpretrain under the names of torchvision and timm."""
from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from pic_plugin.engine.checkpoint.foreign_checkpoint import StateDict

TYPES = ('VisionTransformer', 'MoCoV3ViT')
# torchvision's classifier, which a backbone lacks.
CLASSIFIER = ('heads.head.weight', 'heads.head.bias')
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


def vit_names(weights: StateDict, form: str) -> StateDict:
    """The weights under a library's names.

    Args:
        weights (dict[str, Tensor]): Of mmpretrain's VisionTransformer, without prefix.
        form (str): 'torchvision' or 'timm'.
    """
    renamed = OrderedDict()
    for name, value in weights.items():
        for pattern, replacement in _NAMES[form]:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def torchvision_vit(network: Any) -> VisionTransformer:
    """torchvision's network of the sizes of mmpretrain's.

    Raises:
        ValueError: If torchvision has none of its form.
    """
    first = network.layers[0]
    image, patch = network.img_size, network.patch_embed.projection.kernel_size
    reasons = [reason for fits, reason in (
        (image[0] == image[1] and patch[0] == patch[1], 'images or patches that are not square'),
        (network.cls_token is not None, 'no class token'),
        (network.final_norm, 'no final norm'),
        # It has a norm of its own for the mean, and the class token was not trained.
        (network.out_type == 'cls_token', f'out_type={network.out_type!r}'),
        (isinstance(network.pre_norm, nn.Identity), 'a norm before the first block'),
    ) if not fits]
    if reasons:
        raise ValueError(f'torchvision has no ViT with {" and ".join(reasons)}: use --format '
                         'openmmlab.')
    return VisionTransformer(
        image[0], patch[0], network.num_layers, first.attn.num_heads, network.embed_dims,
        first.ffn.feedforward_channels)


@torch.no_grad()
def class_token_difference(network: Any, other: nn.Module) -> float:
    """Largest difference of the class tokens for a noise image, over the largest of their elements.

    Args:
        network (nn.Module): mmpretrain's, which gives its class token.
        other (nn.Module): torchvision's.
    """
    side = network.img_size[0]
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    network.eval()
    other.eval()
    seen: list[Tensor] = []
    hook = other.encoder.register_forward_hook(  # type: ignore[union-attr]
        lambda module, inputs, output: seen.append(output[:, 0]))
    other(images)
    hook.remove()
    expected = network(images)[-1]
    return float((expected - seen[0]).abs().max() / expected.abs().max())
