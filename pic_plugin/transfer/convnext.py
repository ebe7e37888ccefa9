# SPDX-License-Identifier: Apache-2.0
"""ConvNeXts of mmpretrain in torchvision and timm."""
from __future__ import annotations

from typing import Any

from pic_plugin.engine.checkpoint.foreign_checkpoint import StateDict
from pic_plugin.transfer.foreign_network import ForeignNetwork, check_form, renamed

# torchvision's stages and what lies between them are numbered in one sequence.
_TORCHVISION = (
    *((rf'^downsample_layers\.{i}\.', f'features.{2 * i}.') for i in range(4)),
    *((rf'^stages\.{i}\.', f'features.{2 * i + 1}.') for i in range(4)),
    (r'\.gamma$', '.layer_scale'),
    (r'\.depthwise_conv\.', '.block.0.'),
    (r'^(features\.\d+\.\d+)\.norm\.', r'\1.block.2.'),
    (r'\.pointwise_conv1\.', '.block.3.'),
    (r'\.pointwise_conv2\.', '.block.5.'),
    (r'^norm3\.', 'classifier.0.'),
)
_TIMM = (
    (r'^downsample_layers\.0\.', 'stem.'),
    (r'^downsample_layers\.(\d)\.', r'stages.\1.downsample.'),
    (r'^stages\.(\d)\.(\d+)\.', r'stages.\1.blocks.\2.'),
    (r'\.depthwise_conv\.', '.conv_dw.'),
    (r'\.pointwise_conv([12])\.', r'.mlp.fc\1.'),
    (r'^norm3\.', 'head.norm.'),
)
_KNOWN = {((3, 3, 9, 3), 96): 'tiny', ((3, 3, 27, 3), 96): 'small', ((3, 3, 27, 3), 128): 'base',
          ((3, 3, 27, 3), 192): 'large'}


def rename(weights: StateDict, form: str) -> StateDict:
    """See :class:`Family`."""
    if form == 'timm':
        return renamed(weights, _TIMM)
    return {name: value.reshape(-1, 1, 1) if name.endswith('.layer_scale') else value
            for name, value in renamed(weights, _TORCHVISION).items()}


def build(network: Any) -> ForeignNetwork:
    """See :class:`Family`. The feature is pooled, then normalised."""
    block, stem = network.stages[0][0], network.downsample_layers[0][0]
    check_form('ConvNeXt', (
        (network.num_stages == 4, f'{network.num_stages} stages'),
        (list(network.out_indices) == [3], f'out_indices={network.out_indices}'),
        (network.gap_before_final_norm, 'gap_before_final_norm=False'),
        (stem.kernel_size == (4, 4), f'a stem of {stem.kernel_size}'),
        (block.linear_pw_conv, 'linear_pw_conv=False'),
        (block.grn is None, 'use_grn=True (ConvNeXt V2)'),
        (block.gamma is not None, 'no layer scale')))
    depths, channels = tuple(network.depths), tuple(network.channels)
    settings = [(channels[i], channels[i + 1] if i < 3 else None, depths[i]) for i in range(4)]
    known = _KNOWN.get((depths, channels[0]))
    if known is not None:
        lines: tuple[str, ...] = (f'network = torchvision.models.convnext_{known}()', )
    else:
        lines = ('block = torchvision.models.convnext.CNBlockConfig',
                 'network = torchvision.models.ConvNeXt(['
                 + ', '.join(f'block{one}' for one in settings) + '])')
    return ForeignNetwork(lines, 'classifier.2', (
        f'network = timm.models.ConvNeXt(depths={depths}, dims={channels}, num_classes=0)', ))
