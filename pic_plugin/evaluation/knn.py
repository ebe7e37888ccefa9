# SPDX-License-Identifier: Apache-2.0
"""Weighted k-nearest-neighbour classification of features, in a bounded amount of memory.

The classifier of Wu et al., *Unsupervised Feature Learning via Non-Parametric Instance
Discrimination*, CVPR 2018, section 3.4: the k reference features most similar to a query vote for
their labels, each with weight exp(cosine similarity / temperature).

A neighbour is one int64 *key*: the upper half orders the float32 similarity, the lower half
prefers the smaller position among equal similarities. A larger key is a nearer neighbour and no two
keys are equal, so the nearest k do not depend on how references are cut into blocks or spread over
processes, other than by the rounding of the similarities themselves.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Positions take the lower 32 bits of a key.
MAX_REFERENCES = 2**32 - 1
_LOW_BITS = 2**32 - 1
_NO_NEIGHBOUR = -2**63

# Enough rows to keep a matrix product busy; more would only shrink the blocks of references.
_MAX_QUERY_BLOCK = 1024

# Working memory, bytes. Of a pair: similarity (4), key (8) and a temporary (4), times 2.5: glibc's
# allocator was seen to hold on to 1.6 times what is in use. Of a neighbour: old and new keys
# and their union for the merge, then similarity and label in 8 bytes each.
_BYTES_PER_PAIR = 40
_BYTES_PER_NEIGHBOUR = 64


def normalise(features: Tensor) -> Tensor:
    """Scale features to unit length, for :func:`knn_predict`.

    Args:
        features (Tensor): (B, d), floating point.

    Returns:
        Tensor: (B, d) float16 of unit L2 norm; a zero vector stays zero, with similarity 0 to all.
        float16 halves the memory of float32 (1.28 M x 2048 features: 5.24e9 instead of 10.5e9
        bytes). Components of unit vectors are below 1, so nothing overflows, and rounding each by
        at most 2^-11 of itself moves a similarity by about 2^-11 / sqrt(d): far less than the
        temperature resolves.
    """
    features = features.float()
    # The squares of very large or small components would leave float32's range.
    largest = features.abs().amax(dim=1, keepdim=True)
    return F.normalize(features / largest.clamp_min(torch.finfo(torch.float32).tiny), dim=1).half()


def knn_predict(queries: Tensor,
                references: Tensor | Sequence[Tensor],
                labels: Tensor,
                topk: Sequence[int] = (20, 200),
                temperature: float = 0.07,
                max_bytes: int = 512 * 2**20,
                positions: Tensor | None = None,
                device: torch.device | str | None = None,
                merge: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Label that the k nearest references of each query vote for.

    Equal similarities: the reference at the smaller position is the nearer one. Equal votes: the
    smaller label wins.

    Args:
        queries (Tensor): (Q, d) floating point, of unit length: see :func:`normalise`.
        references (Tensor | Sequence[Tensor]): (R, d), likewise, or the parts that make it up: they
            are never joined, which would take as much memory again.
        labels (Tensor): (N,) int64, the label of the reference at each position.
        topk (Sequence[int]): Numbers of neighbours that vote, each from 1 to N.
        temperature (float): Temperature of the votes. Defaults to 0.07.
        max_bytes (int): Working memory, bytes, besides the arguments and the result. One query and
            one reference at a time are the least that is used. Defaults to 512 MB.
        positions (Tensor, optional): (R,) int64, each reference's position in ``labels``, distinct,
            or -1 for a row to ignore. Defaults to None: 0 to R - 1, with N = R.
        device (torch.device | str, optional): Where similarities are computed, in float32.
            Defaults to None: where ``queries`` are.
        merge (Callable, optional): Takes keys (B, K) int64 on ``device`` of the nearest among
            ``references`` for one block of queries, and returns those of the nearest among all
            references (see :func:`merge_keys`), where these are spread over several processes. It
            is called equally often, with equal shapes, in each process that has the same queries
            and ``max_bytes``. Defaults to None: ``references`` are all there are.

    Returns:
        Tensor: (Q, len(topk)) int64 labels, on the CPU.

    Raises:
        ValueError: If shapes do not fit, a k is outside of 1 to N, or the temperature or the
            memory is not positive, or ``positions`` leave a query fewer than max(topk) references.
    """
    parts = [references] if isinstance(references, Tensor) else list(references)
    if positions is None:
        positions = torch.arange(len(labels))
    _check(queries, parts, positions, labels, topk, temperature, max_bytes)
    device = queries.device if device is None else torch.device(device)
    classes, label_idx = labels.cpu().unique(return_inverse=True)
    query_block, reference_block = block_sizes(
        queries.shape[1], max(topk), len(classes), max_bytes)
    predicted = []
    for block in queries.split(query_block):
        keys = _nearest_keys(
            block.to(device, torch.float32), _blocks(parts, positions, reference_block), max(topk))
        similarity, position = _decode(keys if merge is None else merge(keys))
        if (position >= len(labels)).any():
            raise ValueError(f'fewer than {max(topk)} references were compared, or a position is '
                             f'beyond the {len(labels)} labels: check positions and merge.')
        predicted.append(
            classes[_vote(similarity, label_idx[position], topk, temperature, len(classes))])
    if not predicted:
        return torch.empty(0, len(topk), dtype=torch.int64)
    return torch.cat(predicted)


def _check(queries: Tensor, parts: Sequence[Tensor], positions: Tensor, labels: Tensor,
           topk: Sequence[int], temperature: float, max_bytes: int) -> None:
    if queries.dim() != 2:
        raise ValueError(f'queries must be a matrix, not of shape {tuple(queries.shape)}.')
    for part in parts:
        if part.dim() != 2 or part.shape[1] != queries.shape[1]:
            raise ValueError('references must be matrices with as many columns as the queries, '
                             f'{queries.shape[1]}, not of shape {tuple(part.shape)}.')
    num_references = sum(len(part) for part in parts)
    if positions.shape != (num_references, ):
        raise ValueError(f'there are {num_references} references, but positions (by default one '
                         f'for each label) of shape {tuple(positions.shape)}.')
    if labels.dim() != 1 or not 0 < len(labels) <= MAX_REFERENCES:
        raise ValueError(f'labels must be a vector of 1 to {MAX_REFERENCES} labels, not of shape '
                         f'{tuple(labels.shape)}.')
    if not topk or min(topk) < 1 or max(topk) > len(labels):
        raise ValueError(f'topk is {tuple(topk)}: give numbers from 1 to {len(labels)}, the number '
                         'of references.')
    if not temperature > 0:
        raise ValueError(f'temperature must be positive, not {temperature}.')
    if max_bytes < 1:
        raise ValueError(f'max_bytes must be positive, not {max_bytes}.')


def block_sizes(dim: int, k: int, num_classes: int, max_bytes: int) -> tuple[int, int]:
    """Queries and references to compare at a time.

    Args:
        dim (int): Components of a feature.
        k (int): Neighbours of each query.
        num_classes (int): Distinct labels.
        max_bytes (int): Working memory, bytes.

    Returns:
        tuple[int, int]: Queries in a block, 1 to 1024, and references in a block, at least 1.
    """
    # float32 features, and for a reference also two copies in its stored type, its position and
    # topk's buffer. Votes are float64.
    per_query = 4 * dim + _BYTES_PER_NEIGHBOUR * k + 8 * num_classes
    per_reference = 8 * dim + 32
    queries = max(1, min(_MAX_QUERY_BLOCK, max_bytes // (4 * per_query)))
    rest = max_bytes - queries * per_query
    return queries, max(1, rest // (per_reference + queries * _BYTES_PER_PAIR))


def merge_keys(parts: Sequence[Tensor]) -> Tensor:
    """Keys of the nearest among several sets of neighbours.

    Args:
        parts (Sequence[Tensor]): Each (B, K) int64.

    Returns:
        Tensor: (B, K) int64, descending: the K largest of all parts.
    """
    merged = parts[0]
    for part in parts[1:]:
        merged = torch.cat((merged, part), dim=1).topk(merged.shape[1], dim=1).values
    return merged


def _blocks(parts: Sequence[Tensor], positions: Tensor,
            size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """At most ``size`` references at a time, (b, d), and their positions, (b,)."""
    start = 0
    for block in (block for part in parts for block in part.split(size)):
        where = positions[start:start + len(block)]
        wanted = (where >= 0).nonzero()[:, 0]
        yield block[wanted.to(block.device)], where[wanted]
        start += len(block)


def _nearest_keys(queries: Tensor, blocks: Iterator[tuple[Tensor, Tensor]], k: int) -> Tensor:
    """(B, d) float32 -> (B, k) int64, descending; _NO_NEIGHBOUR where there are fewer than k."""
    nearest = queries.new_full((len(queries), k), _NO_NEIGHBOUR, dtype=torch.int64)
    for references, positions in blocks:
        references = references.to(queries.device).float()
        keys = _encode(queries @ references.T, positions.to(queries.device))
        if keys.shape[1] > k:
            keys = keys.topk(k, dim=1, sorted=False).values
        nearest = torch.cat((nearest, keys), dim=1).topk(k, dim=1).values
    return nearest


def _encode(similarity: Tensor, positions: Tensor) -> Tensor:
    """(B, R) float32 and (R,) int64 positions -> (B, R) int64 keys; uses up ``similarity``."""
    # A negative float's bits grow with its magnitude, so all but the sign are flipped to make
    # integers order as the floats do; adding zero turns -0.0, which equals 0.0, into it.
    bits = similarity.add_(0.0).view(torch.int32)
    flipped = bits >> 31
    flipped &= 0x7fffffff
    bits ^= flipped
    del flipped
    keys = bits.long()
    keys <<= 32
    keys |= _LOW_BITS - positions
    return keys


def _decode(keys: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K) keys -> their similarities, float32, and positions, int64, on the CPU."""
    keys = keys.cpu()
    bits = (keys >> 32).int()
    bits ^= (bits >> 31) & 0x7fffffff
    return bits.view(torch.float32), _LOW_BITS - (keys & _LOW_BITS)


def _vote(similarity: Tensor, label_idx: Tensor, topk: Sequence[int], temperature: float,
          num_classes: int) -> Tensor:
    """(B, K) neighbours, nearest first -> (B, len(topk)) index of the class with most votes."""
    similarity = similarity.double()
    # Relative to the nearest neighbour: the winner is the same and small temperatures are safe.
    weights = ((similarity - similarity[:, :1]) / temperature).exp()
    scores = similarity.new_zeros(len(similarity), num_classes)
    winners, counted = {}, 0
    for k in sorted(set(topk)):
        scores.scatter_add_(1, label_idx[:, counted:k], weights[:, counted:k])
        winners[k] = scores.argmax(dim=1)
        counted = k
    return torch.stack([winners[k] for k in topk], dim=1)
