# SPDX-License-Identifier: Apache-2.0
"""Keeps an optimizer's step hooks at work, which older versions of torch.compile take away."""
from __future__ import annotations

import functools
import types
from typing import Any, Callable

from torch.optim import Optimizer

# All functions that it returns share this: they differ in what they call.
_CALLS_HOOKS = Optimizer.profile_hook_step(lambda optimizer: None).__code__


def keep_step_hooks(optimizer: Optimizer) -> None:
    """Have ``optimizer.step`` call the hooks of ``register_step_pre_hook`` and its twin again.

    In torch 2.1 (not in 2.14) the first ``torch.compile`` of a process takes them out of all
    optimizers, without a word.
    """
    step = optimizer.step
    if _calls_hooks(step):
        return

    # What learning rate schedules have put in front of it stays.
    @functools.wraps(step)
    def plain(_: Optimizer, *args: Any, **kwargs: Any) -> Any:
        return step(*args, **kwargs)

    optimizer.step = types.MethodType(  # type: ignore[method-assign]
        Optimizer.profile_hook_step(plain), optimizer)


def _calls_hooks(step: Callable | None) -> bool:
    while step is not None:
        if getattr(step, '__code__', None) is _CALLS_HOOKS:
            return True
        step = getattr(step, '__wrapped__', None)
    return False
