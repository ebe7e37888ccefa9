# SPDX-License-Identifier: Apache-2.0
"""Cosine softmax cross-entropy that walks over the class weights block by block.

The forward pass is an online log-sum-exp: a running maximum and sum per feature. The gradient of
the features is a weighted mean of the class weights, so the same walk accumulates it. The gradient
of the class weights needs the finished log-sum-exp and takes a second walk, in backward.
"""
from __future__ import annotations

from typing import Any, Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits that stay in a core's second-level cache while they are exponentiated and summed: one CPU
# core is about 20 % faster with blocks of 1 MB than with blocks of 64 MB. A GPU wants large blocks.
CPU_BLOCK_ELEMENTS = 2**18
MIN_CPU_BLOCK_CLASSES = 256


def dead_norm(dtype: torch.dtype, temperature: float) -> float:
    """Norm up to which a vector of this dtype counts as zero.

    The gradient of a loss is at most 2 / (temperature * norm) long. For float16, which ends at
    65504, this rule keeps it below 1e4: at temperature 0.2 norms up to 1e-3 are dead. The other
    types have room to spare.
    """
    return 2e-4 / temperature if dtype == torch.float16 else 1e-12


def inverse_norms(rows: Tensor, dead: float) -> Tensor:
    """1 / Euclidean norm of each row, or 0 for a dead row.

    Args:
        rows (Tensor): (R, d) float32 or float64.
        dead (float): Rows with a norm up to this are dead.

    Returns:
        Tensor: (R,), dtype of ``rows``. Finite for every finite row: where the squares overflow
        the norm is taken of a scaled copy.
    """
    norms = torch.linalg.vector_norm(rows, dim=1)
    # Powers of two are exact; these leave room for 2**127 (float32) and 2**1023 (float64) squared.
    scale = 2.0**-600 if rows.dtype == torch.float64 else 2.0**-80
    scaled = scale / torch.linalg.vector_norm(rows * scale, dim=1)
    return torch.where(norms.isinf(), scaled, norms.reciprocal()).masked_fill_(norms <= dead, 0)


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
            dead: float | None = None) -> Iterator[_Block]:
    """Walk over (C, d) class weights; with ``dead`` given, fill ``inverse`` (C,) on the way."""
    for start in range(0, len(class_weights), size):
        weights = class_weights[start:start + size].to(inverse.dtype)
        block_inverse = inverse[start:start + size]
        if dead is not None:
            block_inverse.copy_(inverse_norms(weights, dead))
        yield _Block(start, weights, block_inverse, targets)


class _OnlineSoftmax:
    """Softmax statistics of B rows of logits that arrive block by block.

    Args:
        queries (Tensor): (B, d) unit features over temperature.
        with_mean (bool): Also average the unit class weights under the softmax.
    """

    def __init__(self, queries: Tensor, with_mean: bool) -> None:
        rows = (len(queries), 1)
        self.maximum = queries.new_full(rows, -torch.inf)
        self.total = queries.new_zeros(rows)  # sum of exp(logit - maximum)
        # A target outside the classes leaves this as it is: the loss is then nan, not a number.
        self.target_logit = queries.new_full((len(queries),), torch.nan)
        self.weighted = torch.zeros_like(queries) if with_mean else None

    def add(self, logits: Tensor, block: _Block) -> None:
        """Take in (B, n) logits, which become exp(logit - maximum)."""
        # Read here, not computed apart: the loss compares it with sums of these very roundings.
        self.target_logit = torch.where(block.inside, logits[block.cells], self.target_logit)
        maximum = torch.maximum(self.maximum, logits.amax(dim=1, keepdim=True))
        shrink = (self.maximum - maximum).exp_()
        self.maximum = maximum
        logits.sub_(maximum).exp_()
        self.total.mul_(shrink).add_(logits.sum(dim=1, keepdim=True))
        if self.weighted is not None:
            self.weighted.mul_(shrink).addmm_(logits, block.unit)


def autocast_off(tensor: Tensor) -> torch.autocast:
    # torch.amp.custom_fwd would do, but torch 2.1 has it for CUDA only.
    return torch.autocast(device_type=tensor.device.type, enabled=False)


def remove_radial(grad: Tensor, unit: Tensor) -> Tensor:
    """In place: take the component along ``unit`` out of ``grad``, both (R, d)."""
    return grad.addcmul_(unit, (grad * unit).sum(dim=1, keepdim=True), value=-1)


def own_unit_weights(class_weights: Tensor, inverse: Tensor, targets: Tensor,
                     absent: float = torch.nan) -> Tensor:
    """(B, d) unit class weights of the targets; ``absent`` for a target that is no class.

    Indexing with such a target would abort a CUDA process, or need a wait for the GPU to find out.
    """
    own = targets.clamp(0, len(class_weights) - 1)
    unit = class_weights.index_select(0, own).to(inverse.dtype)
    unit.mul_(inverse.index_select(0, own)[:, None])
    return unit.masked_fill_((own != targets)[:, None], absent)


def compute_dtype(features: Tensor, class_weights: Tensor) -> torch.dtype:
    """float32, or float64 if an input is."""
    dtype = torch.promote_types(features.dtype, class_weights.dtype)
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def walk(queries: Tensor, class_weights: Tensor, targets: Tensor, size: int, dead: float,
         with_mean: bool, keep: bool) -> tuple[_OnlineSoftmax, Tensor, list[Tensor]]:
    """The first walk over the class weights, ``size`` of them at a time.

    Args:
        queries (Tensor): (B, d) unit features over temperature.
        class_weights (Tensor): (C, d).
        targets (Tensor): (B,) int64.
        size (int): Classes in a block.
        dead (float): Norm up to which a class weight counts as zero.
        with_mean (bool): Whether to average the unit class weights under the soft-max.
        keep (bool): Whether to keep the logits for :func:`class_weight_gradient`.

    Returns:
        tuple: Statistics of the soft-max, (C,) inverse norms of the class weights, what is kept.
    """
    softmax = _OnlineSoftmax(queries, with_mean)
    inverse = queries.new_empty(len(class_weights))
    kept: list[Tensor] = []
    for block in _blocks(class_weights, inverse, targets, size, dead):
        logits = queries @ block.unit.t()
        softmax.add(logits, block)
        if keep:
            kept += [logits, softmax.maximum]
    return softmax, inverse, kept


class BlockwiseCosineSoftmax(torch.autograd.Function):
    """Losses and hits of :func:`pic_plugin.models.cosine_softmax_loss.cosine_softmax`."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, class_weights: Tensor, targets: Tensor,
                temperature: float, block_elements: int,
                train_features: bool, train_weights: bool) -> tuple[Tensor, Tensor]:
        dtype = compute_dtype(features, class_weights)
        with autocast_off(features):
            rows = features.to(dtype)
            inverse_rows = inverse_norms(rows, dead_norm(features.dtype, temperature))
            scale = (inverse_rows / temperature)[:, None]
            queries = rows * scale
            batch_size, feat_dim = features.shape
            size = block_classes(batch_size, feat_dim, block_elements, features.device)
            keep = train_weights and batch_size * len(class_weights) <= block_elements
            dead = dead_norm(class_weights.dtype, temperature)
            softmax, inverse, kept = walk(queries, class_weights, targets, size, dead,
                                          with_mean=train_features, keep=keep)
            maximum, log_total = softmax.maximum[:, 0], softmax.total.log()
            # Both terms are >= 0, where log-sum-exp minus target logit would cancel.
            losses = (maximum - softmax.target_logit) + log_total[:, 0]
            # All logits of a zero feature are equal: that is no hit.
            hits = (softmax.target_logit >= maximum) & (inverse_rows > 0)
            grad_features = None
            if softmax.weighted is not None:
                own = own_unit_weights(class_weights, inverse, targets)
                grad_features = softmax.weighted.div_(softmax.total).sub_(own)
                grad_features = remove_radial(grad_features, queries * temperature).mul_(scale)
        ctx.size, ctx.feature_dtype = size, features.dtype
        for_weights = [class_weights, targets, queries, inverse, softmax.maximum + log_total, *kept]
        ctx.save_for_backward(grad_features, *(for_weights if train_weights else ()))
        ctx.mark_non_differentiable(hits)
        ctx.set_materialize_grads(False)
        return losses, hits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_losses: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad_losses is None:
            return (None,) * 7
        with autocast_off(grad_losses):
            grad_features = grad_weights = None
            if ctx.needs_input_grad[0]:
                grad_features = ctx.saved_tensors[0] * grad_losses[:, None]
                grad_features = grad_features.to(ctx.feature_dtype)
            if ctx.needs_input_grad[1]:
                grad_weights = class_weight_gradient(grad_losses, ctx.size, *ctx.saved_tensors[1:])
        return (grad_features, grad_weights, *(None,) * 5)


def class_weight_gradient(grad_losses: Tensor, size: int, class_weights: Tensor, targets: Tensor,
                          queries: Tensor, inverse: Tensor, log_sum_exp: Tensor,
                          *kept: Tensor) -> Tensor:
    """The second walk: gradient of the class weights, (C, d).

    Args:
        grad_losses (Tensor): (B,).
        size (int): Classes in a block, as in :func:`walk`.
        class_weights (Tensor): (C, d).
        targets (Tensor): (B,) int64.
        queries (Tensor): (B, d) unit features over temperature.
        inverse (Tensor): (C,) of :func:`walk`.
        log_sum_exp (Tensor): (B, 1) of the logits.
        *kept (Tensor): What :func:`walk` kept.
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
