# SPDX-License-Identifier: Apache-2.0
"""The corrections that there are, and the choice of the one that fits an optimizer."""
from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from .adamw_correction import AdamWCorrection
from .correction import Correction, NoCorrection
from .sgd_correction import SGDCorrection

CORRECTIONS: tuple[type[Correction], ...] = (SGDCorrection, AdamWCorrection)

# Optimizers that users may try, and why there is no correction for what they do to absent rows.
_WHY_NOT = dict(
    LARS='its step depends on the norm of all class weights together',
    LAMB='its step depends on the norm of all class weights together',
    Lamb='its step depends on the norm of all class weights together',
    Lion='its step is the sign of a momentum, so that a class without gradient moves on at full '
    'speed until the momentum underflows',
    Adafactor='its second moments are shared by all class weights, absent or not',
    Adam='its weight decay feeds its moments, so that a class without gradient never comes to rest',
    NAdam='its momentum follows a schedule of its own',
    RAdam='its step changes its form during the first steps',
    Adan='its moments are of differences between gradients')


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
    group, name = group_of(optimizer, weight), type(optimizer).__name__
    why_not = _WHY_NOT.get(name, 'what it does to a class that is not sampled is not known')
    reason = f'the optimizer is {name}: {why_not}'
    for kind in CORRECTIONS:
        against = kind.reason_against(optimizer, group)
        if against is None:
            return kind()
        if name in kind.optimizers:
            reason = against
    names = ' and '.join(f'torch.optim.{name}' for kind in CORRECTIONS for name in kind.optimizers)
    raise ValueError(
        f'correct_weights=True is exact for {names} only, and {reason}. Choose '
        'optimizer=dict(type="SGD", ...) or optimizer=dict(type="AdamW", ...). To keep the '
        "optimizer for the network alone, add constructor='PICOptimWrapperConstructor', "
        "class_weights_optimizer=dict(type='SGD', ...) to optim_wrapper. Or set "
        'PICHead(num_negatives=None) for a softmax over all instances, or '
        'PICHead(correct_weights=False) for uncorrected sampling (in a loop of your own '
        'correction=NoCorrection()).')


def no_correction_for(optimizer: Optimizer, weight: nn.Parameter) -> NoCorrection:
    """Uncorrected sampling, with the states of the optimizer where they are known beforehand.

    Args:
        optimizer (Optimizer): That trains the class weights; any.
        weight (nn.Parameter): The class weights in the softmax.
    """
    group = group_of(optimizer, weight)
    fits = [kind for kind in CORRECTIONS if kind.reason_against(optimizer, group) is None]
    return NoCorrection(fits[0].state_names if fits else None)


def correction_named(name: str) -> Correction:
    """The correction that a checkpoint names, with no steps recorded.

    Raises:
        ValueError: If there is none of that name.
    """
    for kind in CORRECTIONS:
        if kind.__name__ == name:
            return kind()
    raise ValueError(f'there is no correction {name!r}: the checkpoint is of a newer version.')
