# SPDX-License-Identifier: Apache-2.0
"""Random numbers that depend on the place in the training alone, so that a cut run can go on."""
from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.runner import Runner

ITERATION = 1  # tells the seeds of iterations from those of epochs


def seed_epoch(runner: Runner) -> None:
    """Seed Python's, NumPy's and torch's generators from (seed, epoch, rank)."""
    _seed(runner.seed, runner.epoch, get_rank())


def seed_iteration(runner: Runner) -> None:
    """Seed them from (seed, iteration, rank), so that a run may be cut within an epoch."""
    _seed(runner.seed, runner.iter, get_rank(), ITERATION)


def _seed(*entropy: int) -> None:
    words = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.manual_seed(int(words[2]))
