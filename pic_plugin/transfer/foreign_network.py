# SPDX-License-Identifier: Apache-2.0
"""What it takes to give a backbone of mmpretrain to another library."""
from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Callable, NamedTuple

from torch import nn

from pic_plugin.engine.checkpoint.foreign_checkpoint import StateDict

Patterns = Sequence[tuple[str, str]]


class ForeignNetwork(NamedTuple):
    """torchvision's network of the same form.

    Attributes:
        network (nn.Module): (B, 3, H, W) -> (B, C): without its classifier.
        torchvision (str): Python that builds it, classifier included.
        timm (str): Python that builds timm's, without a classifier.
    """

    network: nn.Module
    torchvision: str
    timm: str


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
