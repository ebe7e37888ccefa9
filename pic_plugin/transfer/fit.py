# SPDX-License-Identifier: Apache-2.0
"""Does a checkpoint hold all that a network is evaluated with?"""
from __future__ import annotations

from typing import Optional

import torch
from mmpretrain.models import BaseSelfSupervisor
from torch import nn

from pic_plugin.engine.checkpoint.foreign_checkpoint import (
    check_finite,
    read_checkpoint,
    resnet_depth,
    state_dict_of,
)


def check_fits(model: nn.Module, path: str) -> None:
    """Compare names and shapes of weights before an evaluation.

    mmengine loads what fits, warns, and evaluates whatever random numbers are left. Of a
    self-supervised algorithm only the backbone is evaluated, and only that is compared.

    Args:
        model (nn.Module): Of the config, not wrapped.
        path (str): File of a checkpoint. Addresses (``https://...``) are not looked at.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint, or a weight is missing, unused, of another shape or not
            finite.
    """
    if '://' in path:
        return
    content = state_dict_of(read_checkpoint(path), path)
    # As mmengine does.
    content = {name[7:] if name.startswith('module.') else name: value
               for name, value in content.items()}
    part = 'backbone.' if isinstance(model, BaseSelfSupervisor) else ''
    own = {name: value.shape for name, value in model.state_dict().items()
           if name.startswith(part)}
    saved = {name: value.shape for name, value in content.items() if name.startswith(part)}
    wrong = sorted(name for name in own.keys() | saved.keys() if own.get(name) != saved.get(name))
    if not wrong:
        check_finite({name: content[name] for name in saved}, path)
        return
    depth = resnet_depth({name[len('backbone.'):]: value for name, value in content.items()
                          if name.startswith('backbone.')})
    hint = f' The file is a ResNet-{depth}.' if depth else ''
    raise ValueError(
        f"{path} does not fit the config's network: {len(wrong)} of {len(own)} weights differ, "
        f'such as {wrong[0]} ({_shape(own.get(wrong[0]))} in the network, '
        f'{_shape(saved.get(wrong[0]))} in the file).{hint} Give the config that the checkpoint '
        'was trained with.')


def _shape(shape: Optional[torch.Size]) -> str:
    return 'absent' if shape is None else f'shape {tuple(shape)}'
