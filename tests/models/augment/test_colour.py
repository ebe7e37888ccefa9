# SPDX-License-Identifier: Apache-2.0
"""Colours of a batch against torchvision's functions, image by image."""
import itertools

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as F

from pic_plugin.models.augment.colour import (
    Colours,
    change_colours,
    change_colours_in_two_sweeps,
    grey,
    turn_hue,
)
from pic_plugin.models.augment.recipe import BRIGHTNESS, CONTRAST, HUE, NUM_TONES, SATURATION

# float32 with a dozen operations on numbers of at most 1; a level of 8 bits is 4e-3.
CLOSE = dict(rtol=0, atol=3e-6)
ADJUST = {BRIGHTNESS: F.adjust_brightness, CONTRAST: F.adjust_contrast,
          SATURATION: F.adjust_saturation, HUE: F.adjust_hue}
SLOT_OF_GREY = NUM_TONES - 1


@pytest.fixture
def images():
    """(24, 3, 20, 28) RGB, with pixels where channels are equal, black and white."""
    pixels = torch.rand(24, 3, 20, 28, generator=torch.Generator().manual_seed(0))
    pixels[:, :, 0] = pixels[:, :1, 0]  # grey
    pixels[:, 1, 1] = pixels[:, 0, 1]  # two equal channels, the larger or smaller ones
    pixels[:, 2, 2] = pixels[:, 1, 2]
    pixels[:, :, 3, :4], pixels[:, :, 3, 4:8] = 0, 1
    return pixels


def colours_of(orders, factors):
    """Coefficients written down one image at a time, from orders (B, 4) and factors (B, 4)."""
    gain, grey_share, mean_share = torch.ones(len(orders), NUM_TONES), *torch.zeros(
        2, len(orders), NUM_TONES)
    hue = torch.zeros(len(orders))
    for b, order in enumerate(orders):
        before, after = 0, 3
        turned = False
        for op in order:
            f = float(factors[b][op])
            if op == HUE:
                hue[b], turned = f, True
                continue
            slot = after if turned else before
            before, after = before + (not turned), after + turned
            gain[b, slot] = f
            if op == CONTRAST:
                mean_share[b, slot] = 1 - f
            if op == SATURATION:
                grey_share[b, slot] = 1 - f
    return Colours(gain, grey_share, mean_share, hue)


def some_factors(number, seed=1):
    generator = np.random.default_rng(seed)
    factors = generator.uniform(0.2, 1.8, (number, 4))
    factors[:, HUE] = generator.uniform(-0.5, 0.5, number)
    return factors


@pytest.mark.parametrize('change', [change_colours, change_colours_in_two_sweeps])
def test_every_order_is_torchvisions(images, change):
    orders = list(itertools.permutations(range(4)))
    factors = some_factors(24)
    changed = change(images, colours_of(orders, factors))
    for image, order, factor, result in zip(images, orders, factors, changed):
        for op in order:
            image = ADJUST[op](image, float(factor[op]))
        torch.testing.assert_close(result, image, **CLOSE)


@pytest.mark.parametrize('op', list(ADJUST))
def test_each_operation_alone_is_torchvisions_and_within_a_level_of_it_on_uint8(images, op):
    factors = np.ones((24, 4))
    factors[:, HUE] = 0
    factors[:, op] = some_factors(24)[:, op]
    levels = (images * 255).round().to(torch.uint8)
    changed = change_colours(levels / 255, colours_of([(0, 1, 2, 3)] * 24, factors))
    for image, level, factor, result in zip(levels / 255, levels, factors[:, op], changed):
        torch.testing.assert_close(result, ADJUST[op](image, float(factor)), **CLOSE)
        # It truncates the grey, and what comes out: less than two levels.
        on_uint8 = ADJUST[op](level, float(factor)).float()
        assert (result * 255 - on_uint8).abs().max() < 2


def test_grey_comes_last(images):
    colours = colours_of([(0, 1, 2, 3)] * 24, some_factors(24))
    plain = change_colours(images, colours)
    colours.gain[5, SLOT_OF_GREY], colours.grey_share[5, SLOT_OF_GREY] = 0, 1
    changed = change_colours(images, colours)
    expected = F.rgb_to_grayscale(plain[5], 3)
    torch.testing.assert_close(changed[5], expected, **CLOSE)
    assert torch.equal(changed[6], plain[6])


def test_an_image_without_changes_comes_back_bit_for_bit(images):
    factors = np.ones((24, 4))
    factors[:, HUE] = 0
    colours = colours_of([(3, 0, 1, 2)] * 24, factors)
    assert torch.equal(change_colours(images, colours), images)
    assert torch.equal(turn_hue(images, torch.zeros(24)), images)


def test_images_do_not_see_each_other(images):
    colours = colours_of([(1, 3, 0, 2)] * 24, some_factors(24))
    together = change_colours(images, colours)
    for b in (0, 7, 23):
        alone = Colours(*(part[b:b + 1] for part in colours[:4]))
        # Reductions of another batch size may add in another order.
        torch.testing.assert_close(change_colours(images[b:b + 1], alone), together[b:b + 1],
                                   rtol=0, atol=1e-6)


@pytest.mark.parametrize('channels', [1, 2, 5])
@pytest.mark.parametrize('change', [change_colours, change_colours_in_two_sweeps])
def test_other_channels_get_brightness_and_contrast(channels, change):
    images = torch.rand(2, channels, 9, 7)
    factors = some_factors(2)
    colours = colours_of([(CONTRAST, BRIGHTNESS)] * 2, factors)
    for image, factor, result in zip(images, factors, change(images, colours)):
        contrasted = (factor[CONTRAST] * image + (1 - factor[CONTRAST]) * image.mean()).clamp(0, 1)
        expected = (factor[BRIGHTNESS] * contrasted).clamp(0, 1)
        torch.testing.assert_close(result, expected.float(), **CLOSE)
    assert grey(images).shape == (2, 1, 9, 7)
