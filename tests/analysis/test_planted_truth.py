# SPDX-License-Identifier: Apache-2.0
"""Saliency and overlap where the answer is known before anything is computed."""
import numpy as np
import pytest
import torch

from pic_plugin.analysis.images import Images
from pic_plugin.analysis.network import Network
from pic_plugin.analysis.overlap import (
    HIGH,
    intersection_over_union,
    summarise_overlap,
)
from pic_plugin.analysis.saliency_study import compare, measure, most_different, occlusion
from toys.networks import (
    CONVNET,
    SIDE,
    TOKENS,
    TRANSFORMER,
    Watcher,
    grey_picture_with_square,
    random_network,
)

SQUARES = [(2, 3, 10), (18, 4, 12), (10, 17, 11)]  # top, left, side


class Pictures(Images):
    """Pictures in memory."""

    def __init__(self, pictures):
        super().__init__([str(number) for number in range(len(pictures))], None)
        self.pictures = pictures

    def read(self, index):
        return self.pictures[index]


def box(top, left, side, margin=0):
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    rows = slice(max(0, top - margin), top + side + margin)
    mask[rows, max(0, left - margin):left + side + margin] = True
    return mask


@pytest.mark.parametrize('cfg', [CONVNET, TRANSFORMER, TOKENS], ids=['conv', 'vit', 'tokens'])
def test_any_network_looks_at_the_only_thing_there_is(cfg):
    """Grey over grey changes nothing, so only patches that touch the square can count."""
    network = random_network(cfg)
    images = Pictures([grey_picture_with_square(*square) for square in SQUARES])
    settings = occlusion(SIDE, patch=4, stride=2)
    distances = measure([network], images, range(3), settings).distances[0]
    maps = settings.maps(distances)
    for distance, saliency, square in zip(distances, maps, SQUARES):
        truth = box(*square)
        # Float32 in batches of other sizes; inside it is thousands of times as much.
        assert saliency[~box(*square, margin=settings.patch)].max() < 1e-4 * saliency.max()
        peak = np.unravel_index(int(saliency.argmax()), saliency.shape)
        assert box(*square, margin=settings.stride)[peak]
        assert covers(settings.regions(distance[None])[0], square, settings.patch)
        # A region as large as the square.
        share = truth.double().mean().item()
        region = settings._replace(share=share).regions(distance[None])
        overlap = float(intersection_over_union(region, truth[None]))
        # By chance it would be about 0.05; random features do not move alike over the square.
        assert overlap > 0.4, f'{overlap} for {square}'


def covers(region, square, patch):
    """Whether a region holds nearly all of a square, and nothing that no patch on it covers."""
    recall = region[box(*square)].double().mean()
    return recall > 0.85 and not region[~box(*square, margin=patch)].any()


def test_what_a_network_does_not_see_is_not_salient():
    """The picture is noise everywhere; the network sees a box of it."""
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    settings = occlusion(SIDE, patch=4, stride=1)
    for square in SQUARES:
        measured = measure([Network(Watcher(*square))], Pictures([picture]), [0], settings)
        assert covers(settings.regions(measured.distances[0])[0], square, settings.patch)
        share = box(*square).double().mean().item()
        region = settings._replace(share=share).regions(measured.distances[0])
        assert float(intersection_over_union(region, box(*square)[None])) > 0.75


def test_overlap_of_networks_that_look_at_known_boxes():
    noise = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    pictures = Pictures(list(noise))
    settings = occlusion(SIDE, patch=4, stride=2)
    left, right = Network(Watcher(8, 0, 12)), Network(Watcher(8, 20, 12))
    _, (ours, theirs) = measure([left, right], pictures, range(4), settings)
    apart = compare(ours, theirs, settings)
    assert apart.overlaps.tolist() == [0] * 4
    same = compare(ours, ours, settings)
    assert same.overlaps.tolist() == [1] * 4
    # The network looks at one place whatever the image is, and the other-image overlap tells.
    assert same.other_images.min() > 0.8
    assert compare(ours[:1], ours[:1], settings).other_images.isnan().all()
    # The box is 12 of 32 wide, and its region a little larger.
    assert ((12 / 32)**2 < same.areas).all() and (same.areas < (18 / 32)**2).all()


def test_overlap_of_different_images_is_low():
    """Both networks find the square, but each in its own image: chance is told from agreement."""
    pictures = Pictures([grey_picture_with_square(*square) for square in SQUARES])
    settings = occlusion(SIDE, patch=4, stride=2)
    _, (conv, vit) = measure([random_network(CONVNET), random_network(TRANSFORMER)], pictures,
                             range(3), settings)
    comparison = compare(conv, vit, settings)
    summary = summarise_overlap(comparison.overlaps, comparison.other_images)
    assert summary['mean'] > 0.6 > 0.2 > summary['other_image_mean']


def test_intersection_over_union_against_sets():
    generator = torch.Generator().manual_seed(0)
    first = torch.rand(6, 5, 7, generator=generator) < 0.4
    second = torch.rand(6, 5, 7, generator=generator) < 0.6
    first[5] = second[5] = False
    found = intersection_over_union(first, second)
    for i in range(5):
        ours = set(first[i].flatten().nonzero()[:, 0].tolist())
        theirs = set(second[i].flatten().nonzero()[:, 0].tolist())
        assert found[i] == len(ours & theirs) / len(ours | theirs)
    assert found[5].isnan()
    assert most_different(torch.tensor([0.5, float('nan'), 0.1, 0.9]), 9) == [2, 0, 3, 1]


def test_summary_counts_what_has_a_region():
    overlaps = torch.tensor([0.0, 0.62, 0.6, 1.0, float('nan')], dtype=torch.float64)
    summary = summarise_overlap(overlaps, torch.full((5, ), 0.25))
    assert summary['images'] == 4
    assert summary['mean'] == pytest.approx(0.555)
    assert summary['standard_error'] == pytest.approx(overlaps[:4].std().item() / 2)
    assert (summary['share_above'], summary['threshold']) == (0.5, HIGH)
    assert summary['other_image_mean'] == 0.25
    counts, edges = summary['histogram']['counts'], summary['histogram']['edges']
    assert sum(counts) == 4 and len(edges) == len(counts) + 1
    assert counts[0] == 1 and counts[12] == 2 and counts[-1] == 1
    nothing = summarise_overlap(torch.tensor([float('nan')]), torch.tensor([float('nan')]))
    assert nothing['images'] == 0 and nothing['mean'] is None and nothing['share_above'] is None
