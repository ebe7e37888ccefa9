# SPDX-License-Identifier: Apache-2.0
"""Lines of progress now and then, and how a training ends that a signal has stopped."""
from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Callable

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from pic_plugin.engine.ranks import images_of_a_step
from pic_plugin.wording import duration

LINE_SECONDS = 10.0
LOADER_SHARE = 0.5


class ProgressHook(Hook):
    """Prints images seen, images a second, where the time goes, the loss, and the time left.

    Args:
        say (Callable): Takes a line. Defaults to print.
        seconds (float): Between two lines. Defaults to 10.
        clock (Callable): Seconds. Defaults to the monotonic clock.

    Attributes:
        images_seen (int): Since the training began, whether resumed or not.
    """

    priority = 'VERY_LOW'

    def __init__(self, say: Callable[[str], Any] = print, seconds: float = LINE_SECONDS,
                 clock: Callable[[], float] = time.perf_counter) -> None:
        self.say = say
        self.seconds = seconds
        self.clock = clock
        self.images_seen = 0
        self._hinted = False

    def before_train(self, runner: Runner) -> None:
        """Start counting."""
        self._batch = images_of_a_step(runner.train_dataloader)
        self.images_seen = runner.iter * self._batch
        self._restart(runner.iter, self.clock())

    def _restart(self, done: int, now: float) -> None:
        self._begin = self._mark = now
        self._first, self._loading = done, 0.0

    def before_train_epoch(self, runner: Runner) -> None:
        """Loading begins."""
        self._mark = self.clock()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """The batch is there."""
        self._loading += self.clock() - self._mark

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict[str, Any] | None = None) -> None:
        """Print, if it is time."""
        now = self._mark = self.clock()
        elapsed = now - self._begin
        done = runner.iter + 1
        self.images_seen = done * self._batch
        last = done == runner.max_iters
        if (elapsed < self.seconds and not last) or not is_main_process():
            return
        rate = (done - self._first) / max(elapsed, 1e-9)
        share = self._loading / max(elapsed, 1e-9)
        value = (outputs or {}).get('loss')
        loss = '' if value is None else f', loss {float(value.detach()):.3f}'
        left = '' if last else f', {duration((runner.max_iters - done) / rate)} left'
        self.say(f'{self.images_seen:,} of {runner.max_iters * self._batch:,} images '
                 f'({100 * done / runner.max_iters:.0f} %), {rate * self._batch:,.0f} images/s, '
                 f'{100 * share:.0f} % of the time waiting for pictures{loss}{left}')
        if share > LOADER_SHARE and not self._hinted and runner.train_dataloader.num_workers:
            self._hinted = True
            self.say('the network waits for pictures most of the time: more loader workers '
                     '(train_dataloader.num_workers), or smaller copies of the pictures, would '
                     'make this faster')
        self._restart(done, now)

    def after_val_epoch(self, runner: Runner,
                        metrics: dict[str, float] | None = None) -> None:
        """Print what an evaluation gave; its time is not the training's."""
        if metrics and is_main_process():
            epoch = f'epoch {runner.epoch}, ' if runner.epoch else ''
            values = ', '.join(f'{name} {value:.1f} %' for name, value in metrics.items())
            self.say(f'labels ({epoch}{self.images_seen:,} images): {values}')
        self._restart(runner.iter, self.clock())


class Interrupted(Exception):
    """Training ended by a signal, with a checkpoint.

    Attributes:
        checkpoint (Path): What was saved.
        signal_number (int): Which signal.
        images_seen (int): Until then.
    """

    def __init__(self, checkpoint: Path, signal_number: int, images_seen: int) -> None:
        super().__init__(f'stopped after {images_seen:,} images')
        self.checkpoint = checkpoint
        self.signal_number = signal_number
        self.images_seen = images_seen
