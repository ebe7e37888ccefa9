# SPDX-License-Identifier: Apache-2.0
"""What processes tell each other, with a count of the bytes.

Every exchange of the plugin between processes is one of these, so that :data:`SENT` is all of its
traffic (what DistributedDataParallel sends for the network's gradients comes on top). Where there
is one process nothing is sent and nothing is copied.
"""
from __future__ import annotations

from collections import Counter
from typing import Sequence

import mmengine.dist as mmdist
import torch
import torch.distributed as dist
from torch import Tensor

#: Bytes that this process has sent, by purpose: those of the tensors, for the algorithms that are
#: optimal in bandwidth (a ring for sums and gathers, direct messages for exchanges).
SENT: Counter = Counter()


def world_size() -> int:
    """Number of processes."""
    return mmdist.get_world_size()


def sum_over_ranks(tensor: Tensor, purpose: str) -> Tensor:
    """Sum of a tensor over the processes.

    Args:
        tensor (Tensor): Of the same shape in all processes. It may be changed.
        purpose (str): Under which the bytes are counted.

    Returns:
        Tensor: The sum, the same bits in all processes, on the device of ``tensor``.
    """
    return _reduce(tensor, purpose, dist.ReduceOp.SUM)


def max_over_ranks(tensor: Tensor, purpose: str) -> Tensor:
    """Elementwise maximum over the processes; see :func:`sum_over_ranks`."""
    return _reduce(tensor, purpose, dist.ReduceOp.MAX)


def gather_rows(rows: Tensor, sizes: Sequence[int], purpose: str) -> Tensor:
    """Rows of all processes, one after another.

    Args:
        rows (Tensor): (R_r, ...), those of this process.
        sizes (Sequence[int]): R_0, R_1, ..., the same in all processes.
        purpose (str): Under which the bytes are counted.

    Returns:
        Tensor: (R_0 + R_1 + ..., ...), on the device of ``rows``.
    """
    if len(sizes) == 1:
        return rows
    largest = max(sizes)
    padded = _for_copying(rows)
    if len(rows) < largest:
        padded = torch.cat([padded, padded.new_zeros(largest - len(rows), *rows.shape[1:])])
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    SENT[purpose] += (len(sizes) - 1) * _num_bytes(padded)
    gathered = torch.cat([part[:size] for part, size in zip(parts, sizes)])
    return gathered.view(rows.dtype).to(rows.device)


def exchange_rows(rows: Tensor, sent: Sequence[int], received: Sequence[int],
                  purpose: str) -> Tensor:
    """Give each process rows of its own.

    Args:
        rows (Tensor): (sum(sent), ...): first those for process 0, then those for process 1, ...
        sent (Sequence[int]): Rows for each process.
        received (Sequence[int]): Rows that come from each process.
        purpose (str): Under which the bytes are counted.

    Returns:
        Tensor: (sum(received), ...), in the order of their senders, on the device of ``rows``.
    """
    if len(sent) == 1:
        return rows
    outgoing = _for_copying(rows)
    incoming = outgoing.new_empty(sum(received), *rows.shape[1:])
    dist.all_to_all_single(incoming, outgoing, list(received), list(sent))
    own = sent[dist.get_rank()]
    SENT[purpose] += _num_bytes(outgoing) - own * _row_bytes(outgoing)
    return incoming.view(rows.dtype).to(rows.device)


def ring_bytes(num_bytes: float, num_ranks: int) -> float:
    """Bytes that each process sends to sum ``num_bytes`` over ``num_ranks`` in a ring."""
    return 2 * (num_ranks - 1) / num_ranks * num_bytes


def _reduce(tensor: Tensor, purpose: str, operation: dist.ReduceOp.RedOpType) -> Tensor:
    ranks = world_size()
    if ranks == 1:
        return tensor
    reduced = _to_comm_device(tensor).contiguous()
    dist.all_reduce(reduced, operation)
    SENT[purpose] += round(ring_bytes(_num_bytes(reduced), ranks))
    return reduced.to(tensor.device)


def _to_comm_device(tensor: Tensor) -> Tensor:
    # NCCL takes tensors on the GPU only, gloo those of the host.
    return tensor.to(mmdist.get_comm_device())


def _for_copying(tensor: Tensor) -> Tensor:
    tensor = _to_comm_device(tensor).contiguous()
    # gloo of torch 2.1 knows no bfloat16. Nothing is computed, so any type of the size will do.
    return tensor.view(torch.float16) if tensor.dtype == torch.bfloat16 else tensor


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _row_bytes(tensor: Tensor) -> int:
    elements = 1
    for size in tensor.shape[1:]:
        elements *= size
    return elements * tensor.element_size()
