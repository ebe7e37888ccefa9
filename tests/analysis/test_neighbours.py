# SPDX-License-Identifier: Apache-2.0
"""Neighbours and duplicates against brute force and planted truth."""
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from pic_plugin.analysis import neighbours
from pic_plugin.analysis.images import Images
from pic_plugin.analysis.neighbour_figure import Cell, draw_neighbours
from pic_plugin.analysis.neighbours import duplicates, find_queries, nearest
from pic_plugin.analysis.style import write_figure


class Pictures(Images):

    def __init__(self, pictures):
        super().__init__([f'{number}.png' for number in range(len(pictures))], None)
        self.pictures = pictures

    def read(self, index):
        return self.pictures[index]


@pytest.mark.parametrize('block_bytes', [1, 300, 2**20])
def test_nearest_by_brute_force(monkeypatch, block_bytes):
    monkeypatch.setattr(neighbours, 'BLOCK_BYTES', block_bytes)
    values = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    rows, cosines = nearest(values, [3, 19, 0], 5)
    for query, near, similar in zip([3, 19, 0], rows.tolist(), cosines.tolist()):
        truth = {other: torch.cosine_similarity(values[query], values[other], dim=0).item()
                 for other in range(20) if other != query}
        expected = sorted(truth, key=lambda other: -truth[other])[:5]
        assert near == expected
        assert similar == pytest.approx([truth[other] for other in expected], abs=1e-6)
    assert nearest(values[:3], [1], 99)[0].shape == (1, 2)


@pytest.mark.parametrize('block_bytes, channels', [(1, 3), (2**20, 3), (2**20, 1), (2**20, 5)])
def test_planted_duplicates_are_found(monkeypatch, block_bytes, channels):
    """Pictures are their own features: a copy and a slightly noisy copy are planted."""
    monkeypatch.setattr(neighbours, 'BLOCK_BYTES', block_bytes)
    generator = np.random.default_rng(0)
    pictures = list(generator.integers(0, 250, (12, 8, 8, channels), dtype=np.uint8))
    pictures[7] = pictures[2].copy()
    pictures[11] = pictures[4] + np.uint8(3) * (generator.random((8, 8, channels)) < 0.5)
    values = torch.tensor(np.stack(pictures)).flatten(1).float() - 125
    pairs = duplicates(values[1:], range(1, 12), Pictures(pictures), 0.98, most=10)
    assert [(pair.first, pair.second, pair.kind) for pair in pairs] == [
        (2, 7, 'identical'), (4, 11, 'similar')]
    assert pairs[0].similarity == pytest.approx(1) and pairs[0].pixel_difference == 0
    assert 0 < pairs[1].pixel_difference < 4 and pairs[1].similarity < 1
    assert len(duplicates(values, range(12), Pictures(pictures), 0.98, most=1)) == 1
    assert len(duplicates(values, range(12), Pictures(pictures), 1.0, most=9)) == 1
    with pytest.raises(ValueError, match='at most 1, not 2'):
        duplicates(values, range(12), Pictures(pictures), 2, most=9)


def test_titles_are_no_formulas(tmp_path):
    rows = [[Cell(np.zeros((8, 8, 3), np.uint8), 'at $x_{ 0.98', None)] * 2,
            [Cell(np.zeros((8, 8, 3), np.uint8), '50$ to 60$ {', True)] * 2]
    write_figure(lambda: draw_neighbours(rows), tmp_path / 'neighbours')
    svg = (tmp_path / 'neighbours.svg').read_text()
    assert svg.count('>at $x_{ 0.98<') == 2 == svg.count('>50$ to 60$ {<')


def test_all_pairs_of_many_pictures_take_long_and_are_counted(monkeypatch):
    done = []

    @contextmanager
    def counter(total):
        assert total == 12
        yield done.append

    monkeypatch.setattr(neighbours, 'progress', counter)
    monkeypatch.setattr(neighbours, 'BLOCK_BYTES', 4 * 12 * 5)
    duplicates(torch.eye(12), range(12), Pictures([None] * 12), 0.98, most=10)
    assert done == [5, 5, 2]


def test_queries_by_name():
    images = Pictures([None] * 6)
    assert find_queries(images, ['4.png', '1.png'], [1, 2, 4], 9) == [2, 0]
    assert find_queries(images, None, [1, 2, 4, 5], 2) == [0, 2]
    assert find_queries(images, None, [1, 2], 9) == [0, 1]
    with pytest.raises(ValueError, match='3.png is not one of the 2 pictures'):
        find_queries(images, ['3.png'], [1, 2], 9)
