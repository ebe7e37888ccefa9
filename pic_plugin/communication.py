# SPDX-License-Identifier: Apache-2.0
"""The exchange between processes, with a count of its bytes; a single process exchanges nothing.

Every tensor that a training step of the class weights or the loss sends goes through a
:class:`Communicator`, so that :data:`SENT` is all of that traffic. On top of it come what
DistributedDataParallel sends for the network's gradients, the objects that saving and resuming
agree on, and evaluation. Needs torch alone.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

#: Bytes that this process has sent, by purpose: those of the tensors, for the algorithms that are
#: optimal in bandwidth (a ring for sums and gathers, direct messages for exchanges).
SENT: Counter = Counter()


class Communicator:
    """A single process, for which every exchange is the identity and nothing is copied.

    Attributes:
        rank (int): This process.
        size (int): Number of processes.
    """

    rank = 0
    size = 1

    def sum(self, tensor: Tensor, purpose: str) -> Tensor:
        """Sum of a tensor over the processes.

        Args:
            tensor (Tensor): Of the same shape in all processes. It may be changed.
            purpose (str): Under which the bytes are counted.

        Returns:
            Tensor: The sum, the same bits in all processes, on the device of ``tensor``.
        """
        return tensor

    def max(self, tensor: Tensor, purpose: str) -> Tensor:
        """Elementwise maximum over the processes; see :meth:`sum`."""
        return tensor

    def gather_rows(self, rows: Tensor, sizes: Sequence[int], purpose: str) -> Tensor:
        """Rows of all processes, one after another.

        Args:
            rows (Tensor): (R_r, ...), those of this process.
            sizes (Sequence[int]): R_0, R_1, ..., the same in all processes.
            purpose (str): Under which the bytes are counted.

        Returns:
            Tensor: (R_0 + R_1 + ..., ...), on the device of ``rows``.
        """
        return rows

    def exchange_rows(self, rows: Tensor, sent: Sequence[int], received: Sequence[int],
                      purpose: str) -> Tensor:
        """Give each process rows of its own.

        Args:
            rows (Tensor): (sum(sent), ...): first those for process 0, then those for process 1...
            sent (Sequence[int]): Rows for each process.
            received (Sequence[int]): Rows that come from each process.
            purpose (str): Under which the bytes are counted.

        Returns:
            Tensor: (sum(received), ...), in the order of their senders, on the device of ``rows``.
        """
        return rows


class ProcessGroup(Communicator):
    """All processes of torch's default group, joined by gloo or NCCL."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def sum(self, tensor: Tensor, purpose: str) -> Tensor:
        """See :class:`Communicator`."""
        return self._reduce(tensor, purpose, dist.ReduceOp.SUM)

    def max(self, tensor: Tensor, purpose: str) -> Tensor:
        """See :class:`Communicator`."""
        return self._reduce(tensor, purpose, dist.ReduceOp.MAX)

    def gather_rows(self, rows: Tensor, sizes: Sequence[int], purpose: str) -> Tensor:
        """See :class:`Communicator`."""
        largest = max(sizes)
        padded = _for_copying(rows)
        if len(rows) < largest:
            padded = torch.cat([padded, padded.new_zeros(largest - len(rows), *rows.shape[1:])])
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        SENT[purpose] += (self.size - 1) * padded.nbytes
        gathered = torch.cat([part[:size] for part, size in zip(parts, sizes)])
        return gathered.view(rows.dtype).to(rows.device)

    def exchange_rows(self, rows: Tensor, sent: Sequence[int], received: Sequence[int],
                      purpose: str) -> Tensor:
        """See :class:`Communicator`."""
        outgoing = _for_copying(rows)
        incoming = outgoing.new_empty(sum(received), *rows.shape[1:])
        dist.all_to_all_single(incoming, outgoing, list(received), list(sent))
        row_bytes = outgoing.nbytes // max(len(outgoing), 1)
        SENT[purpose] += (len(outgoing) - sent[self.rank]) * row_bytes
        return incoming.view(rows.dtype).to(rows.device)

    def _reduce(self, tensor: Tensor, purpose: str,
                operation: dist.ReduceOp.RedOpType) -> Tensor:
        reduced = _to_exchange_device(tensor).contiguous()
        dist.all_reduce(reduced, operation)
        SENT[purpose] += round(ring_bytes(reduced.nbytes, self.size))
        return reduced.to(tensor.device)


def communicator() -> Communicator:
    """All processes of this training, or this one alone where no group has been formed."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return ProcessGroup()
    return Communicator()


def ring_bytes(num_bytes: float, num_ranks: int) -> float:
    """Bytes that each process sends to sum ``num_bytes`` over ``num_ranks`` in a ring."""
    return 2 * (num_ranks - 1) / num_ranks * num_bytes


def _to_exchange_device(tensor: Tensor) -> Tensor:
    # NCCL takes tensors on the GPU only, gloo those of the host.
    if dist.get_backend() == 'nccl':
        return tensor.to(torch.device('cuda', torch.cuda.current_device()))
    return tensor.cpu()


def _for_copying(tensor: Tensor) -> Tensor:
    tensor = _to_exchange_device(tensor).contiguous()
    # gloo of torch 2.1 knows no bfloat16. Nothing is computed, so any type of the size will do.
    return tensor.view(torch.float16) if tensor.dtype == torch.bfloat16 else tensor
