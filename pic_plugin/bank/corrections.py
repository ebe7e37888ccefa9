# SPDX-License-Identifier: Apache-2.0
"""The corrections that there are, and the choice of the one that fits an optimizer."""
from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from .correction import Correction, NoCorrection
from .sgd_correction import SGDCorrection

CORRECTIONS: tuple[type[Correction], ...] = (SGDCorrection,)


def group_of(optimizer: Optimizer, weight: nn.Parameter) -> dict[str, Any]:
    """The optimizer's group with a parameter: its learning rate, momentum and so on.

    Raises:
        ValueError: If the optimizer does not train it.
    """
    for group in optimizer.param_groups:
        if any(parameter is weight for parameter in group['params']):
            return group
    raise ValueError('the optimizer does not train the class weights: pass their parameter to it.')


def correction_for(optimizer: Optimizer, weight: nn.Parameter) -> Correction:
    """The correction that is exact for an optimizer.

    Args:
        optimizer (Optimizer): That trains the class weights.
        weight (nn.Parameter): The class weights in the softmax.

    Raises:
        ValueError: If there is none; the message names the choices.
    """
    group = group_of(optimizer, weight)
    reasons = []
    for kind in CORRECTIONS:
        reason = kind.reason_against(optimizer, group)
        if reason is None:
            return kind()
        if type(optimizer).__name__ in kind.optimizers:
            reasons = [reason]
    names = ' and '.join(f'torch.optim.{name}' for kind in CORRECTIONS for name in kind.optimizers)
    reason = reasons[0] if reasons else f'the optimizer is {type(optimizer).__name__}'
    raise ValueError(
        f'correct_weights=True is exact for {names} only, and {reason}: what it does to a class '
        'that is not sampled is not known. Choose optimizer=dict(type="SGD", ...), or '
        'PICHead(num_negatives=None) for a softmax over all instances, or '
        'PICHead(correct_weights=False) for uncorrected sampling.')


def no_correction_for(optimizer: Optimizer) -> NoCorrection:
    """Uncorrected sampling, with the states of the optimizer where they are known beforehand."""
    known = {name: kind.state_names for kind in CORRECTIONS for name in kind.optimizers}
    return NoCorrection(known.get(type(optimizer).__name__))


def correction_named(name: str) -> Correction:
    """The correction that a checkpoint names, with no steps recorded.

    Raises:
        ValueError: If there is none of that name.
    """
    for kind in CORRECTIONS:
        if kind.__name__ == name:
            return kind()
    raise ValueError(f'there is no correction {name!r}: the checkpoint is of a newer version.')
