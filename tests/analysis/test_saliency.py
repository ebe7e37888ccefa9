# SPDX-License-Identifier: Apache-2.0
"""Occlusion saliency against a slow version and against planted truth."""
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pic_plugin.analysis.saliency import (
    occlusion_distances,
    saliency_maps,
    salient_regions,
    spans,
)

GREY = torch.tensor([0.3, -0.2, 0.1]).view(3, 1, 1)


def slow_distances(features, images, grey, patch, stride):
    """One occluded image at a time."""
    height, width = images.shape[2:]
    tops = sorted({*range(0, height - patch, stride), height - patch})
    lefts = sorted({*range(0, width - patch, stride), width - patch})
    out = torch.empty(len(images), len(tops), len(lefts))
    for i, image in enumerate(images):
        original = features(image[None])[0]
        for y, top in enumerate(tops):
            for x, left in enumerate(lefts):
                occluded = image.clone()
                occluded[:, top:top + patch, left:left + patch] = grey
                moved = features(occluded[None])[0] - original
                out[i, y, x] = moved.norm() / original.norm()
    return out, tops, lefts


@given(st.integers(1, 50), st.data())
def test_spans_cover_all_pixels_up_to_the_edges(length, data):
    patch = data.draw(st.integers(1, length))
    stride = data.draw(st.integers(1, patch))
    covered = spans(length, patch, stride)
    assert (covered.sum(dim=1) == patch).all()
    assert covered.any(dim=0).all()
    assert covered[0, 0] and covered[-1, -1]
    assert len(covered.unique(dim=0)) == len(covered)


@pytest.mark.parametrize('patch, stride, message', [
    (0, 1, 'does not fit'), (9, 1, 'patch from 1 to 8'), (4, 0, 'never covered'),
    (4, 5, 'stride from 1 to 4')])
def test_a_patch_that_does_not_fit_is_an_error(patch, stride, message):
    with pytest.raises(ValueError, match=message):
        spans(8, patch, stride)


@pytest.mark.parametrize('batch_size', [1, 7, 1000])
@pytest.mark.parametrize('height, width, patch, stride',
                         [(9, 12, 4, 3), (8, 8, 8, 2), (5, 7, 1, 1)])
def test_batched_distances_are_those_of_one_at_a_time(height, width, patch, stride, batch_size):
    torch.manual_seed(0)
    images = torch.randn(3, 3, height, width)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU(),
                                  torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    if min(height, width) < 3:
        network = torch.nn.Flatten()
    seen = []

    def features(batch):
        seen.append(len(batch))
        return network(batch)

    expected, tops, lefts = slow_distances(network, images, GREY, patch, stride)
    done = []
    found = occlusion_distances(features, images, GREY, patch, stride, batch_size, done.append)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)  # float32
    assert max(seen) <= batch_size
    assert sum(done) == expected.numel()

    count = torch.zeros(height, width)
    total = torch.zeros(3, height, width)
    for y, top in enumerate(tops):
        for x, left in enumerate(lefts):
            count[top:top + patch, left:left + patch] += 1
            total[:, top:top + patch, left:left + patch] += found[:, y, x, None, None]
    torch.testing.assert_close(saliency_maps(found, height, width, patch, stride), total / count)


def test_features_that_are_not_finite_are_an_error():
    images = torch.full((1, 3, 4, 4), float('nan'))
    with pytest.raises(ValueError, match='not finite'):
        occlusion_distances(lambda batch: batch.flatten(1), images, GREY, 2, 2)


def test_regions_are_above_the_mean_or_of_a_chosen_size():
    maps = torch.tensor([[[0., 1.], [2., 9.]], [[5., 5.], [1., 1.]], [[.1, .1], [.1, .1]]])
    assert salient_regions(maps).tolist() == [
        [[False, False], [False, True]], [[True, True], [False, False]],
        [[False, False], [False, False]]]
    # Ties do not make a region larger.
    assert salient_regions(maps, 0.5).flatten(1).sum(dim=1).tolist() == [2, 2, 2]
    assert salient_regions(maps, 0.5)[0].tolist() == [[False, False], [True, True]]
    assert salient_regions(maps, 0.01).flatten(1).sum(dim=1).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match='between 0 and 1'):
        salient_regions(maps, 1.0)


@pytest.mark.parametrize('scale', [1e-6, 1.0, 1e6])
def test_a_constant_map_has_no_region(scale):
    # 0.1 is not exact in float32, nor is a mean of many.
    assert not salient_regions(torch.full((2, 33, 33), 0.1 * scale)).any()
