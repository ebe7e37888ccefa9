# SPDX-License-Identifier: Apache-2.0
"""Check that a checkpoint holds all that a network is evaluated with."""
from __future__ import annotations

from mmpretrain.models import BaseSelfSupervisor
from torch import nn

from pic_plugin.engine.checkpoint.foreign_checkpoint import (
    check_finite,
    describe_differing,
    read_checkpoint,
    resnet_depth,
    say_which,
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
        ValueError: If it is not a checkpoint, or a weight is missing, unused, of another shape or
            not finite.
    """
    if '://' in path:
        return
    loaded = read_checkpoint(path)
    say_which(loaded, path, averaged=True)  # mmengine takes what is under `state_dict`
    content = state_dict_of(loaded, path)
    # As mmengine does.
    content = {name.removeprefix('module.'): value for name, value in content.items()}
    part = 'backbone.' if isinstance(model, BaseSelfSupervisor) else ''
    own, saved = ({name: value for name, value in state.items() if name.startswith(part)}
                  for state in (model.state_dict(), content))
    wrong = describe_differing(own, saved)
    if not wrong:
        check_finite(saved, path)
        return
    depth = resnet_depth({name[len('backbone.'):]: value for name, value in content.items()
                          if name.startswith('backbone.')})
    hint = f' The file is a ResNet-{depth}.' if depth else ''
    raise ValueError(f"{path} does not fit the config's network: {wrong}.{hint} Give the config "
                     'that the checkpoint was trained with.')
