# SPDX-License-Identifier: Apache-2.0
"""Hook: let any training of mmengine resume, exactly, under a torch that loads no objects."""
from __future__ import annotations

import random
from typing import Any, Optional

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from mmpretrain.registry import HOOKS

from pic_plugin.engine.checkpoint.plain_checkpoint import to_plain_message_hub, with_history_buffers
from pic_plugin.engine.checkpoint.schedulers import check_schedulers
from pic_plugin.engine.stream_position import KEY, StreamPosition

ITERATION = 1  # tells the seeds of iterations from those of epochs


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Checkpoints of plain containers, and random numbers that depend on the iteration alone.

    For trainings without an ``InstanceBankHook``, which does the same: linear evaluation,
    fine-tuning, other algorithms. mmengine 0.10 cannot resume from its own checkpoints with
    torch 2.6 or later, and a run that was cut in two would draw other augmentations.

    With a ``SlidingWindowSampler`` a run may be cut anywhere: a checkpoint says where in the
    sampler's stream it was saved, and a resumed run goes on from there and loads nothing twice.
    """

    _stream: Optional[StreamPosition] = None

    def before_run(self, runner: Runner) -> None:
        """Find the stream that the training will go along."""
        if self._stream is None and isinstance(runner._train_loop, BaseLoop):
            self._stream = StreamPosition(runner)

    def before_train(self, runner: Runner) -> None:
        """Go on in the stream where the saved run was."""
        if self._stream is not None:
            self._stream.restore(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed Python's, NumPy's and torch's generators from (seed, epoch, rank)."""
        _seed_all(runner.seed, runner.epoch, get_rank())
        if self._stream is not None:
            self._stream.begin_epoch(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch: Any = None) -> None:
        """Seed them from (seed, iteration, rank), for a run that is cut within an epoch."""
        _seed_all(runner.seed, runner.iter, get_rank(), ITERATION)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn mmengine's objects into plain containers; say where in the stream it is."""
        to_plain_message_hub(checkpoint)
        state = None if self._stream is None else self._stream.state(checkpoint['meta'])
        if state is not None:
            checkpoint[KEY] = state

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn them back; refuse what a resumed run could not go on from exactly."""
        with_history_buffers(checkpoint)
        if runner._resume and self._stream is not None:
            check_schedulers(runner, checkpoint)
            self._stream.remember(checkpoint)


def _seed_all(*entropy: int) -> None:
    words = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.manual_seed(int(words[2]))
