# SPDX-License-Identifier: Apache-2.0
"""Rows of a head between checkpoints; test_sharded_training.py moves them between processes."""
import numpy as np
import pytest
import torch

from pic_plugin.bank import SampledClassWeights, Slots
from pic_plugin.communication import Communicator
from pic_plugin.engine.checkpoint.bank_state import BankState
from pic_plugin.engine.checkpoint.head_rows import HeadRows


class OneOfTwo(Communicator):
    """A process of two, of which nothing is exchanged."""

    def __init__(self, rank):
        self.rank, self.size = rank, 2


@pytest.mark.parametrize('rank', [0, 1])
def test_shards_of_a_head_that_has_more_rows_than_images(rank):
    """DistributedDataParallel fixes num_negatives rows before the number of images is known."""
    weight = torch.nn.Parameter(torch.zeros(5, 4))
    model = torch.nn.ParameterDict(dict(weight=weight))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    sampled = SampledClassWeights(weight, optimizer, 10, slots=Slots(10, OneOfTwo(rank), True))
    saved, momentum = torch.randn(64, 4), torch.randn(64, 4)
    checkpoint = dict(state_dict=dict(weight=saved), optimizer=dict(
        state={0: dict(momentum_buffer=momentum)}, param_groups=[dict(params=[0])]))
    HeadRows(model, sampled).put_back(checkpoint, BankState.of(sampled.bank), [], None)
    own = np.arange(rank, 10, 2)
    assert torch.equal(checkpoint['state_dict']['weight'], saved[own])
    assert torch.equal(checkpoint['optimizer']['state'][0]['momentum_buffer'], momentum[own])
