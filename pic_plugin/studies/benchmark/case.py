# SPDX-License-Identifier: Apache-2.0
"""A head, the batches that it is given, and what was measured."""
from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pic_plugin.datasets import SlidingWindowSampler
from pic_plugin.studies.benchmark.heads import SEED, BankHead, DenseHead, Head, Step
from pic_plugin.studies.benchmark.process import forget_peak, resident_bytes

LOOKAHEAD = 8  # batches, as engine.row_prefetch


class Sizes(NamedTuple):
    """What all cases of a benchmark share."""

    batch_size: int
    feat_dim: int
    window_size: int
    stride: int
    device: torch.device
    betas: tuple[float, float] = (0.9, 0.999)


class Case:
    """A way to train N instance classes.

    Args:
        kind (str): 'bank', 'adamw' (the same with AdamW), 'file' (the bank on disk), 'cold' (the
            same, read from the disk and not from the system's cache), 'dense' (sampling with SGD
            over all rows) or 'full' (softmax and SGD over all rows).
        num_instances (int): N.
        num_negatives (int): K.
        sizes (Sizes): The rest.
        folder (Path): For files.
        dtype (str): Of stored rows.
    """

    def __init__(self, kind: str, num_instances: int, num_negatives: int, sizes: Sizes,
                 folder: Path, dtype: str = 'float32') -> None:
        self.kind, self.num_instances, self.sizes = kind, num_instances, sizes
        self.num_negatives = num_instances if kind == 'full' else min(num_negatives, num_instances)
        self.steps: list[Step] = []
        self.warmup_losses: list[float] = []
        self.peak_bytes = 0
        before = resident_bytes()
        common = (num_instances, self.num_negatives, sizes.feat_dim, sizes.device)
        self.head: Head
        if kind in ('dense', 'full'):
            self.head = DenseHead(*common)
        else:
            path: Path | None = None
            if kind not in ('bank', 'adamw'):
                path = folder / f'{kind}-{num_instances}-{self.num_negatives}.bank'
            self.head = BankHead(*common, path, dtype, sizes.betas if kind == 'adamw' else None)
        self._batches = _batches(num_instances, sizes)
        self._coming: deque[np.ndarray] = deque()
        self._generator = torch.Generator().manual_seed(SEED)
        self._held_bytes = resident_bytes() - before

    def warm_up(self, num_steps: int) -> None:
        """Train without measuring: rows have to leave before any can return."""
        before = resident_bytes()
        self.run(num_steps)
        self.warmup_losses = [step.loss for step in self.steps]
        self.steps.clear()
        self._held_bytes = max(self._held_bytes + resident_bytes() - before, 0)
        self.peak_bytes = self._held_bytes

    def run(self, num_steps: int) -> None:
        """Train, and remember each step."""
        if self.kind == 'cold':
            self.head.forget_cache()
        forget_peak()
        before = resident_bytes()
        for _ in range(num_steps):
            while len(self._coming) <= LOOKAHEAD:
                self._coming.append(next(self._batches))
                self.head.expect(self._coming[-1])
            ids = self._coming.popleft()
            features = torch.randn(len(ids), self.sizes.feat_dim, generator=self._generator)
            self.steps.append(
                self.head.step(ids, features.to(self.sizes.device).requires_grad_()))
        transient = resident_bytes('VmHWM') - before
        self.peak_bytes = max(self.peak_bytes, self._held_bytes + max(transient, 0))

    def close(self) -> None:
        """Remove what is on disk."""
        self.head.close()

    @property
    def median_ms(self) -> float:
        """Median time of a step, milliseconds."""
        return 1e3 * statistics.median(step.seconds for step in self.steps)

    @property
    def bank_ms(self) -> float:
        """Median time of the bank in a step, milliseconds."""
        return 1e3 * statistics.median(step.bank_seconds for step in self.steps)

    @property
    def returned(self) -> float:
        """Mean number of rows that returned in a step."""
        return statistics.fmean(step.returned for step in self.steps)


def _batches(num_instances: int, sizes: Sizes) -> Iterator[np.ndarray]:
    sampler = SlidingWindowSampler(range(num_instances), sizes.window_size, sizes.stride, seed=SEED)
    position = 0
    while True:
        yield sampler.ids_at(position, position + sizes.batch_size)
        position += sizes.batch_size
