# SPDX-License-Identifier: Apache-2.0
"""Crops: drawn as torchvision draws them, scaled as Pillow scales them."""
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from pic_plugin.datasets.random_crop import (
    Box,
    CropRecipe,
    crop_and_resize,
    draw_box,
    reduction_for,
    shrink_to,
)


@pytest.mark.parametrize('size', [(375, 500), (100, 30), (40, 40)])
@pytest.mark.parametrize('scale', [(0.2, 1.0), (0.08, 0.14)])
def test_the_distribution_is_torchvisions(size, scale):
    np.random.seed(0)
    torch.manual_seed(0)
    recipe = CropRecipe(224, scale)
    image = torch.empty(3, *size)
    ours = np.array([draw_box(*size, recipe) for _ in range(3000)], dtype=float)
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3])
                       for _ in range(3000)], dtype=float)
    for column in range(4):  # top, left, height, width
        assert ks_2samp(ours[:, column], theirs[:, column], method='asymp').pvalue > 1e-4
    areas, ratios = ((boxes[:, 2] * boxes[:, 3], boxes[:, 3] / boxes[:, 2])
                     for boxes in (ours, theirs))
    assert ks_2samp(areas[0], ratios[0], method='asymp').pvalue > 1e-4
    assert ks_2samp(areas[1], ratios[1], method='asymp').pvalue > 1e-4


def test_another_scale_is_noticed():
    np.random.seed(0)
    areas = [np.array([np.prod(draw_box(100, 100, CropRecipe(9, (low, 1.0)))[2:])
                       for _ in range(1000)]) for low in (0.2, 0.3)]
    assert ks_2samp(*areas, method='asymp').pvalue < 1e-6


@pytest.mark.parametrize('size, expected', [
    ((300, 2), Box(148, 0, 3, 2)), ((2, 300), Box(0, 148, 2, 3)), ((1, 1), Box(0, 0, 1, 1)),
    ((1, 50), Box(0, 24, 1, 1)), ((50, 1), Box(24, 0, 1, 1))])
def test_where_no_crop_fits_it_is_the_middle(size, expected):
    box = draw_box(*size, CropRecipe(8, (1.0, 1.0)))
    assert box == expected


@pytest.mark.parametrize('box', [Box(3, 5, 40, 31), Box(0, 0, 60, 90), Box(10, 70, 1, 1),
                                 Box(20, 20, 16, 16)])
def test_it_is_pillows_bilinear(box):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    part = pixels[box.top:box.top + box.height, box.left:box.left + box.width]
    expected = np.asarray(Image.fromarray(part).resize((20, 16), Image.BILINEAR)).astype(int)
    found = crop_and_resize(pixels, box, (60, 90), (16, 20))
    assert found.dtype == np.uint8 and found.shape == (16, 20, 3)
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1 and difference.mean() < 0.3


def test_other_depths_are_not_rounded():
    pixels = np.arange(4 * 6, dtype=np.uint16).reshape(4, 6, 1) * 1000
    found = crop_and_resize(pixels, Box(0, 0, 4, 6), (4, 6), (2, 3))
    assert found.dtype == np.float32 and found.shape == (2, 3, 1)
    assert found.mean() == pytest.approx(pixels.mean())


@pytest.mark.parametrize('reduction', [2, 4, 8])
def test_a_crop_of_a_reduced_image_is_the_same_part(reduction):
    across, down = np.meshgrid(np.arange(160), np.arange(80))
    full = np.dstack([across, down, across]).astype(np.uint8)
    small = full.reshape(80 // reduction, reduction, 160 // reduction, reduction, 3).mean((1, 3))
    box = Box(17, 21, 48, 96)
    exact = crop_and_resize(full, box, (80, 160), (6, 12)).astype(int)
    found = crop_and_resize(small, box, (80, 160), (6, 12))
    # Its edges are rounded by half a pixel of the reduced image, and so is its place.
    assert np.abs(found - exact).max() <= reduction


def test_reduction_keeps_every_crop_large_enough():
    boxes = [Box(0, 0, 900, 1000), Box(0, 0, 450, 500)]
    assert reduction_for(boxes[:1], [(224, 224)]) == 4
    assert reduction_for(boxes, [(224, 224), (224, 224)]) == 2
    assert reduction_for(boxes, [(224, 224), (96, 96)]) == 4
    assert reduction_for([Box(0, 0, 447, 900)], [(224, 224)]) == 1
    assert reduction_for([Box(0, 0, 9000, 9000)], [(224, 224)]) == 8


def test_short_edges_are_limited():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    assert shrink_to(pixels, 60) is pixels
    assert shrink_to(pixels, 20).shape == (20, 30, 3)
    assert shrink_to(pixels[..., :1], 20).shape == (20, 30, 1)


@pytest.mark.parametrize('channels', [1, 3, 4, 5, 8, 13])
def test_any_number_of_channels_is_scaled(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, channels), dtype=np.uint8)
    scaled = shrink_to(pixels, 16)
    assert scaled.shape == (16, 24, channels) and scaled.dtype == np.uint8
    for channel in range(channels):
        np.testing.assert_array_equal(scaled[..., channel:channel + 1],
                                      shrink_to(pixels[..., channel:channel + 1], 16))


@pytest.mark.parametrize('settings', [
    dict(size=0), dict(size=(3, 4, 5)), dict(size=9, scale=(0, 1)), dict(size=9, ratio=(2, 1)),
    dict(size=9, num_views=0)])
def test_settings_are_checked(settings):
    with pytest.raises(ValueError):
        CropRecipe(**settings)
