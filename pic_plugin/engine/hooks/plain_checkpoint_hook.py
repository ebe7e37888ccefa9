# SPDX-License-Identifier: Apache-2.0
"""Hook: let any training of mmengine resume, exactly, under a torch that loads no objects."""
from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from pic_plugin.engine.checkpoint.plain_checkpoint import to_plain_message_hub, with_history_buffers


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Checkpoints of plain containers, and random numbers that depend on the epoch alone.

    For trainings without an ``InstanceBankHook``, which does the same: linear evaluation,
    fine-tuning, other algorithms. mmengine 0.10 cannot resume from its own checkpoints with
    torch 2.6 or later, and a run that was cut in two would draw other augmentations.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed Python's, NumPy's and torch's generators from (seed, epoch, rank)."""
        words = np.random.SeedSequence([runner.seed, runner.epoch, get_rank()]).generate_state(3)
        random.seed(int(words[0]))
        np.random.seed(words[1])
        torch.manual_seed(int(words[2]))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn mmengine's objects into plain containers."""
        to_plain_message_hub(checkpoint)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn them back."""
        with_history_buffers(checkpoint)
