# SPDX-License-Identifier: Apache-2.0
"""Hook: how good the features are at each quarter of a window."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

QUARTERS = 4
KEY = 'quarters'


class WindowPhaseHook(Hook):
    """Measures during training, and averages over windows by quarter.

    A sliding window of w images is visited in w / batch steps, and then moves. Quarter 4 is
    measured when all of it has been visited, quarter 1 after a quarter of the next window.

    Args:
        measure (Callable): Takes the model in evaluation mode, and returns an accuracy.
        period (int): Steps of a window, a multiple of 4.
        begin (int): Step after which measuring begins.

    Raises:
        ValueError: If ``period`` is not a positive multiple of 4.
    """

    priority = 'LOWEST'

    def __init__(self, measure: Callable[[Any], float], period: int, begin: int) -> None:
        if period < QUARTERS or period % QUARTERS:
            raise ValueError(f'period must be a positive multiple of {QUARTERS} steps, not '
                             f'{period}: choose a window of that many batches.')
        self.measure = measure
        self.period = period
        self.begin = begin
        self.values: list[list[float]] = [[] for _ in range(QUARTERS)]

    def before_train(self, runner: Runner) -> None:
        """Take over what was measured before a resume.

        Raises:
            ValueError: If the training ends before a whole window has been measured.
        """
        if runner.max_iters < self.begin + self.period:
            raise ValueError(f'a training of {runner.max_iters} steps has no whole window of '
                             f'{self.period} steps after step {self.begin}: train longer, or '
                             'change window_phase.')
        if runner.iter:
            self.values = [list(part) for part in runner.message_hub.get_info(KEY)]

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        """Measure at the end of each quarter."""
        steps = runner.iter + 1
        quarter = self.period // QUARTERS
        if steps <= self.begin or steps % quarter:
            return
        model = runner.model
        self.values[(steps // quarter - 1) % QUARTERS].append(self.measure(model.eval()))
        model.train()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Into the message hub of the checkpoint, in its plain form."""
        checkpoint['message_hub']['runtime_info'][KEY] = self.values

    def means(self) -> dict[str, float]:
        """``quarter1`` to ``quarter4``, those that were measured."""
        return {f'quarter{number}': sum(part) / len(part)
                for number, part in enumerate(self.values, start=1) if part}
