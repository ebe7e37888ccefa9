# SPDX-License-Identifier: Apache-2.0
"""ResNets of mmpretrain in torchvision and timm, whose weights have the same names."""
from __future__ import annotations

from typing import Any

from torch import nn

from pic_plugin.engine.checkpoint.foreign_checkpoint import StateDict
from pic_plugin.transfer.foreign_network import ForeignNetwork, check_form

USUAL = (64, 64, (1, 2, 2, 2))  # channels of the stem and of the first stage, strides


def rename(weights: StateDict, form: str) -> StateDict:
    """See :class:`Family`."""
    return dict(weights)


def build(network: Any) -> ForeignNetwork:
    """See :class:`Family`. The feature is the mean of the last map."""
    check_form('ResNet', (
        (not network.deep_stem, 'a deep stem'),
        (not network.avg_down, 'avg_down=True'),
        (network.num_stages == 4, f'{network.num_stages} stages'),
        (tuple(network.out_indices) == (3, ), f'out_indices={network.out_indices}'),
        (network.deep_stem or isinstance(network.norm1, nn.BatchNorm2d),
         f'{network.norm_cfg["type"]} for norms'),
        (network.expansion == (1 if network.depth < 50 else 4),
         f'expansion={network.expansion}')))
    first, stem = network.conv1, network.conv1.out_channels
    base, strides = network.base_channels, tuple(network.strides)
    is_usual = (stem, base, strides) == USUAL and first.kernel_size == (7, 7)
    lines = [f'network = torchvision.models.resnet{network.depth}()']
    if not is_usual:
        block = 'BasicBlock' if network.depth < 50 else 'Bottleneck'
        lines += [
            f'block, network.inplanes = torchvision.models.resnet.{block}, {stem}',
            f'network.conv1 = torch.nn.Conv2d(3, {stem}, {first.kernel_size[0]}, '
            f'{first.stride[0]}, {first.padding[0]}, bias=False)',
            f'network.bn1 = torch.nn.BatchNorm2d({stem})']
        if first.kernel_size == (3, 3):  # ResNet_CIFAR
            lines.append('network.maxpool = torch.nn.Identity()')
        lines += [
            f'network.layer{place + 1} = network._make_layer(block, {base * 2**place}, '
            f'{network.stage_blocks[place]}, {strides[place]})' for place in range(4)]
    return ForeignNetwork(tuple(lines), 'fc', (
        f"network = timm.create_model('resnet{network.depth}', num_classes=0)", )
        if is_usual else ())
