# SPDX-License-Identifier: Apache-2.0
"""What a training asks of hooks, optimizer and clipping where the head is sharded."""
from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from pic_plugin.communication import communicator
from pic_plugin.engine.two_optimizers import PICOptimWrapper
from pic_plugin.models.pic_head import PICHead

#: Optimizers whose update of an element depends on that element alone.
ELEMENTWISE = ('SGD', 'Adam', 'AdamW', 'Adamax', 'NAdam', 'RAdam', 'RMSprop', 'Adagrad', 'Adadelta',
               'ASGD', 'Rprop')


def prepare_sharded_head(runner: Runner, head: PICHead, wrapper: Any) -> None:
    """Make sure that each process may train its part of the head; nothing for a whole head.

    Args:
        runner (Runner): Of the training.
        head (PICHead): Of its model.
        wrapper (OptimWrapper): Of the optimizer that trains the head. Where it clips by norm it
            counts each part once from here on.

    Raises:
        ValueError: If a hook or the optimizer needs the whole of the head.
    """
    if not head.slots.is_sharded:
        return
    if any(isinstance(hook, EMAHook) for hook in runner.hooks):
        raise ValueError('EMAHook saves averages of a sharded head, of which each process has '
                         'a part only: leave it out, or set PICHead(sharded=False).')
    check_elementwise(wrapper.optimizer)
    if isinstance(runner.optim_wrapper, PICOptimWrapper):
        runner.optim_wrapper.is_sharded = True
    if getattr(wrapper, 'clip_func', None) is torch.nn.utils.clip_grad_norm_:
        wrapper.clip_func = clip_grad_norm_over_shards(head.weight)


def clip_grad_norm_over_shards(shard: nn.Parameter) -> Any:
    """A ``torch.nn.utils.clip_grad_norm_`` that knows of a parameter that is held in parts.

    Args:
        shard (nn.Parameter): The parameter of which each process has other rows. All others have
            the same gradient in all processes.

    Returns:
        Callable: Clips the gradients of ``parameters`` by their norm over all processes, and
        returns that norm. All processes call it together.
    """

    def clip(parameters: Tensor | Iterable[Tensor], max_norm: float,
             norm_type: float = 2.0, error_if_nonfinite: bool = False, **_: Any) -> Tensor:
        given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        own = [one.grad for one in given if one is shard and one.grad is not None]
        others = [one.grad for one in given if one is not shard and one.grad is not None]
        in_parts = _over_ranks(_norm([_norm_of(grad, norm_type) for grad in own], norm_type, shard),
                               norm_type)
        norm = _norm([in_parts, *(_norm_of(grad, norm_type) for grad in others)], norm_type, shard)
        if error_if_nonfinite and not bool(norm.isfinite()):
            raise RuntimeError(f'the norm of the gradients is {float(norm)}, so they cannot be '
                               'clipped; error_if_nonfinite=False goes on.')
        # Multiplied where it is 1 too, as torch's does: no wait for the GPU.
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for grad in own + others:
            grad.mul_(factor.to(grad))
        return norm

    return clip


def check_elementwise(optimizer: Optimizer) -> None:
    """Refuse an optimizer that looks at more than one element at a time.

    Raises:
        ValueError: If it may, as LARS and LAMB do with the norm of a parameter.
    """
    if type(optimizer).__name__ not in ELEMENTWISE:
        raise ValueError(
            f'{type(optimizer).__name__} may look at the norm of a whole parameter, of which each '
            'process of a sharded head sees a part only: choose an optimizer of '
            f'{", ".join(ELEMENTWISE)}, or PICHead(sharded=False).')


def _norm_of(grad: Tensor, norm_type: float) -> Tensor:
    wide = torch.promote_types(grad.dtype, torch.float32)
    return torch.linalg.vector_norm(grad, norm_type, dtype=wide)


def _norm(norms: list[Tensor], norm_type: float, like: Tensor) -> Tensor:
    """Norm of everything that the norms were taken of; 0 of nothing."""
    if not norms:
        return torch.zeros((), device=like.device)
    return torch.linalg.vector_norm(torch.stack([norm.to(like.device) for norm in norms]),
                                    norm_type)


def _over_ranks(norm: Tensor, norm_type: float) -> Tensor:
    if math.isinf(norm_type):
        return communicator().max(norm, 'clipping')
    return communicator().sum(norm.pow(norm_type), 'clipping').pow(1 / norm_type)
