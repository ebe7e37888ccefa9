# SPDX-License-Identifier: Apache-2.0
"""The network that a resumed run goes on with: the trained one, and the same one."""
from __future__ import annotations

from typing import Any

from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from torch import nn

from pic_plugin.engine.runner_private import resumes

from .foreign_checkpoint import TRAINED, describe_differing

PREFIX = 'module.'  # of EMAHook's own model


def take_trained(runner: Runner, checkpoint: dict[str, Any]) -> None:
    """In place: put trained weights where a checkpoint has averages that nobody will swap back.

    ``EMAHook`` saves averages as the network, and swaps them back when it resumes. A run without it
    would train the averages on with the optimizer's state of the trained weights, and averages of
    class weights are those of several classes.
    """
    if not resumes(runner) or TRAINED not in checkpoint or any(
            isinstance(hook, EMAHook) for hook in runner.hooks):
        return
    checkpoint['state_dict'].update({
        name[len(PREFIX):]: value for name, value in checkpoint[TRAINED].items()
        if name.startswith(PREFIX)})
    runner.logger.warning('The checkpoint has averages of an EMAHook, and this run has no EMAHook: '
                          'the training goes on from the trained weights, without averages.')


def check_network(model: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Refuse a checkpoint of another network, of which mmengine would take what fits.

    Args:
        model (nn.Module): Without its distributed wrapper.
        checkpoint (dict): That is being resumed, with the head's rows as this run has them.

    Raises:
        ValueError: If a weight is missing, has no place, or is of another shape.
    """
    wrong = describe_differing(model.state_dict(), checkpoint['state_dict'])
    if wrong:
        raise ValueError(
            f'this checkpoint cannot be resumed: it is of another network ({wrong}), and the rest '
            'would be random. Set model as it was, or start from what fits with '
            'load_from=CHECKPOINT and resume=False.')
