# SPDX-License-Identifier: Apache-2.0
"""Scenes: boxes, masks and pixels agree, whatever is drawn."""
import cv2
import numpy as np
import pytest

from pic_plugin.studies.scenes.scenes import VISIBLE, make_scene

# Photo i is of one colour: what is seen of it is known from the pixels.
LABELS = [3, 1, 4]
COLOURS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250]], np.uint8)


def photos():
    """(3, 16, 16, 3) uint8, one colour each."""
    return np.broadcast_to(COLOURS[:, None, None], (3, 16, 16, 3)).copy()


@pytest.mark.parametrize('seed', range(20))
def test_masks_are_what_is_seen(seed):
    scene = make_scene(photos(), LABELS, (64, 48), np.random.default_rng(seed), (1, 8))
    assert scene.image.shape == (48, 64, 3) and scene.image.dtype == np.uint8
    assert 1 <= len(scene.objects) <= 8
    seen = np.zeros((48, 64), int)
    for item in scene.objects:
        seen += item.mask
        colour = COLOURS[LABELS.index(item.label)]
        # Exactly this photo's pixels: a cubic enlargement of one colour is that colour.
        assert (scene.image[item.mask] == colour).all()
        assert 0 <= item.hidden <= 1 - VISIBLE + 1e-9
        x0, y0, x1, y1 = item.box
        assert item.mask[y0:y1, x0:x1].sum() == item.mask.sum()
        for edge in (item.mask[y0], item.mask[y1 - 1], item.mask[:, x0], item.mask[:, x1 - 1]):
            assert edge.any()
    assert seen.max() == 1, 'no pixel belongs to two objects'


def test_background_is_not_an_object():
    """Outside all masks there is grain; a piece of an unlisted object would be of one colour."""
    for seed in range(20):
        scene = make_scene(photos(), LABELS, (64, 48), np.random.default_rng(seed), (8, 8))
        outside = ~np.any([item.mask for item in scene.objects], axis=0)
        exact = (scene.image[:, :, None] == COLOURS).all(-1).any(-1) & outside
        assert not cv2.erode(exact.astype(np.uint8), np.ones((4, 4))).any()


def test_the_same_seed_gives_the_same_scene():
    scenes = [make_scene(photos(), LABELS, (64, 48), np.random.default_rng(seed))
              for seed in (1, 1, 2)]
    assert np.array_equal(scenes[0].image, scenes[1].image)
    assert not np.array_equal(scenes[0].image, scenes[2].image)


@pytest.mark.parametrize('numbers', [(0, 3), (4, 3)])
def test_numbers_of_objects(numbers):
    with pytest.raises(ValueError, match='1 <= least <= greatest'):
        make_scene(photos(), LABELS, (64, 48), np.random.default_rng(0), numbers)
