# SPDX-License-Identifier: Apache-2.0
"""What is drawn: the distribution of the recipe that ran on the host, and where numbers come from.
"""
import copy

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS
from scipy.stats import ks_2samp

from pic_plugin.datasets import ImageGrid
from pic_plugin.models.augment import recipe as recipe_module
from pic_plugin.models.augment.preprocessor import AugmentPreprocessor
from pic_plugin.models.augment.recipe import (
    Blur,
    ColourJitter,
    ViewRecipe,
    draw,
    new_generator,
)

NUM_DRAWS = 800
SIDE = 48
# As pic_folder.py of version 0.1.0 had it, after the crop.
HOST = [
    dict(type='NumpyToPIL', to_rgb=True),
    dict(type='RandomApply', prob=0.8, transforms=[
        dict(type='torchvision/ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4,
             hue=0.1)]),
    dict(type='torchvision/RandomGrayscale', p=0.2),
    dict(type='PILToNumpy', to_bgr=True),
    dict(type='GaussianBlur', magnitude_range=(0.1, 2.0), magnitude_std='inf', prob=0.5),
    dict(type='RandomFlip', prob=0.5),
]
# Two samples of one distribution fall below once in 10,000 comparisons; seeds are fixed.
ACCEPT, NOTICE = 1e-4, 1e-6


def statistics(pictures):
    """Numbers (n,) that describe pictures (n, H, W, 3) RGB in [0, 1]."""
    low, high = pictures.min(-1), pictures.max(-1)
    chroma = high - low
    grey = pictures @ np.array([0.299, 0.587, 0.114])
    edges = np.abs(np.diff(grey, axis=1)).mean((1, 2)) + np.abs(np.diff(grey, axis=2)).mean((1, 2))
    # Of the mean colour: red-green against blue-yellow.
    red, green, blue = np.moveaxis(pictures.mean((1, 2)), -1, 0)
    hue = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)
    is_grey = chroma.max((1, 2)) < 2 / 255
    return dict(
        mean=grey.mean((1, 2)), contrast=grey.std((1, 2)), edges=edges,
        sharpness=edges / grey.std((1, 2)),
        # Brightness and contrast change both alike.
        saturation=(chroma.mean((1, 2)) / grey.std((1, 2)))[~is_grey], hue=hue[~is_grey],
        grey=is_grey.astype(float),
        side=np.sign((grey[:, :, :SIDE // 2] - grey[:, :, SIDE // 2:]).mean((1, 2))))


@pytest.fixture(scope='module')
def picture():
    """A photo of several colours (48, 48, 3) uint8, BGR."""
    return cv2.resize(ImageGrid('cifar10_train_5000.webp')[1211]['img'], (SIDE, SIDE),
                      interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope='module')
def on_host(picture):
    np.random.seed(3)
    torch.manual_seed(3)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose([TRANSFORMS.build(copy.deepcopy(transform)) for transform in HOST])
    pictures = [pipeline(dict(img=picture.copy()))['img'][..., ::-1] for _ in range(NUM_DRAWS)]
    return statistics(np.stack(pictures) / 255)


def on_device(picture, **settings):
    torch.manual_seed(4)
    preprocessor = AugmentPreprocessor(to_rgb=True, views=settings)
    batch = torch.from_numpy(picture).permute(2, 0, 1).expand(NUM_DRAWS, 3, SIDE, SIDE)
    view, = preprocessor(dict(inputs=batch), True)['inputs']
    return statistics(view.permute(0, 2, 3, 1).numpy() / 255)


def p_values(first, second):
    """Of two-sample tests of each statistic."""
    noise = np.random.default_rng(5)
    found = {}
    for name, values in first.items():
        # One picture in ten is left as it was: many equal numbers, which the host's truncation to
        # 256 levels shifts by a little. Noise well above that, on both, makes them comparable.
        width = 0.08 * values.std()
        found[name] = ks_2samp(*(sample[name] + noise.normal(0, width, len(sample[name]))
                                 for sample in (first, second)), method='asymp').pvalue
    return found


def test_the_distribution_is_that_of_the_recipe_on_the_host(picture, on_host):
    found = p_values(on_host, on_device(picture))
    assert min(found.values()) > ACCEPT, found


@pytest.mark.parametrize('settings, noticed_in', [
    (dict(jitter=dict(brightness=0.6)), 'mean'),
    (dict(jitter=dict(contrast=0.9)), 'contrast'),
    (dict(jitter=dict(saturation=0.)), 'saturation'),
    (dict(jitter=dict(saturation=0.8)), 'saturation'),
    (dict(jitter=dict(hue=0.05)), 'hue'),
    (dict(jitter=dict(hue=0.)), 'hue'),
    (dict(jitter=dict(prob=0.4)), 'hue'),
    (dict(grey=0.4), 'grey'),
    (dict(blur=dict(sigma=(0.1, 1.))), 'sharpness'),
    (dict(blur=None), 'edges'),
    (dict(flip=0.), 'side'),
], ids=str)
def test_another_strength_is_noticed(picture, on_host, settings, noticed_in):
    assert p_values(on_host, on_device(picture, **settings))[noticed_in] < NOTICE


def test_random_numbers_follow_the_global_generator():
    def batch():
        return draw(ViewRecipe(), 50, torch.device('cpu'), new_generator())

    torch.manual_seed(5)
    first, second = batch(), batch()
    state = torch.get_rng_state()
    third = batch()
    torch.set_rng_state(state)
    again = batch()
    assert torch.equal(third.colours.gain, again.colours.gain)
    assert torch.equal(third.blurred, again.blurred)
    assert torch.equal(third.sigmas, again.sigmas)
    assert not torch.equal(first.colours.gain, second.colours.gain)


def test_processes_that_are_seeded_alike_draw_differently(monkeypatch):
    drawn = []
    for rank in (0, 1, 0):
        monkeypatch.setattr(recipe_module, 'get_rank', lambda rank=rank: rank)
        torch.manual_seed(6)
        drawn.append(torch.rand(8, generator=new_generator()))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_strengths_and_orders_of_each_image_are_its_own():
    draws = draw(ViewRecipe(jitter=dict(prob=1.)), 4000, torch.device('cpu'),
                 torch.Generator().manual_seed(0))
    gain, _, mean_share, hue = draws.colours[:4]
    assert len(torch.unique(hue)) > 3900
    assert hue.abs().max() <= 0.1 and hue.abs().mean() == pytest.approx(0.05, abs=0.002)
    # Contrast is in each of four places; before the hue in half of the images, and then first,
    # second or third in 1/4, 1/6 and 1/12.
    share = (mean_share != 0).float().mean(0)
    expected = [1 / 4, 1 / 6, 1 / 12, 1 / 4, 1 / 6, 1 / 12, 0]
    np.testing.assert_allclose(share.numpy(), expected, atol=0.03)
    factors = 1 - mean_share[mean_share != 0]
    assert 0.6 <= factors.min() < 0.61 and 1.39 < factors.max() <= 1.4
    assert draws.sigmas.min() >= 0.1 and draws.sigmas.max() <= 2.0
    assert len(draws.blurred) == pytest.approx(2000, abs=120)
    assert gain[:, -1].mean() == pytest.approx(0.8, abs=0.03)


def test_settings_are_checked():
    for settings, message in [
            (dict(grey=1.2), 'grey is a probability'),
            (dict(flip=-0.1), 'flip is a probability'),
            (dict(jitter=dict(prob=2)), 'jitter.prob is a probability'),
            (dict(jitter=dict(hue=0.6)), 'share of a full turn'),
            (dict(jitter=dict(contrast=-1)), 'jitter.contrast must not be negative'),
            (dict(jitter=dict(colour=1)), "does not know \\['colour'\\]"),
            (dict(blur=dict(sigma=(0, 1))), 'blur.sigma'),
            (dict(blur=0.5), 'blur must be a dict'),
            (dict(num_views=0), 'num_views'),
            (dict(gray=0.2), "does not know \\['gray'\\]")]:
        with pytest.raises(ValueError, match=message):
            ViewRecipe.from_config(settings)
    assert ViewRecipe.from_config(dict(_scope_='mmpretrain')) == ViewRecipe()
    assert ViewRecipe().jitter == ColourJitter(0.4, 0.4, 0.4, 0.1, 0.8)
    assert ViewRecipe().blur == Blur((0.1, 2.0), 0.5)
