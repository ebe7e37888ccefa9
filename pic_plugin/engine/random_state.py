# SPDX-License-Identifier: Apache-2.0
"""Random numbers that depend on the place in the training alone, so that a cut run can go on."""
from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.runner import Runner


def seed_epoch(runner: Runner) -> None:
    """Seed Python's, NumPy's and torch's generators from (seed, epoch, rank)."""
    words = np.random.SeedSequence([runner.seed, runner.epoch, get_rank()]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.manual_seed(int(words[2]))
