# SPDX-License-Identifier: Apache-2.0
"""Steps of torch's SGD and AdamW whose learning rate and step number stay on the device.

torch.optim reads both on the host, which a recorded graph of operations (CUDA graph) would freeze.
"""
from __future__ import annotations

import torch
from torch import Tensor

BETAS, EPS = (0.9, 0.999), 1e-8


class Optimizer:
    """Steps one tensor.

    Args:
        values (Tensor): Any shape, changed in place.
        kind (str): 'sgd' or 'adamw'.
        lr (float): Learning rate, before the schedule's factor.
        momentum (float): Of SGD.
        weight_decay (float): Coupled for SGD, decoupled for AdamW.

    Attributes:
        states (list[Tensor]): What is kept beside the values: momentum, or both moments.
    """

    def __init__(self, values: Tensor, kind: str, lr: float, momentum: float,
                 weight_decay: float) -> None:
        self.values, self.kind, self.lr = values, kind, lr
        self.momentum, self.weight_decay = momentum, weight_decay
        self.states: list[Tensor] = [torch.zeros_like(values)
                                     for _ in range(1 if kind == 'sgd' else 2)]

    @torch.no_grad()
    def step(self, grad: Tensor, factor: Tensor, number: Tensor) -> None:
        """Take a step.

        Args:
            grad (Tensor): Of the shape of the values.
            factor (Tensor): (1,) on the learning rate.
            number (Tensor): (1,) steps taken before this one.
        """
        lr = factor * self.lr
        if self.kind == 'sgd':
            # torch starts the buffer as the first gradient; a buffer of zeros gives the same.
            self.states[0].mul_(self.momentum).add_(grad.add(self.values, alpha=self.weight_decay))
            self.values.addcmul_(self.states[0], lr, value=-1)
            return
        first, second = self.states
        first.lerp_(grad, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
        count = number.to(self.values.dtype) + 1
        corrected = (second / (1 - BETAS[1]**count)).sqrt_().add_(EPS)
        self.values.mul_(1 - lr * self.weight_decay)
        self.values.sub_(first / corrected * (lr / (1 - BETAS[0]**count)))
