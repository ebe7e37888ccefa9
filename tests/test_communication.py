# SPDX-License-Identifier: Apache-2.0
"""The exchange between processes: values, order and bytes."""
import numpy as np
import pytest
import torch

from pic_plugin import communication
from toys import sharded
from toys.processes import run_ranks


@pytest.mark.parametrize('world_size', [2, 4])
def test_uneven_parts(world_size):
    results = run_ranks(sharded.work, world_size, ('collective_cases', ))
    everyone = range(world_size)
    for rank, result in enumerate(results):
        assert isinstance(result, list), result
        gathered, summed, largest, exchanged, sent, (batch, pending, factor) = result[0]
        assert gathered[:, 0].tolist() == [10 * r + i for r in everyone for i in range(r + 1)]
        assert summed.tolist() == [sum(everyone)] * 5
        assert largest.tolist() == [world_size - 1, 0]
        assert exchanged.tolist() == [10 * r + rank for r in everyone for _ in range(rank)]
        others = world_size - 1
        assert sent == dict(
            gather=others * world_size * 8,  # padded to the largest part
            sum=round(2 * others / world_size * 20),
            max=round(2 * others / world_size * 8),
            exchange=(sum(everyone) - rank) * 4)
        ids, sizes, own_rank = batch
        assert ids.tolist() == gathered[:, 0].tolist() and own_rank == rank
        assert sizes == [r + 1 for r in everyone]
        assert pending  # of the last process alone
        assert factor == (rank + 1) * world_size / sum(sizes)


def test_one_process_sends_nothing():
    communication.SENT.clear()
    tensor, alone = torch.arange(3.0), communication.communicator()
    for result in (alone.sum(tensor, 'x'), alone.max(tensor, 'x'),
                   alone.gather_rows(tensor, [3], 'x'),
                   alone.exchange_rows(tensor, [3], [3], 'x')):
        np.testing.assert_array_equal(result, tensor)
    assert not communication.SENT
