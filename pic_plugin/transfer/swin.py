# SPDX-License-Identifier: Apache-2.0
"""Swin transformers of mmpretrain in torchvision and timm."""
from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pic_plugin.engine.checkpoint.foreign_checkpoint import StateDict
from pic_plugin.transfer.foreign_network import ForeignNetwork, check_form, renamed

_BOTH = (
    (r'\.attn\.w_msa\.', '.attn.'),
    (r'^norm3\.', 'norm.'),
)
# torchvision's stages and what lies between them are numbered in one sequence.
_TORCHVISION = (
    *_BOTH,
    (r'^patch_embed\.projection\.', 'features.0.0.'),
    (r'^patch_embed\.norm\.', 'features.0.2.'),
    *((rf'^stages\.{i}\.downsample\.', f'features.{2 * i + 2}.') for i in range(3)),
    *((rf'^stages\.{i}\.blocks\.', f'features.{2 * i + 1}.') for i in range(4)),
    (r'\.ffn\.layers\.0\.0\.', '.mlp.0.'),
    (r'\.ffn\.layers\.1\.', '.mlp.3.'),
)
# timm shrinks a map at the beginning of a stage, mmpretrain at the end of the one before.
_TIMM = (
    *_BOTH,
    (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
    *((rf'^stages\.{i}\.downsample\.', f'layers.{i + 1}.downsample.') for i in range(3)),
    (r'^stages\.(\d)\.', r'layers.\1.'),
    (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
    (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
)
_KNOWN = {(96, (2, 2, 6, 2), (3, 6, 12, 24)): 't', (96, (2, 2, 18, 2), (3, 6, 12, 24)): 's',
          (128, (2, 2, 18, 2), (4, 8, 16, 32)): 'b'}


def rename(weights: StateDict, form: str) -> StateDict:
    """See :class:`Family`."""
    reordered: StateDict = {}
    for name, value in weights.items():
        if name.endswith('.relative_position_index'):
            if form == 'timm':  # which computes it anew
                continue
            value = value.flatten()
        elif '.downsample.' in name:
            value = _merged_order(value)
        reordered[name] = value
    return renamed(reordered, _TIMM if form == 'timm' else _TORCHVISION)


def _merged_order(value: Tensor) -> Tensor:
    """mmpretrain's order of four merged pixels, as nn.Unfold has it, into the original one.

    (..., 4 C): for each channel the pixels at (row, column) (0, 0), (0, 1), (1, 0), (1, 1) -> for
    each pixel (0, 0), (1, 0), (0, 1), (1, 1) its channels.
    """
    pixels = value.reshape(*value.shape[:-1], -1, 4)[..., [0, 2, 1, 3]]
    return pixels.transpose(-1, -2).reshape(value.shape).contiguous()


def build(network: Any) -> ForeignNetwork:
    """See :class:`Family`. The feature is the mean of the normalised map."""
    first = network.stages[0].blocks[0]
    window, patch = first.attn.window_size, network.patch_embed.projection.kernel_size
    size, dims = network.patch_embed.init_input_size, network.embed_dims
    hidden = first.ffn.feedforward_channels
    check_form('Swin transformer', (
        (network.num_layers == 4, f'{network.num_layers} stages'),
        (tuple(network.out_indices) == (3, ), f'out_indices={network.out_indices}'),
        (not network.out_after_downsample, 'out_after_downsample=True'),
        (not network.use_abs_pos_embed, 'an absolute position embedding'),
        (isinstance(getattr(network, 'norm3', None), nn.LayerNorm), 'no final norm')))
    depths, heads = tuple(network.depths), tuple(network.num_heads)
    known = _KNOWN.get((dims, depths, heads)) if (patch, window, hidden) == (
        (4, 4), 7, 4 * dims) else None
    constructor = f'swin_{known}()' if known else (
        f'SwinTransformer({list(patch)}, {dims}, {list(depths)}, {list(heads)}, '
        f'[{window}, {window}], {hidden / dims})')
    return ForeignNetwork(
        (f'network = torchvision.models.{constructor}', ), 'head',
        (f'network = timm.models.SwinTransformer(img_size={size[0]}, patch_size={patch[0]}, '
         f'embed_dim={dims}, depths={depths}, num_heads={heads}, window_size={window}, '
         f'mlp_ratio={hidden / dims}, num_classes=0)', ))
