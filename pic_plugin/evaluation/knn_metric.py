# SPDX-License-Identifier: Apache-2.0
"""Metric: accuracy of a nearest-neighbour classifier on the network's features."""
from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmengine import dist
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmpretrain.registry import METRICS
from torch import Tensor

from pic_plugin.datasets.skip_broken import BROKEN
from pic_plugin.evaluation.knn import knn_predict, merge_keys, normalise

_PACK = "dict(type='PackInputs', meta_keys=('sample_idx', 'reference', 'img_path'))"
_MARK = (f"add dict(type='MarkReference') to the pipeline of the reference split alone, before "
         f'{_PACK}, which ends the pipelines of both splits')

_NO_ROWS = torch.empty(0, 4, dtype=torch.int64)

# Whatever is kept of each batch, be it small, lies between the large temporaries of two batches and
# leaves holes that glibc's allocator does not fill: three times the size of the features was seen.
# A block of this size, bytes, is mapped by itself, and what is not written of it yet takes no
# memory.
_BLOCK_BYTES = 64 * 2**20


class _Part(NamedTuple):
    """Samples of one batch, or of several.

    Attributes:
        feats (Tensor): (B, d) float16, unit length.
        table (Tensor): (B, 4) int64 on the CPU: 1 for a reference and 0 for a query, the index in
            its data set (-1: unknown), the label, and 1 for a picture that could not be loaded.
    """

    feats: Tensor
    table: Tensor


class _Order(NamedTuple):
    """What the rows of the joint table, process after process, are used for.

    Attributes:
        references (Tensor): (R,) int64, rows of the references in the order of their positions.
        queries (Tensor): (Q,) int64, rows of the queries, ascending.
    """

    references: Tensor
    queries: Tensor


@METRICS.register_module()
class KNNMetric(BaseMetric):
    """Top-1 accuracy of the weighted kNN classifier of InstDisc (see ``knn.py``), in percent.

    One data loader brings the reference split, whose samples carry ``reference=True``, and the
    split that is evaluated, whose samples do not::

        val_dataloader = dict(
            dataset=dict(type='ConcatDataset', datasets=[
                dict(type=..., pipeline=[..., dict(type='MarkReference'), pack]),   # references
                dict(type=..., pipeline=[..., pack])]),                             # evaluated
            sampler=dict(type='DefaultSampler', shuffle=False), ...)
        val_evaluator = dict(type='KNNMetric')

    with ``pack = dict(type='PackInputs', meta_keys=('sample_idx', 'reference', 'img_path'))``, of
    which ``img_path`` only serves messages, to name the file. The model's predictions must have
    ``feat``, (d,), and ``gt_label``. The results are ``knn/top1_k20`` and ``knn/top1_k200``.

    Features are L2-normalised and stored as float16: 2·d bytes a sample (5.24e9 bytes for
    1.28 M references with d = 2048), each process holding its own share of the references.
    Similarities are computed in float32 where the features come from (CPU or GPU), block by block
    within ``max_memory_mb``. Besides, each process holds a copy of all queries (0.2e9 bytes for
    50,000; while several processes exchange them, up to three), and about 130 bytes for each sample
    of all processes.

    With several processes, samples that the sampler added to fill the last round are counted once:
    they are known by ``sample_idx``. The result is that of one process, but for neighbours whose
    similarities differ by no more than float32 rounding.

    Args:
        topk (int | Sequence[int]): Numbers of neighbours. Defaults to (20, 200).
        temperature (float): Temperature of the votes. Defaults to 0.07.
        feat_key (str): Field of the predictions that holds the feature. Defaults to 'feat'.
        max_memory_mb (int): Working memory of a process on top of the stored features, 2^20 bytes.
            Defaults to 512.
        collect_device (str): Where features are stored: 'cpu', or 'gpu' for the device they come
            from, which spares copying them forth and back if they fit. Defaults to 'cpu'.
        prefix (str, optional): Prefix of the results' names. Defaults to 'knn'.

    Raises:
        ValueError: If an argument is out of range; in evaluation, if a prediction lacks the
            feature or the label or has one of the wrong shape or range, a feature is not finite,
            either split is missing, a k is larger than the reference split, or the samples do not
            add up to the data set.
    """

    default_prefix = 'knn'

    def __init__(self,
                 topk: int | Sequence[int] = (20, 200),
                 temperature: float = 0.07,
                 feat_key: str = 'feat',
                 max_memory_mb: int = 512,
                 collect_device: str = 'cpu',
                 prefix: str | None = 'knn') -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.topk = (topk, ) if isinstance(topk, int) else tuple(topk)
        if not self.topk or any(not isinstance(k, int) or k < 1 for k in self.topk):
            raise ValueError(f'topk must be positive integers, not {topk!r}.')
        if not temperature > 0:
            raise ValueError(f'temperature must be positive, not {temperature}.')
        if max_memory_mb < 1:
            raise ValueError(f'max_memory_mb must be at least 1, not {max_memory_mb}.')
        if collect_device not in ('cpu', 'gpu'):
            raise ValueError(f"collect_device must be 'cpu' or 'gpu', not {collect_device!r}.")
        self.temperature = temperature
        self.feat_key = feat_key
        self.max_memory_mb = max_memory_mb
        self.results: list[_Part] = []
        self._device = torch.device('cpu')
        self._size: int | None = None
        self._block: _Part | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the features, labels and origins of a batch.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): Predictions with ``feat_key``, (d,) floating point,
                ``gt_label``, one integer, ``sample_idx`` and, for references, ``reference``.
        """
        if not data_samples:
            return
        feats = torch.stack([self._feature(sample) for sample in data_samples]).detach()
        finite = feats.isfinite().all(dim=1)
        if not finite.all():
            sample = data_samples[int(finite.logical_not().nonzero()[0])]
            raise ValueError(
                f'kNN evaluation: the feature of {_name(sample)} is not finite: the network gives '
                'no usable features; look at its losses and inputs, or take an earlier '
                'checkpoint.')
        table = torch.tensor([[
            int(bool(sample.get('reference', False))), int(sample.get('sample_idx', -1)),
            self._label(sample), int(bool(sample.get(BROKEN, False)))
        ] for sample in data_samples], dtype=torch.int64)
        self._device = feats.device
        self._keep(_Part(normalise(feats), table))

    def _keep(self, batch: _Part) -> None:
        """Copy a batch to the last block, or to a new one."""
        device = torch.device('cpu') if self.collect_device == 'cpu' else batch.feats.device
        width = batch.feats.shape[1]
        used = len(self.results[-1].table) if self.results else 0
        block = self._block
        if (block is None or block.feats.device != device or block.feats.shape[1] != width
                or used + len(batch.table) > len(block.table)):
            rows = max(_BLOCK_BYTES // (batch.feats.element_size() * width), len(batch.table))
            block = self._block = _Part(batch.feats.new_empty(rows, width, device=device),
                                        batch.table.new_empty(rows, 4))
            used = 0
        end = used + len(batch.table)
        block.feats[used:end] = batch.feats
        block.table[used:end] = batch.table
        self.results[len(self.results) - (used > 0):] = [
            _Part(block.feats[:end], block.table[:end])]

    def _feature(self, sample: dict) -> Tensor:
        feat = sample.get(self.feat_key)
        if feat is None:
            raise ValueError(
                f'a prediction has no {self.feat_key!r}: evaluate a model that sets it in mode '
                f"'predict', such as PIC, or give KNNMetric(feat_key=...); it has "
                f'{sorted(sample)}.')
        if not isinstance(feat, Tensor) or feat.dim() != 1:
            raise ValueError(f'{self.feat_key!r} of a prediction must be a tensor of shape (d,), '
                             f'not {tuple(feat.shape) if isinstance(feat, Tensor) else feat!r}.')
        return feat

    def evaluate(self, size: int) -> dict:
        """Compute the accuracies over all processes, and forget the samples.

        Args:
            size (int): Length of the data set, references and queries.

        Returns:
            dict: Accuracies in percent, the same on each process.
        """
        self._size = size
        try:
            metrics = self.compute_metrics(self.results)
        finally:
            self.results.clear()
            self._block = None
        if self.prefix:
            metrics = {f'{self.prefix}/{name}': value for name, value in metrics.items()}
        # Votes of near ties may round differently on different hardware.
        shared = [metrics]
        dist.broadcast_object_list(shared)
        return shared[0]

    @torch.no_grad()
    def compute_metrics(self, results: list) -> dict:
        """Accuracies from this process's batches and, if there are several, the others'.

        Returns:
            dict: ``top1_k{k}`` in percent, for each k.
        """
        tables = _all_gather_rows(torch.cat([_NO_ROWS, *(part.table for part in results)]))
        joint = torch.cat(tables)
        order = _order(joint, [len(table) for table in tables], self._size)
        _check_splits(joint, order)
        num_references = len(order.references)
        self.check_references(num_references)
        first = sum(len(table) for table in tables[:dist.get_rank()])
        own = slice(first, first + len(tables[dist.get_rank()]))
        queries = _own_queries(results, order, own)
        positions = torch.full((len(joint), ), -1)
        positions[order.references] = torch.arange(num_references)
        shares = _all_gather_rows(queries)
        predicted = knn_predict(
            # With one process, the queries themselves and not another copy.
            shares[0] if len(shares) == 1 else torch.cat(shares),
            [part.feats for part in results],
            joint[order.references, 2],
            self.topk,
            self.temperature,
            self.max_memory_mb * 2**20,
            positions=positions[own],
            device=self._device,
            merge=_merge_over_processes)
        correct = predicted == joint[order.queries, 2:3]
        return {f'top1_k{k}': float(accuracy)
                for k, accuracy in zip(self.topk, correct.double().mean(dim=0) * 100)}

    def check_references(self, num_references: int) -> None:
        """Refuse fewer references than neighbours.

        Raises:
            ValueError: If a k exceeds ``num_references``.
        """
        if max(self.topk) > num_references:
            raise ValueError(
                f'kNN evaluation: topk={self.topk}, but there are {num_references} references: set '
                f"val_evaluator=dict(type='KNNMetric', topk=...) to at most {num_references}, or "
                'give more references.')

    def _label(self, sample: dict) -> int:
        label = sample.get('gt_label')
        if label is None:
            raise ValueError(f'kNN evaluation needs labels of both splits, but {_name(sample)} has '
                             'no gt_label: use a data set with labels, for CustomDataset folders '
                             'by class and with_label=True.')
        label = torch.as_tensor(label)
        if label.numel() != 1:
            raise ValueError(f'kNN evaluation needs one label a sample, not {label.numel()} '
                             f'(gt_label {label.tolist()} of {_name(sample)}).')
        classes = (self.dataset_meta or {}).get('classes')
        if int(label) < 0 or classes and int(label) >= len(classes):
            known = f'0 to {len(classes) - 1}' if classes else '0 and above'
            raise ValueError(f'kNN evaluation: {_name(sample)} has label {int(label)}, and labels '
                             f'are {known}: mend the annotation file or the classes of its data '
                             'set.')
        return int(label)


def _name(sample: dict) -> str:
    """Which sample a message is about: its file is known if meta_keys have ``img_path``."""
    split = 'of' if sample.get('reference') else 'outside of'
    file = f' ({sample["img_path"]})' if 'img_path' in sample else ''
    return f'sample {sample.get("sample_idx", "?")}{file} {split} the reference split'


def _check_splits(joint: Tensor, order: _Order) -> None:
    if not len(order.references):
        raise ValueError('kNN evaluation found no reference samples among '
                         f'{len(joint)} samples: {_MARK}.')
    if not len(order.queries):
        raise ValueError(f'kNN evaluation found nothing to evaluate: all {len(joint)} samples are '
                         f'references; {_MARK}, and join both splits in the val_dataloader: '
                         "dataset=dict(type='ConcatDataset', datasets=[references, evaluated]).")


def _own_queries(results: list, order: _Order, own: slice) -> Tensor:
    """(q, d) float16: features of this process's queries; (0, 0) if it has no samples."""
    if not results:
        return torch.empty(0, 0, dtype=torch.float16)
    widths = {part.feats.shape[1] for part in results}
    if len(widths) > 1:
        raise ValueError(f'features have different lengths in different batches: {sorted(widths)}.')
    is_query = torch.zeros(own.stop, dtype=torch.bool)
    is_query[order.queries[order.queries < own.stop]] = True
    masks = is_query[own].split([len(part.feats) for part in results])
    return torch.cat([part.feats[mask.to(part.feats.device)]
                      for part, mask in zip(results, masks)])


def _order(joint: Tensor, sizes: list[int], size: int | None) -> _Order:
    """Which rows count, and in which order.

    Rows are ordered by data set index or, where that is unknown, as mmengine's samplers deal
    samples out: sample i to process i mod world size.
    """
    if size is None:
        size = len(joint)
    if len(joint) < size:
        raise ValueError(f'{len(joint)} of {size} samples reached the kNN evaluation: set '
                         'drop_last=False in the data loader and round_up=True in its sampler.')
    dealt = torch.cat([torch.arange(count) * len(sizes) + rank for rank, count in enumerate(sizes)])
    rows = dealt.argsort()
    if (joint[:, 1] >= 0).all():
        rows = rows[joint[rows, 1].argsort(stable=True)]
    if len(joint) > size:
        rows = _without_repeats(joint, rows, size)
    broken = joint[rows, 3] == 1
    if broken.any():
        print_log(f'kNN evaluation: {int(broken.sum())} of {len(rows)} images could not be loaded '
                  'and are left out.', logger='current', level=logging.WARNING)
        rows = rows[~broken]
    is_reference = joint[rows, 0] == 1
    return _Order(rows[is_reference], rows[~is_reference].sort().values)


def _without_repeats(joint: Tensor, rows: Tensor, size: int) -> Tensor:
    """Drop what a sampler added to give each process as many samples."""
    if (joint[:, 1] < 0).any():
        raise ValueError(f'{len(joint)} samples of a data set of {size} reached the kNN evaluation '
                         'and cannot be told apart without sample_idx: end both pipelines with '
                         f'{_PACK}.')
    origin = joint[rows, 0] + 2 * joint[rows, 1]
    # Rows are in the order of sample_idx, and a stable sort brings the two splits' rows together.
    by_origin = origin.argsort(stable=True)
    origin = origin[by_origin]
    first = torch.ones(len(origin), dtype=torch.bool)
    first[1:] = origin[1:] != origin[:-1]
    if int(first.sum()) != size:
        raise ValueError(
            f'the {len(joint)} samples that reached the kNN evaluation have {int(first.sum())} '
            f'different pairs of split and sample_idx, but the data set has {size} samples: each '
            'split must be one data set with indices of its own, not several joined ones.')
    return rows[by_origin[first]]


def _all_gather_rows(rows: Tensor) -> list[Tensor]:
    """Every process's (n, d) rows, n differing among processes; (0, 0) fits any d."""
    if dist.get_world_size() == 1:
        return [rows]
    shapes = torch.stack(dist.all_gather(torch.tensor(rows.shape)))
    widths = set(shapes[:, 1].tolist()) - {0}
    if len(widths) > 1:
        raise ValueError(f'features have different lengths on different processes: '
                         f'{shapes[:, 1].tolist()}.')
    counts, width = shapes[:, 0].tolist(), max(widths, default=0)
    padded = rows.new_zeros(max(counts), width)
    padded[:len(rows), :rows.shape[1]] = rows
    return [part[:count] for part, count in zip(dist.all_gather(padded), counts)]


def _merge_over_processes(keys: Tensor) -> Tensor:
    return keys if dist.get_world_size() == 1 else merge_keys(dist.all_gather(keys))
