# SPDX-License-Identifier: Apache-2.0
"""Cosine softmax cross-entropy that walks over the class weights block by block.

The forward pass is an online log-sum-exp: a running maximum and sum per feature. The gradient of
the features is a weighted mean of the class weights, so the same walk accumulates it. The gradient
of the class weights needs the finished log-sum-exp and takes a second walk, in backward.

Where each process holds a part of the class weights, features are gathered, each process walks over
its own part with all of them, and the processes exchange what the softmax needs, numbers that grow
with the batch and not with the classes: the scheme of InsightFace's PartialFC (An et al., arXiv
2203.15565), with nothing left out. A single process exchanges nothing.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pic_plugin.communication import Communicator

# Logits that stay in a core's second-level cache while they are exponentiated and summed: one CPU
# core is about 20 % faster with blocks of 1 MB than with blocks of 64 MB. A GPU wants large blocks.
CPU_BLOCK_ELEMENTS = 2**18
MIN_CPU_BLOCK_CLASSES = 256


def zero_norm(dtype: torch.dtype, temperature: float) -> float:
    """Norm up to which a vector of this dtype counts as zero.

    The gradient of a loss is at most 2 / (temperature * norm) long. For float16, which ends at
    65504, this rule keeps it below 1e4: at temperature 0.2 norms up to 1e-3 are zero. The other
    types have room to spare.
    """
    return 2e-4 / temperature if dtype == torch.float16 else 1e-12


def inverse_norms(rows: Tensor, zero: float) -> Tensor:
    """1 / Euclidean norm of each row, or 0 for a row that counts as zero.

    Args:
        rows (Tensor): (R, d) float32 or float64.
        zero (float): Rows with a norm up to this count as zero.

    Returns:
        Tensor: (R,), dtype of ``rows``. Finite for every finite row: squares of float32 are added
        up in float64, and else, where they overflow, the norm is taken of a scaled copy.
    """
    if rows.dtype == torch.float32 and rows.device.type in ('cpu', 'cuda'):
        wide = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
        return wide.reciprocal().masked_fill_(wide <= zero, 0).to(rows.dtype)
    norms = torch.linalg.vector_norm(rows, dim=1)
    # Powers of two are exact; these leave room for 2**127 (float32) and 2**1023 (float64) squared.
    scale = 2.0**-600 if rows.dtype == torch.float64 else 2.0**-80
    scaled = scale / torch.linalg.vector_norm(rows * scale, dim=1)
    return torch.where(norms.isinf(), scaled, norms.reciprocal()).masked_fill_(norms <= zero, 0)


def block_classes(batch_size: int, feat_dim: int, block_elements: int, device: torch.device) -> int:
    """Number of classes in a block of at most ``block_elements`` logits or weights."""
    width = max(batch_size, feat_dim)
    classes = block_elements // width
    if device.type == 'cpu':
        classes = min(classes, max(CPU_BLOCK_ELEMENTS // width, MIN_CPU_BLOCK_CLASSES))
    return max(classes, 1)


class _Block:
    """A stretch of classes, with unit-length weights, and the targets that lie in it."""

    def __init__(self, start: int, weights: Tensor, inverse: Tensor, targets: Tensor) -> None:
        self.rows = slice(start, start + len(weights))
        self.unit = weights * inverse[:, None]  # (n, d)
        # Clamp and mask: selecting the targets inside would stall a GPU for their number.
        column = targets - start
        self.inside = (column >= 0) & (column < len(weights))  # (B,)
        self.cells = (torch.arange(len(targets), device=targets.device),
                      column.clamp_(0, len(weights) - 1))


def _blocks(class_weights: Tensor, inverse: Tensor, targets: Tensor, size: int,
            zero: float | None = None) -> Iterator[_Block]:
    """Walk over (C, d) class weights; with ``zero`` given, fill ``inverse`` (C,) on the way."""
    for start in range(0, len(class_weights), size):
        weights = class_weights[start:start + size].to(inverse.dtype)
        block_inverse = inverse[start:start + size]
        if zero is not None:
            block_inverse.copy_(inverse_norms(weights, zero))
        yield _Block(start, weights, block_inverse, targets)


class _OnlineSoftmax:
    """Softmax statistics of B rows of logits that arrive block by block.

    Args:
        queries (Tensor): (B, d) unit features over temperature.
        with_mean (bool): Also average the unit class weights under the softmax.
    """

    def __init__(self, queries: Tensor, with_mean: bool) -> None:
        rows = (len(queries), 1)
        self.maximum = queries.new_full(rows, -torch.inf)  # (B, 1)
        self.total = queries.new_zeros(rows)  # (B, 1), sum of exp(logit - maximum)
        # A target outside the classes leaves this as it is: the loss is then nan, not a number.
        self.target_logit = queries.new_full((len(queries),), torch.nan)  # (B,)
        self.mean = torch.zeros_like(queries) if with_mean else None  # (B, d), divided by finish
        self._is_empty = True

    def add(self, logits: Tensor, block: _Block) -> None:
        """Take in (B, n) logits, which become exp(logit - maximum)."""
        # Read here, not computed apart: the loss compares it with sums of these very roundings.
        self.target_logit = torch.where(block.inside, logits[block.cells], self.target_logit)
        maximum = logits.amax(dim=1, keepdim=True)
        if self._is_empty:  # nothing to bring to a common maximum; of many blocks this is one
            self.maximum, self._is_empty = maximum, False
            self.total = logits.sub_(maximum).exp_().sum(dim=1, keepdim=True)
            if self.mean is not None:
                torch.mm(logits, block.unit, out=self.mean)
            return
        maximum = torch.maximum(self.maximum, maximum)
        shrink = (self.maximum - maximum).exp_()
        self.maximum = maximum
        logits.sub_(maximum).exp_()
        self.total.mul_(shrink).add_(logits.sum(dim=1, keepdim=True))
        if self.mean is not None:
            self.mean.mul_(shrink).addmm_(logits, block.unit)

    def finish(self, elsewhere: Tensor | None, processes: Communicator) -> None:
        """Take in what other processes have summed over their classes; all call it together.

        Args:
            elsewhere (Tensor, optional): (B,) bool, whether a row's target is among the classes of
                another process; None for a process alone.
            processes (Communicator): Those that share the classes out.
        """
        if elsewhere is None:
            if self.mean is not None:
                self.mean.div_(self.total)
            return
        # A copy, as the last block's maximum may be kept.
        maximum = processes.max(self.maximum.clone(), 'softmax')  # (B, 1)
        shrink = (self.maximum - maximum).exp_()
        sums = torch.cat([self.total * shrink,
                          self.target_logit[:, None].masked_fill(elsewhere[:, None], 0)], dim=1)
        total, target_logit = processes.sum(sums, 'softmax').split(1, dim=1)
        if self.mean is not None:
            self.mean.mul_(shrink / total)  # the part of this process's classes
        self.maximum, self.total, self.target_logit = maximum, total, target_logit[:, 0]


def autocast_off(tensor: Tensor) -> torch.autocast:
    # torch.amp.custom_fwd would do, but torch 2.1 has it for CUDA only.
    return torch.autocast(device_type=tensor.device.type, enabled=False)


def remove_radial(grad: Tensor, unit: Tensor) -> Tensor:
    """In place: take the component along ``unit`` out of ``grad``, both (R, d)."""
    return grad.addcmul_(unit, (grad * unit).sum(dim=1, keepdim=True), value=-1)


def own_unit_weights(class_weights: Tensor, inverse: Tensor, targets: Tensor,
                     elsewhere: Tensor | None) -> Tensor:
    """(B, d) unit class weights of the targets; 0 for those elsewhere, nan for what is no class.

    Indexing with such a target would abort a CUDA process, or need a wait for the GPU to find out.
    """
    if not len(class_weights):
        return class_weights.new_zeros((len(targets), class_weights.shape[1]), dtype=inverse.dtype)
    own = targets.clamp(0, len(class_weights) - 1)
    unit = class_weights.index_select(0, own).to(inverse.dtype)  # (B, d)
    unit.mul_(inverse.index_select(0, own)[:, None])
    unit.masked_fill_((own != targets)[:, None], torch.nan)
    return unit if elsewhere is None else unit.masked_fill_(elsewhere[:, None], 0)


def compute_dtype(features: Tensor, class_weights: Tensor) -> torch.dtype:
    """float32, or float64 if an input is."""
    dtype = torch.promote_types(features.dtype, class_weights.dtype)
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


class Shards(NamedTuple):
    """The processes that share the classes out, and the batch of each.

    Attributes:
        processes (Communicator): Defaults to this process alone, which has all classes.
        sizes (list[int]): B_0, B_1, ..., features of each process. Defaults to none, for a process
            alone.
    """

    processes: Communicator = Communicator()
    sizes: list[int] = []  # noqa: RUF012  it is never changed

    def own(self, batch_size: int) -> slice:
        """The features of this process among the ``batch_size`` of all."""
        if self.processes.size == 1:
            return slice(0, batch_size)
        start = sum(self.sizes[:self.processes.rank])
        return slice(start, start + self.sizes[self.processes.rank])


class BlockwiseCosineSoftmax(torch.autograd.Function):
    """Losses and top-1 correctness of :func:`pic_plugin.losses.cosine_softmax`."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, class_weights: Tensor, targets: Tensor,
                temperature: float, block_elements: int, shards: Shards,
                train_features: bool, train_weights: bool) -> tuple[Tensor, Tensor]:
        processes, sizes = shards
        dtype = compute_dtype(features, class_weights)
        with autocast_off(features):
            everyones = processes.gather_rows(features, sizes, 'features').to(dtype)  # (B, d)
            inverse_norm = inverse_norms(everyones, zero_norm(features.dtype, temperature))  # (B,)
            scale = (inverse_norm / temperature)[:, None]
            queries = everyones * scale  # (B, d)
            batch_size, feat_dim = queries.shape
            own = shards.own(batch_size)
            size = block_classes(batch_size, feat_dim, block_elements, features.device)
            keep = train_weights and batch_size * len(class_weights) <= block_elements

            softmax = _OnlineSoftmax(queries, with_mean=train_features)
            inverse = queries.new_empty(len(class_weights))  # (A,)
            kept: list[Tensor] = []  # logits and maxima, for class_weight_gradient
            for block in _blocks(class_weights, inverse, targets, size,
                                 zero_norm(class_weights.dtype, temperature)):
                logits = queries @ block.unit.t()  # (B, n)
                softmax.add(logits, block)
                if keep:
                    kept += [logits, softmax.maximum]
            elsewhere = targets == -1 if processes.size > 1 else None  # (B,)
            softmax.finish(elsewhere, processes)

            maximum, log_total = softmax.maximum[:, 0], softmax.total.log()
            # Both terms are >= 0, where log-sum-exp minus target logit would cancel.
            losses = ((maximum - softmax.target_logit) + log_total[:, 0])[own]  # (B_r,)
            # All logits of a zero feature are equal: its target is not on top of them.
            top1 = (softmax.target_logit >= maximum)[own] & (inverse_norm[own] > 0)
            grad_features = None
            if softmax.mean is not None:
                part = softmax.mean.sub_(
                    own_unit_weights(class_weights, inverse, targets, elsewhere))  # (B, d)
                parts = processes.exchange_rows(
                    part, sizes, [own.stop - own.start] * processes.size, 'features')
                grad_features = part if processes.size == 1 else parts.view(
                    processes.size, -1, feat_dim).sum(dim=0)  # (B_r, d)
                grad_features = remove_radial(grad_features, queries[own] * temperature)
                grad_features.mul_(scale[own])
        ctx.size, ctx.shards, ctx.feature_dtype = size, shards, features.dtype
        for_weights = [class_weights, targets, queries, inverse, softmax.maximum + log_total, *kept]
        ctx.save_for_backward(grad_features, *(for_weights if train_weights else ()))
        ctx.mark_non_differentiable(top1)
        ctx.set_materialize_grads(False)
        return losses, top1

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_losses: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad_losses is None:
            return (None,) * 8
        processes, sizes = ctx.shards
        per_loss, *for_weights = ctx.saved_tensors  # once: gradient checkpointing allows no more
        with autocast_off(grad_losses):
            grad_features = grad_weights = None
            if ctx.needs_input_grad[0]:
                grad_features = per_loss * grad_losses[:, None]
            if ctx.needs_input_grad[1]:
                everyones = processes.gather_rows(grad_losses, sizes, 'softmax') / processes.size
                grad_weights = class_weight_gradient(everyones, ctx.size, *for_weights)
                if grad_features is not None and processes.size > 1:
                    poison_unless_finite(grad_features, grad_weights)
            if grad_features is not None:
                grad_features = grad_features.to(ctx.feature_dtype)
        return (grad_features, grad_weights, *(None,) * 6)


def class_weight_gradient(grad_losses: Tensor, size: int, class_weights: Tensor, targets: Tensor,
                          queries: Tensor, inverse: Tensor, log_sum_exp: Tensor,
                          *kept: Tensor) -> Tensor:
    """The second walk: gradient of the class weights, (C, d).

    Args:
        grad_losses (Tensor): (B,).
        size (int): Classes in a block.
        class_weights (Tensor): (C, d).
        targets (Tensor): (B,) int64.
        queries (Tensor): (B, d) unit features over temperature.
        inverse (Tensor): (C,) inverse norms of the class weights.
        log_sum_exp (Tensor): (B, 1) of the logits.
        *kept (Tensor): Logits (B, n) and maximum (B, 1) of each block, if they were kept.
    """
    grad_weights = torch.empty(class_weights.shape, dtype=class_weights.dtype,
                               device=class_weights.device)
    pulls = queries * grad_losses[:, None]
    for i, block in enumerate(_blocks(class_weights, inverse, targets, size)):
        if kept:
            grad = kept[2 * i].t() @ (pulls * (kept[2 * i + 1] - log_sum_exp).exp_())
        else:
            grad = (queries @ block.unit.t()).sub_(log_sum_exp).exp_().t() @ pulls
        grad.index_add_(0, block.cells[1], pulls * block.inside[:, None], alpha=-1)
        remove_radial(grad, block.unit)
        torch.mul(grad, inverse[block.rows, None], out=grad_weights[block.rows])
    return grad_weights


def poison_unless_finite(tensor: Tensor, gradient: Tensor) -> None:
    """In place: make ``tensor`` nan if ``gradient`` is not finite, without a wait for the GPU."""
    # A sum is finite if all of its terms are, short of an overflow of the sum itself.
    total = gradient.sum(dtype=tensor.dtype)
    tensor.masked_fill_(~total.isfinite(), torch.nan)
