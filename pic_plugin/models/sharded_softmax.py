# SPDX-License-Identifier: Apache-2.0
"""Cosine softmax over class weights of which each process holds a part.

The scheme of InsightFace's PartialFC (An et al., arXiv 2203.15565): features are gathered, each
process walks over its own class weights with all of them, and the processes exchange what the
softmax needs, numbers that grow with the batch and not with the classes. Other than there, nothing
is left out: losses and gradients are those of
:func:`pic_plugin.models.cosine_softmax_loss.cosine_softmax` with all features and class weights.
"""
from __future__ import annotations

from typing import Any, Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pic_plugin.collectives import exchange_rows, gather_rows, max_over_ranks, sum_over_ranks

from .blockwise_softmax import (
    autocast_off,
    block_classes,
    class_weight_gradient,
    compute_dtype,
    dead_norm,
    inverse_norms,
    own_unit_weights,
    remove_radial,
    walk,
)

BLOCK_ELEMENTS = 2**24  # as in cosine_softmax


def sharded_cosine_softmax(features: Tensor,
                           class_weights: Tensor,
                           rows: Tensor,
                           sizes: Sequence[int],
                           rank: int,
                           temperature: float = 0.2,
                           block_elements: int = BLOCK_ELEMENTS) -> tuple[Tensor, Tensor]:
    """Losses of the own batch under a softmax over the class weights of all processes.

    All processes call it together. Precision, dead vectors, memory and what is not computed for an
    input without gradient are as in ``cosine_softmax``.

    Gradients follow DistributedDataParallel: each process calls backward on a loss of its own
    batch, and what is minimised is the mean of these losses over the processes. The class weights
    get the gradient of that mean, so that a shard is trained as if its rows were part of a
    replicated parameter. Features get the gradient of their own loss alone, undivided, since
    DistributedDataParallel averages what becomes of it in the network.

    If the gradient of a shard is not finite, the gradient of that process's features becomes nan: a
    gradient scaler then sees an overflow in every process, and all skip the step, or none.

    Args:
        features (Tensor): (B_r, d) floating point, those of this process (of rank r), at least one.
        class_weights (Tensor): (A_r, d) floating point, this process's part of the class weights;
            A_r may be 0.
        rows (Tensor): (B_0 + B_1 + ...,) int64: for each feature of all processes, the row of
            ``class_weights`` that is its target, or -1 where another process holds the target.
            Exactly one process must.
        sizes (Sequence[int]): B_0, B_1, ..., one for each process.
        rank (int): r.
        temperature (float): t > 0. Defaults to 0.2.
        block_elements (int): See ``cosine_softmax``. Defaults to 2**24.

    Returns:
        tuple[Tensor, Tensor]: Losses, (B_r,) in float32 (float64 if an input is), and hits, (B_r,)
        bool.

    Raises:
        ValueError: If shapes do not fit together or the own batch is empty.
    """
    seen = (f'got features {tuple(features.shape)}, class_weights {tuple(class_weights.shape)}, '
            f'rows {tuple(rows.shape)}, sizes {list(sizes)} of which rank {rank} has its own.')
    if features.dim() != 2 or class_weights.dim() != 2 or rows.dim() != 1 or (
            features.shape[1] != class_weights.shape[1]):
        raise ValueError('expected features (B, d), class_weights (A, d), rows (sum of B,); '
                         f'{seen}')
    if len(features) == 0 or len(features) != sizes[rank] or len(rows) != sum(sizes):
        raise ValueError('expected one feature for each sample of this process, at least one, and '
                         f'one row for each sample of all; {seen}')
    grad = torch.is_grad_enabled()
    return _ShardedCosineSoftmax.apply(features, class_weights, rows, list(sizes), rank,
                                       temperature, block_elements,
                                       grad and features.requires_grad,
                                       grad and class_weights.requires_grad)


class _ShardedCosineSoftmax(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, features: Tensor, class_weights: Tensor, rows: Tensor, sizes: list[int],
                rank: int, temperature: float, block_elements: int, train_features: bool,
                train_weights: bool) -> tuple[Tensor, Tensor]:
        own = slice(sum(sizes[:rank]), sum(sizes[:rank + 1]))
        dtype = compute_dtype(features, class_weights)
        with autocast_off(features):
            gathered = gather_rows(features, sizes, 'features').to(dtype)  # (B, d)
            inverse_rows = inverse_norms(gathered, dead_norm(features.dtype, temperature))
            scale = (inverse_rows / temperature)[:, None]
            queries = gathered * scale
            batch_size, feat_dim = queries.shape
            size = block_classes(batch_size, feat_dim, block_elements, features.device)
            keep = train_weights and batch_size * len(class_weights) <= block_elements
            softmax, inverse, kept = walk(queries, class_weights, rows, size,
                                          dead_norm(class_weights.dtype, temperature),
                                          with_mean=train_features, keep=keep)

            # A copy, as the last block's maximum may be kept.
            maximum = max_over_ranks(softmax.maximum.clone(), 'soft-max')  # (B, 1)
            shrink = (softmax.maximum - maximum).exp_()
            here = (rows >= 0)[:, None]
            sums = torch.cat([softmax.total * shrink,
                              softmax.target_logit[:, None].masked_fill(~here, 0)], dim=1)
            total, target_logit = sum_over_ranks(sums, 'soft-max').split(1, dim=1)
            log_total = total.log()
            losses = ((maximum - target_logit) + log_total)[own, 0]
            hits = (target_logit >= maximum)[own, 0] & (inverse_rows[own] > 0)

            grad_features = None
            if softmax.weighted is not None:
                part = softmax.weighted.mul_(shrink / total)
                if len(class_weights):
                    part.sub_(own_unit_weights(class_weights, inverse, rows, absent=0))
                parts = exchange_rows(part, sizes, [sizes[rank]] * len(sizes), 'features')
                grad_features = parts.view(len(sizes), -1, feat_dim).sum(dim=0)
                grad_features = remove_radial(grad_features, queries[own] * temperature)
                grad_features.mul_(scale[own])
        ctx.size, ctx.sizes, ctx.feature_dtype = size, sizes, features.dtype
        for_weights = [class_weights, rows, queries, inverse, maximum + log_total, *kept]
        ctx.save_for_backward(grad_features, *(for_weights if train_weights else ()))
        ctx.mark_non_differentiable(hits)
        ctx.set_materialize_grads(False)
        return losses, hits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_losses: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad_losses is None:
            return (None,) * 9
        with autocast_off(grad_losses):
            grad_features = grad_weights = None
            if ctx.needs_input_grad[0]:
                grad_features = ctx.saved_tensors[0] * grad_losses[:, None]
            if ctx.needs_input_grad[1]:
                everyones = gather_rows(grad_losses, ctx.sizes, 'soft-max') / len(ctx.sizes)
                grad_weights = class_weight_gradient(everyones, ctx.size, *ctx.saved_tensors[1:])
                if grad_features is not None:
                    poison_unless_finite(grad_features, grad_weights)
            if grad_features is not None:
                grad_features = grad_features.to(ctx.feature_dtype)
        return (grad_features, grad_weights, *(None,) * 7)


def poison_unless_finite(tensor: Tensor, gradient: Tensor) -> None:
    """In place: make ``tensor`` nan if ``gradient`` is not finite, without a wait for the GPU."""
    # A sum is finite if all of its terms are, short of an overflow of the sum itself.
    total = gradient.sum(dtype=tensor.dtype)
    tensor.masked_fill_(~total.isfinite(), torch.nan)
