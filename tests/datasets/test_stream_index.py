# SPDX-License-Identifier: Apache-2.0
"""A sample's random numbers come with its index, through workers and nested data sets."""
import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset
from torch.utils.data import DataLoader, Dataset

from pic_plugin.datasets.stream_index import StreamIndex, seed_by_index


class Drawing(BaseDataset):
    """Gives, for image i, i and a number from each of the three generators."""

    def load_data_list(self):
        return [dict(key=i) for i in range(10)]

    def prepare_data(self, index):
        assert type(index) is int
        return [index, random.random(), np.random.rand(), float(torch.rand(1))]


class PlainDrawing(Dataset):
    """The same, as torch has data sets."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return [index, random.random(), np.random.rand(), float(torch.rand(1))]


def load(dataset, indices, num_workers=0, batch_size=3):
    assert seed_by_index(dataset)
    loader = DataLoader(dataset, batch_size, sampler=indices, num_workers=num_workers,
                        collate_fn=list)
    return [tuple(sample) for batch in loader for sample in batch]


INDICES = [StreamIndex(i % 10, 7**i % 2**64) for i in range(20)]


@pytest.mark.parametrize('make', [
    lambda: Drawing(), lambda: PlainDrawing(),
    lambda: ConcatDataset([Drawing(), Drawing(metainfo=None)])])
def test_draws_depend_on_the_index_alone(make):
    expected = load(make(), INDICES)
    assert len({sample[1:] for sample in expected}) == 20
    assert load(make(), INDICES, num_workers=2) == expected
    assert load(make(), INDICES[::-1], batch_size=7) == expected[::-1]
    # The same index gives the same sample.
    assert load(make(), [INDICES[3]] * 2) == [expected[3]] * 2


def test_generators_of_the_main_process_are_left_alone():
    draws, dataset = [], Drawing()
    assert seed_by_index(dataset)
    for load_samples in (False, True):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        if load_samples:
            dataset.__getitems__(INDICES)
        draws.append((random.random(), np.random.rand(), float(torch.rand(1))))
    assert draws[0] == draws[1]


def test_plain_indices_draw_from_the_generators_there_are():
    random.seed(1)
    expected = [random.random() for _ in range(4)]
    dataset = Drawing()
    seed_by_index(dataset)
    random.seed(1)
    assert [sample[1] for sample in dataset.__getitems__([0, 1, 2, 3])] == expected
    assert dataset[2][0] == 2


def test_pickled_index():
    index = pickle.loads(pickle.dumps(INDICES[5]))
    assert index == 5 and index.draws == INDICES[5].draws


def test_what_takes_no_attributes():
    assert not seed_by_index(range(10))
