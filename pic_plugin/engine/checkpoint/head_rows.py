# SPDX-License-Identifier: Apache-2.0
"""The head's rows inside a checkpoint: class weights and what the optimizer keeps for them."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class HeadRows:
    """Finds the tensors of a checkpoint that have one row for each slot of the head.

    Args:
        model (nn.Module): Without its distributed wrapper.
        weight (nn.Parameter): The head's.
        optimizer (Optimizer): That trains it.
    """

    def __init__(self, model: nn.Module, weight: nn.Parameter, optimizer: Optimizer) -> None:
        self.name = next(name for name, parameter in model.named_parameters()
                         if parameter is weight)
        # torch numbers parameters in the order of their groups.
        parameters = [parameter for group in optimizer.param_groups
                      for parameter in group['params']]
        self.place = next(i for i, parameter in enumerate(parameters) if parameter is weight)
        self._num_parameters = len(parameters)

    def weight(self, checkpoint: dict) -> Tensor:
        """(S, d) class weights in the softmax."""
        return checkpoint['state_dict'][self.name]

    def all_states(self, checkpoint: dict) -> dict[int, dict[str, Any]]:
        """What the optimizer of the head keeps, by the places of parameters; {} if not saved."""
        saved = checkpoint.get('optimizer') or {}
        # With several optimizers there is a dict for each; PICOptimWrapperConstructor names them.
        saved = saved.get('class_weights', saved)
        for part in ([saved] if 'state' in saved else saved.values()):
            if isinstance(part, dict) and sum(
                    len(group['params']) for group in part['param_groups']) == self._num_parameters:
                return part['state']
        return {}

    def states(self, checkpoint: dict) -> list[tuple[dict[str, Any], str]]:
        """Where the optimizer's (S, d) tensors are: containers and keys."""
        state = self.all_states(checkpoint).get(self.place, {})
        shape = self.weight(checkpoint).shape
        return [(state, key) for key, value in state.items()
                if isinstance(value, Tensor) and value.shape == shape]

    def move(self, checkpoint: dict, new_places: Tensor, weight: Tensor) -> None:
        """In place: give all rows new places among more rows.

        Args:
            checkpoint (dict): As it was loaded.
            new_places (Tensor): (S,) int64.
            weight (Tensor): (S', d) with what rows that none moves to begin with. What the
                optimizer keeps for those is zero.
        """
        for container, key in self.states(checkpoint):
            moved = torch.zeros_like(weight, dtype=container[key].dtype)
            moved[new_places] = container[key].to(moved.device)
            container[key] = moved
        # mmengine's EMAHook keeps averages of all parameters, under the names of its wrapper.
        for state_dict, name in ((checkpoint['state_dict'], self.name),
                                 (checkpoint.get('ema_state_dict', {}), f'module.{self.name}')):
            if name in state_dict:
                moved = weight.clone()
                moved[new_places] = state_dict[name].to(moved)
                state_dict[name] = moved
