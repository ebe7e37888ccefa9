# SPDX-License-Identifier: Apache-2.0
"""Hook: tell at the end what training has gained over the network as it was at the start."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from pic_plugin.datasets.stream_index import generators_kept
from pic_plugin.engine.runner_private import (
    forget_workers,
    iterations_done,
    last_checkpoint,
    only_hook,
)

INFO_KEY = 'untrained_metrics'


@HOOKS.register_module()
class CompareWithUntrainedHook(Hook):
    """Evaluate before training too, and print both results side by side after it.

    Before the first step the runner's validation loop measures the network as it is then: untrained
    or, with ``load_from``, as loaded. After training a table compares it with the last validation,
    or with one more if the last was not after the last step. The table ends with the path of the
    last checkpoint.

    Training goes on as if the first evaluation had not happened: the states of Python's,
    NumPy's and torch's random generators are put back, and no other hook sees the evaluation, so
    that neither logs nor counters nor "best" checkpoints nor early stopping know of it. The numbers
    are in the message hub and thereby in checkpoints, as a dict of floats: a resumed run
    compares with them, and does not evaluate before it goes on.

    Needs ``val_dataloader``, ``val_cfg`` and ``val_evaluator``.

    Args:
        interval (int): Batches between two lines of progress while the hook evaluates. Defaults to
            50.

    Raises:
        ValueError: If ``interval`` is less than 1 or, when training starts, the runner has no
            validation loop.
    """

    # After all others have prepared training, and after the last checkpoint was saved.
    priority = 'LOWEST'

    def __init__(self, interval: int = 50) -> None:
        if interval < 1:
            raise ValueError(f'interval must be at least 1 batch, not {interval}.')
        self.interval = interval
        self._untrained: dict[str, float] | None = None
        self._latest: dict[str, float] | None = None
        self._latest_iter = -1

    def before_train(self, runner: Runner) -> None:
        """Evaluate the untrained network, or take its numbers out of the checkpoint."""
        if runner.val_loop is None:
            raise ValueError('CompareWithUntrainedHook compares validation results, but there is '
                             'no validation: set val_dataloader, val_cfg and val_evaluator, or '
                             'remove the hook from custom_hooks.')
        self._latest, self._latest_iter = None, -1
        if runner.iter > 0:
            self._untrained = runner.message_hub.get_info(INFO_KEY)
            return
        runner.logger.info('Evaluating the network before training, to compare with later: '
                           f'{len(runner.val_dataloader.dataset)} samples.')
        self._untrained = self._evaluate(runner)
        runner.message_hub.update_info(INFO_KEY, self._untrained)
        runner.logger.info('Before training: ' + '  '.join(
            f'{name}: {value:.4f}' for name, value in self._untrained.items()))

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Remember the results of the runner's own validation."""
        self._latest, self._latest_iter = _scalars(metrics or {}), iterations_done(runner)

    def after_train(self, runner: Runner) -> None:
        """Print the table."""
        if self._latest is None or self._latest_iter != iterations_done(runner):
            # With all hooks: averaged weights, for instance, are put in place by one.
            runner.val_loop.run()
        if is_main_process():
            runner.logger.info(
                f'Before and after training:\n{_table(self._untrained, self._latest or {})}\n'
                f'Checkpoint: {last_checkpoint(runner) or "none was saved"}')

    def _evaluate(self, runner: Runner) -> dict[str, float]:
        was_training = runner.model.training
        gpus = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
        with generators_kept(), torch.random.fork_rng(gpus), \
                only_hook(runner, _Progress(self.interval)):
            metrics = runner.val_loop.run()
        forget_workers(runner.val_dataloader)
        runner.model.train(was_training)
        return _scalars(metrics)


class _Progress(Hook):
    """One line now and then, where the runner's own logging is off."""

    def __init__(self, interval: int) -> None:
        self.interval = interval

    def after_val_iter(self,
                       runner: Runner,
                       batch_idx: int,
                       data_batch: Any = None,
                       outputs: Sequence | None = None) -> None:
        if self.every_n_inner_iters(batch_idx, self.interval):
            runner.logger.info(f'Evaluated {batch_idx + 1} of {len(runner.val_dataloader)} batches')


def _scalars(metrics: dict) -> dict[str, float]:
    """The metrics that are one number; plain floats, which any checkpoint may hold."""
    return {str(name): float(value) for name, value in metrics.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, (int, float, np.number))


def _table(untrained: dict[str, float] | None, trained: dict[str, float]) -> str:
    """Lines of names, both values and the difference; a dash for what is not known."""
    untrained = untrained or {}
    names = list(dict.fromkeys([*untrained, *trained]))
    width = max([len('metric'), *(len(name) for name in names)])
    lines = [f'{"metric":<{width}} {"before":>12} {"after":>12} {"difference":>12}']
    for name in names:
        before, after = untrained.get(name), trained.get(name)
        gained = None if before is None or after is None else after - before
        lines.append(f'{name:<{width}} {_cell(before)} {_cell(after)} {_cell(gained, "+")}')
    return '\n'.join(lines)


def _cell(value: float | None, sign: str = '') -> str:
    return f'{"-":>12}' if value is None else f'{value:>{sign}12.2f}'
