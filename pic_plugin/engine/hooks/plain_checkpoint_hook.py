# SPDX-License-Identifier: Apache-2.0
"""Hook that lets any training of mmengine resume exactly, under a torch that loads no objects."""
from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from mmpretrain.utils import get_ori_model

from pic_plugin.engine.checkpoint.plain_checkpoint import (
    to_plain_message_hub,
    with_history_buffers,
)
from pic_plugin.engine.checkpoint.resumed_network import check_network, take_trained
from pic_plugin.engine.random_state import seed_iteration
from pic_plugin.engine.runner_private import end_workers, is_training, resume_on_host, resumes
from pic_plugin.engine.stream_position import StreamPosition


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Checkpoints of plain containers, and random numbers that depend on the place in the training.

    For trainings without an ``InstanceBankHook``, which does the same: linear evaluation,
    fine-tuning, other algorithms. mmengine 0.10 cannot resume from its own checkpoints with
    torch 2.6 or later, and a run that was cut in two would draw other augmentations.
    """

    _stream: StreamPosition | None = None

    def before_run(self, runner: Runner) -> None:
        """Find the stream that the training will go along."""
        if self._stream is None and is_training(runner):
            self._stream = StreamPosition(runner)
            resume_on_host(runner)

    def before_train(self, runner: Runner) -> None:
        """Go on where the saved run was."""
        assert self._stream is not None, 'before_run has made it'
        self._stream.restore(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed all random generators for the epoch."""
        assert self._stream is not None, 'before_run has made it'
        self._stream.begin_epoch(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed all random generators for the iteration."""
        seed_iteration(runner)

    def after_train(self, runner: Runner) -> None:
        """Let no worker outlive the training."""
        end_workers(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Turn mmengine's objects into plain containers."""
        to_plain_message_hub(checkpoint)
        if self._stream is not None:
            self._stream.save(checkpoint)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Turn them back; refuse to resume what does not fit."""
        with_history_buffers(checkpoint)
        if self._stream is not None:
            take_trained(runner, checkpoint)
            if resumes(runner):
                check_network(get_ori_model(runner.model), checkpoint)
            self._stream.load(runner, checkpoint)
