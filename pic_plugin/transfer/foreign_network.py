# SPDX-License-Identifier: Apache-2.0
"""What it takes to give a backbone of mmpretrain to another library."""
from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

import torch
import torchvision
from torch import nn

from pic_plugin.engine.checkpoint.foreign_checkpoint import StateDict

Patterns = Sequence[tuple[str, str]]


class ForeignNetwork(NamedTuple):
    """Networks of the same form in other libraries.

    Attributes:
        torchvision (tuple[str, ...]): Lines of Python that make ``network``.
        classifier (str): Name of the classifier in it.
        timm (tuple[str, ...]): Likewise for timm's, which then has no classifier; none if timm has
            no such network.
    """

    torchvision: tuple[str, ...]
    classifier: str
    timm: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """Lines of Python that make torchvision's network without a classifier, to be copied."""
        classifier = re.sub(r'\.(\d+)', r'[\1]', f'network.{self.classifier}')
        return (*self.torchvision, f'{classifier} = torch.nn.Identity()')

    @property
    def name(self) -> str:
        """'resnet18' and the like; '' for a network of other sizes."""
        match = re.fullmatch(r'network = torchvision\.models\.(\w+)\(\)',
                             '\n'.join(self.torchvision))
        return match[1] if match else ''

    def make(self) -> nn.Module:
        """torchvision's network, (B, 3, H, W) -> (B, C), by the lines that people will copy."""
        scope: dict[str, Any] = dict(torch=torch, torchvision=torchvision)
        exec('\n'.join(self.lines), scope)
        network: nn.Module = scope['network']
        return network


class Family(NamedTuple):
    """Backbones of one kind.

    Attributes:
        build (Callable): mmpretrain's network -> ForeignNetwork. Raises ValueError with the reason
            if torchvision has none of its form.
        rename (Callable): Weights of mmpretrain's network without prefix, and 'torchvision' or
            'timm' -> the weights under that library's names.
    """

    build: Callable[[nn.Module], ForeignNetwork]
    rename: Callable[[StateDict, str], StateDict]


def renamed(weights: StateDict, patterns: Patterns) -> StateDict:
    """The weights in their order, each name through all patterns."""
    result = OrderedDict()
    for name, value in weights.items():
        for pattern, replacement in patterns:
            name = re.sub(pattern, replacement, name)
        result[name] = value
    return result


def taken_back(weights: StateDict, own: StateDict,
               rename: Callable[[StateDict, str], StateDict], form: str) -> StateDict:
    """The inverse of a family's ``rename``, which gives each weight a name and an order of values.

    Each weight of the network is sent through it with the places of its values in the place of the
    values: what comes out says under which name and in which order they are in the file.

    Args:
        weights (dict[str, Tensor]): Under the other library's names.
        own (dict[str, Tensor]): Of mmpretrain's network. What the renaming leaves out, which is no
            weight, is taken from it.
        rename (Callable): Of the :class:`Family`.
        form (str): 'torchvision' or 'timm'.

    Returns:
        dict[str, Tensor]: Under mmpretrain's names; a weight of another size as it is, and one that
        no weight of the network becomes under its own name.
    """
    back, left = OrderedDict(), OrderedDict(weights)
    for name, value in own.items():
        places = rename({name: torch.arange(value.numel()).view(value.shape)}, form)
        if not places:
            back[name] = value
        for foreign, order in places.items():
            found = left.pop(foreign, None)
            if found is not None and found.shape == order.shape:
                found = torch.empty_like(found).flatten().scatter(
                    0, order.flatten(), found.flatten()).view(value.shape)
            if found is not None:
                back[name] = found
    return {**back, **left}


def check_form(kind: str, requirements: Sequence[tuple[bool, str]]) -> None:
    """Refuse a network of which torchvision has none like it.

    Args:
        kind (str): For the message.
        requirements (Sequence[tuple[bool, str]]): Whether each is met, and what it is not.

    Raises:
        ValueError: If one is not met.
    """
    reasons = [reason for met, reason in requirements if not met]
    if reasons:
        raise ValueError(f'torchvision has no {kind} with {" and ".join(reasons)}: use --format '
                         'openmmlab.')
