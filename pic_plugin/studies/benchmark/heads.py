# SPDX-License-Identifier: Apache-2.0
"""Three ways to keep class weights and to train them."""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pic_plugin.bank import SampledClassWeights, Storage, initial_rows
from pic_plugin.losses import CosineSoftmaxLoss
from pic_plugin.studies.benchmark.process import drop_from_cache, now

SEED = 0
TEMPERATURE = 0.2
SGD: dict[str, Any] = dict(lr=0.03, momentum=0.9, weight_decay=1e-4)  # the authors' setting
ADAMW: dict[str, Any] = dict(lr=6e-4, weight_decay=0.1)  # as transformers have it


class Step(NamedTuple):
    """One measured step.

    Attributes:
        loss (float): Mean over the batch.
        seconds (float): Of the whole step.
        bank_seconds (float): Of these, choosing classes and moving rows.
        returned (int): Rows that came in and had missed steps.
    """

    loss: float
    seconds: float
    bank_seconds: float
    returned: int


class Head(Protocol):
    """A way to keep class weights and to train them."""

    def expect(self, ids: np.ndarray) -> None:
        """A batch that will come some steps later, (B,) int64."""

    def step(self, ids: np.ndarray, features: Tensor) -> Step:
        """Train on the instance classes ``ids`` (B,) int64 with ``features`` (B, d) float32."""

    def class_weights(self, ids: np.ndarray) -> Tensor:
        """Current rows (M, d) float32 of classes (M,) int64."""

    def forget_cache(self) -> None:
        """Let what is on disk be read from there again."""

    def close(self) -> None:
        """Remove what is on disk."""


class BankHead:
    """The plugin's head: K rows in the parameter, the others in the bank.

    Args:
        num_instances (int): N.
        num_negatives (int): K, at most N.
        feat_dim (int): d.
        device (torch.device): Of the parameter; the bank is on the host.
        path (Path, optional): File for the stored rows. Defaults to None: memory.
        dtype (str): What they are rounded to. Defaults to 'float32'.
        betas (tuple[float, float], optional): Of AdamW. Defaults to None: SGD.
    """

    def __init__(self, num_instances: int, num_negatives: int, feat_dim: int,
                 device: torch.device, path: Path | None = None,
                 dtype: str = 'float32',
                 betas: tuple[float, float] | None = None) -> None:
        self.weight = nn.Parameter(torch.zeros(num_negatives, feat_dim, device=device))
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.SGD([self.weight], **SGD) if betas is None else
            torch.optim.AdamW([self.weight], betas=betas, **ADAMW))
        self.loss = CosineSoftmaxLoss(TEMPERATURE)
        self.path = path
        self.sampled = SampledClassWeights(self.weight, self.optimizer, num_instances,
                                           num_negatives, SEED, storage=Storage(path, dtype))
        self.bank = self.sampled.bank
        self._executor = ThreadPoolExecutor(1)
        self.sampled.start()

    def expect(self, ids: np.ndarray) -> None:
        """See :class:`Head`; as engine.row_prefetch does."""
        if self.path is not None:
            leaving = self.bank.next_to_leave(len(ids))
            self._executor.submit(self.bank.stored.prefetch, np.concatenate([ids, leaving]))

    def step(self, ids: np.ndarray, features: Tensor) -> Step:
        """See :class:`Head`."""
        self.optimizer.zero_grad()
        start = now(self.weight)
        targets = self.sampled.sample(ids)
        sampled = now(self.weight)
        loss, _ = self.loss.with_accuracy(features, self.sampled.active, targets)
        loss.backward()
        self.optimizer.step()
        end = now(self.weight)
        return Step(float(loss.detach()), end - start, sampled - start,
                    int((self.sampled.missed > 0).sum()))

    def class_weights(self, ids: np.ndarray) -> Tensor:
        """See :class:`Head`."""
        return self.sampled.rows(ids)

    def forget_cache(self) -> None:
        """See :class:`Head`."""
        if self.path is not None and self.bank.store is not None:
            self._executor.submit(lambda: None).result()  # what was asked for has been
            drop_from_cache(self.path)

    def close(self) -> None:
        """See :class:`Head`."""
        self._executor.shutdown()
        if self.bank.store is not None:
            self.bank.store.close()


class DenseHead:
    """Plain PyTorch: all N rows in the parameter, and nothing of the plugin but the initial rows.

    With K below N, a softmax over the K most recent classes and SGD over all rows: sampling in
    the manner of InsightFace's PartialFC. With K = N, the softmax of the authors' code.

    Args:
        num_instances (int): N.
        num_negatives (int): K; from N on, a softmax over all rows.
        feat_dim (int): d.
        device (torch.device): Of the parameter.
    """

    def __init__(self, num_instances: int, num_negatives: int, feat_dim: int,
                 device: torch.device) -> None:
        self.weight = nn.Parameter(torch.empty(num_instances, feat_dim, device=device))
        for ids in np.array_split(np.arange(num_instances), -(-num_instances // 4096)):
            rows = torch.from_numpy(initial_rows(ids, feat_dim, SEED))
            self.weight.data[ids[0]:ids[-1] + 1] = rows.to(device)
        self.optimizer = torch.optim.SGD([self.weight], **SGD)
        self.num_negatives = num_negatives
        self.recent: dict[int, None] = {}  # active classes, the longest-unsampled one first

    def expect(self, ids: np.ndarray) -> None:
        """See :class:`Head`."""

    def step(self, ids: np.ndarray, features: Tensor) -> Step:
        """See :class:`Head`."""
        start = now(self.weight)
        for i in ids.tolist():
            self.recent.pop(i, None)
            self.recent[i] = None
        while len(self.recent) > self.num_negatives:
            del self.recent[next(iter(self.recent))]
        if self.num_negatives >= len(self.weight):
            class_weights: Tensor = self.weight
            targets = torch.from_numpy(ids)
        else:
            place = {i: j for j, i in enumerate(self.recent)}
            active = torch.tensor(list(place), device=self.weight.device)
            class_weights = self.weight[active]
            targets = torch.tensor([place[i] for i in ids.tolist()])
        cosines = F.normalize(features, dim=1) @ F.normalize(class_weights, dim=1).t()
        loss = F.cross_entropy(cosines / TEMPERATURE, targets.to(cosines.device))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        end = now(self.weight)
        return Step(float(loss.detach()), end - start, 0.0, 0)

    def class_weights(self, ids: np.ndarray) -> Tensor:
        """See :class:`Head`."""
        return self.weight.detach()[torch.from_numpy(ids)]

    def forget_cache(self) -> None:
        """See :class:`Head`."""

    def close(self) -> None:
        """See :class:`Head`."""
