# SPDX-License-Identifier: Apache-2.0
"""Stops a training whose loss is not finite, and says where the numbers went wrong."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from mmengine.logging import MessageHub
from torch import Tensor, nn

from pic_plugin.bank.transfers import HostCopy


class _Look(NamedTuple):
    """A step whose loss has been looked at, on a GPU without waiting for the answer."""

    names: list[str]  # of the tensors that led to the loss
    sums: HostCopy  # (1 + len(names),): the loss, then what the elements of each tensor add up to
    step: str


class LossCheck:
    """Raises if a loss is not finite: at once on a CPU, in the next step on a GPU.

    To ask a GPU at once would make the host wait for it in every step. :func:`refuse_to_save` waits
    for the answer, so that no checkpoint has anything of such a step.

    Args:
        model (nn.Module): Whose parameters the message names.
    """

    def __init__(self, model: nn.Module) -> None:
        # Not as an attribute: a module would become a part of itself.
        self._parameters = model.named_parameters
        self._last: _Look | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy has taken no step; an answer that a GPU owes can be neither copied nor saved.
        return dict(self.__dict__, _last=None)

    def look(self, loss: Tensor, tensors: Mapping[str, Tensor], optimizer_step: int) -> None:
        """Look at the loss of a step, and at what led to it.

        Args:
            loss (Tensor): Scalar.
            tensors (Mapping[str, Tensor]): Pixels and features, by the names for the message.
            optimizer_step (int): Optimizer steps taken before this one.

        Raises:
            FloatingPointError: If this loss, or on a GPU the one before, is not finite.
        """
        self.finish()
        iteration = MessageHub.get_current_instance().runtime_info.get('iter')
        where = '' if iteration is None else f'iteration {iteration + 1}, '
        step = f'{where}optimizer step {optimizer_step + 1}'
        loss = loss.detach()
        if loss.is_cuda or not torch.isfinite(loss):
            # A sum is not finite if an element is not. It reads each tensor once, and makes none.
            sums = [loss.float()] + [tensor.detach().sum(dtype=torch.float32)
                                     for tensor in tensors.values()]
            self._last = _Look(list(tensors), HostCopy(torch.stack(sums)), step)
        if not loss.is_cuda:
            self.finish('Nothing of this step was applied or saved.')

    def finish(self, consequence: str = 'Nothing of this step was saved.') -> None:
        """Wait for the answer about the last loss, if it is not known yet.

        Raises:
            FloatingPointError: If that loss was not finite.
        """
        last, self._last = self._last, None
        if last is None:
            return
        is_finite, *tensors = torch.isfinite(last.sums.wait()).tolist()
        if is_finite:
            return
        parts = [name for name, finite in zip(last.names, tensors) if not finite]
        parts += [f'parameter {name}' for name in _not_finite(dict(self._parameters()))]
        raise FloatingPointError(
            f'the loss is not finite at {last.step}. Not finite: '
            f'{", ".join(parts) or "only the loss itself"}. {consequence} If parameters are '
            'listed, a step broke them: resume from the last checkpoint with a lower learning rate '
            'or clip_grad; if only features are, half precision overflowed in the backbone: use '
            'bfloat16 or float32.')


def refuse_to_save(model: nn.Module) -> None:
    """Let no checkpoint be made of a model that a step has broken.

    Args:
        model (nn.Module): Without its distributed wrapper.

    Raises:
        FloatingPointError: If the last loss was not finite, or a parameter is not: so a step leaves
            it whose loss was finite and whose gradients were not.
    """
    loss_check = getattr(model, 'loss_check', None)
    if loss_check is not None:
        loss_check.finish()
    broken = _not_finite(dict(model.named_parameters()))
    if broken:
        raise FloatingPointError(
            f'parameters are not finite: {", ".join(broken)}. Gradients of the last step were not, '
            'though its loss was. Nothing was saved: resume from the last checkpoint with a lower '
            'learning rate or clip_grad.')


def _not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors with an element that is not finite; waits for a GPU once."""
    finite = [torch.isfinite(tensor.detach()).all() for tensor in tensors.values()]
    return [name for name, is_finite in zip(tensors, torch.stack(finite).tolist())
            if not is_finite] if finite else []
