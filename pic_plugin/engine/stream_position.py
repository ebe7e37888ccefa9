# SPDX-License-Identifier: Apache-2.0
"""Where a training is in the sampler's stream: saved with checkpoints, gone on from exactly."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from pic_plugin.datasets.sliding_window_sampler import SlidingWindowSampler
from pic_plugin.engine.checkpoint.schedules import check_schedulers
from pic_plugin.engine.random_state import seed_epoch
from pic_plugin.engine.ranks import images_of_a_step
from pic_plugin.engine.runner_private import count_epoch, restart_workers, resumes

KEY = 'pic_stream'
_NUMBERS = ('seed', 'window_size', 'stride', 'offset')


class StreamPosition:
    """Follows a training along the stream of a :class:`SlidingWindowSampler`.

    For the hooks whose checkpoints resume exactly: a checkpoint says where in the stream it was
    saved, so that a run may be cut anywhere and loads nothing twice. With another sampler, runs are
    to be cut between epochs.

    Args:
        runner (Runner): Whose train loop has been built.

    Raises:
        ValueError: If an endless sampler is in a loop that waits for an epoch to end.
    """

    def __init__(self, runner: Runner) -> None:
        sampler = runner.train_dataloader.sampler
        self.sampler: SlidingWindowSampler | None = (
            sampler if isinstance(sampler, SlidingWindowSampler) else None)
        self._restored: dict[str, int] | None = None
        self._epoch = self._first_iter = self._first_offset = self._batch = 0
        if self.sampler is None:
            return
        if self.sampler.endless and isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ValueError('SlidingWindowSampler(endless=True) never ends an epoch, for which '
                             'an epoch-based loop would wait: set endless=False, or '
                             'train_cfg=dict(by_epoch=False, max_iters=...).')
        window_size = self.sampler.window_size
        # An iteration-based loop whose loader ends knows its place from its iterations alone.
        self._has_offset = self.sampler.endless or isinstance(runner.train_loop,
                                                              EpochBasedTrainLoop)
        self.sampler.set_global_batch(images_of_a_step(runner.train_dataloader))
        # The workers of an iteration-based loop have started with it.
        self._stale = window_size != self.sampler.window_size

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Say in a checkpoint where it was saved, by its own count of epochs and iterations."""
        if self.sampler is not None:
            checkpoint[KEY] = self.sampler.state_dict()
            if self._has_offset:
                checkpoint[KEY]['offset'] = self._offset(checkpoint['meta'])

    def _offset(self, meta: dict[str, Any]) -> int:
        """Positions done in the epoch that is under way, or of an endless stream."""
        assert self.sampler is not None
        if not self.sampler.endless and meta['epoch'] != self._epoch:
            return 0
        return self._first_offset + (meta['iter'] - self._first_iter) * self._batch

    def load(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Take from a checkpoint that is being resumed what :meth:`restore` will need.

        Raises:
            ValueError: If its entry is damaged, or it lacks what the learning rate depends on.
        """
        if not resumes(runner):
            return
        check_schedulers(runner, checkpoint)
        if self.sampler is None:
            return
        state = checkpoint.get(KEY)
        if state is None:
            # Version 0.1.0 has saved the seed, and resumes at starts of epochs.
            bank = checkpoint.get('pic_bank')
            state = dict(seed=bank.get('sampler_seed')) if isinstance(bank, dict) else {}
        if not isinstance(state, dict) or not all(
                type(state[name]) is int and (name == 'seed' or state[name] >= 0)
                for name in _NUMBERS if state.get(name) is not None):
            raise ValueError(f'this checkpoint cannot be resumed: its {KEY} is {state!r:.100}, '
                             'which no run saves. Resume from another one.')
        self._restored = state

    def restore(self, runner: Runner) -> None:
        """Before training: put sampler and loop where the saved run was."""
        _expect_iterations(runner, self._restore_sampler(runner))

    def _restore_sampler(self, runner: Runner) -> int:
        """Returns the batches of an epoch-based loop's present epoch that were trained on."""
        sampler, loop, state = self.sampler, runner.train_loop, self._restored
        step_images = images_of_a_step(runner.train_dataloader)
        if sampler is None:
            return 0
        done = 0
        if state is not None:
            sampler.load_state_dict(state)
            offset = state.get('offset')
            if sampler.endless:
                if offset is None:  # of a run whose loader ended
                    epochs, batches = divmod(loop.iter, len(runner.train_dataloader))
                    offset = epochs * sampler.num_images + batches * step_images
                sampler.start_at(0, offset)
                done = loop.iter
            elif offset and isinstance(loop, EpochBasedTrainLoop):
                sampler.start_at(runner.epoch, offset)
                # Counted from the end: batches may have been of another size up to here.
                loader = runner.train_dataloader
                done = len(loader) - _num_batches(loader, sampler.num_left)
                _run_rest_first(runner, loop, done)
        if isinstance(loop, IterBasedTrainLoop):
            if sampler.endless:
                loop.dataloader_iterator = EndlessIterator(runner.train_dataloader, done)
            elif self._stale or state is not None:
                restart_workers(runner)
        return done

    def begin_epoch(self, runner: Runner) -> None:
        """Seed all random generators; note where the epoch or the iterations start or go on."""
        seed_epoch(runner)
        if self.sampler is None:
            return
        self._batch = images_of_a_step(runner.train_dataloader)
        self._epoch, self._first_iter = runner.epoch, runner.iter
        same = self.sampler.endless or self.sampler.epoch == runner.epoch
        self._first_offset = self.sampler.offset if same else 0


class EndlessIterator:
    """What an iteration-based loop takes its batches from, of a loader that never ends.

    mmengine's own restarts a loader that has ended, and a resumed loop asks it for all batches
    that were trained on before. Those are answered here without being loaded.

    Args:
        loader (DataLoader): With an endless sampler, which is at the first batch to load.
        num_done (int): Batches to answer with None first. Defaults to 0.
    """

    def __init__(self, loader: Any, num_done: int = 0) -> None:
        self._iterator = iter(loader)
        self._num_done = num_done

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._num_done:
            self._num_done -= 1
            return None
        return next(self._iterator)


def epoch_and_batch(runner: Runner, batch_idx: int) -> tuple[int, int]:
    """Epoch, and batch in it, by the sampler's count, that the batch at hand is."""
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        return runner.epoch, batch_idx
    if getattr(runner.train_dataloader.sampler, 'endless', False):
        return 0, runner.iter
    return divmod(runner.iter, len(runner.train_dataloader))


def _num_batches(loader: Any, num_images: int) -> int:
    """Batches that a loader makes of a number of images."""
    size = loader.batch_size or 1
    return num_images // size if loader.drop_last else -(-num_images // size)


def _expect_iterations(runner: Runner, done: int) -> None:
    """Tell the optimizer's wrapper how many iterations there will be, if mmengine is wrong.

    Of a resumed run it adds up epochs of the present length, though those before may have been
    longer or shorter; and a gradient that is accumulated beyond the last iteration stops the run.
    """
    loop = runner.train_loop
    if isinstance(loop, EpochBasedTrainLoop):
        left = (loop.max_epochs - loop.epoch) * len(loop.dataloader) - done
        if loop.iter + left != loop.max_iters:
            runner.optim_wrapper.initialize_count_status(runner.model, loop.iter, loop.iter + left)


def _run_rest_first(runner: Runner, loop: EpochBasedTrainLoop, num_done: int) -> None:
    """Let the loop's first epoch be the rest of one, its batches counted from ``num_done`` on."""
    def run_rest() -> None:
        del loop.run_epoch  # the class's again
        runner.logger.info(f'going on in epoch {runner.epoch + 1} after {num_done} of '
                           f'{len(loop.dataloader)} iterations')
        runner.call_hook('before_train_epoch')
        runner.model.train()
        for idx, data_batch in enumerate(loop.dataloader, start=num_done):
            loop.run_iter(idx, data_batch)
        runner.call_hook('after_train_epoch')
        count_epoch(loop)

    loop.run_epoch = run_rest
