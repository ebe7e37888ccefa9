# SPDX-License-Identifier: Apache-2.0
"""Scenes with known boxes and masks: small photos of objects on larger backgrounds."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

# Side of an object over the short side of the scene.
SCALES = (0.2, 0.55)
# The least share of an object that stays visible, and how often another place is tried for one that
# would cover more: everything that is seen of an object belongs to one that is listed.
VISIBLE, ATTEMPTS = 0.4, 20


class SceneObject(NamedTuple):
    """What is seen of one object."""

    label: int
    mask: np.ndarray  # (H, W) bool, visible pixels
    hidden: float  # share of its pixels that others cover

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 of the visible pixels, from 0, the last ones excluded."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


class Scene(NamedTuple):
    """One image and all objects in it."""

    image: np.ndarray  # (H, W, 3) uint8, BGR
    objects: list[SceneObject]
    horizon: int  # rows above it show one background, those below another


def make_scene(photos: np.ndarray, labels: Sequence[int], size: tuple[int, int],
               rng: np.random.Generator, num_objects: tuple[int, int] = (1, 5)) -> Scene:
    """Compose a scene.

    The background is made of two photos, enlarged until they are textures. Objects are photos cut
    to an ellipse or a polygon, which is the object's mask: boxes and masks are exact, whatever the
    photo shows. Later objects cover earlier ones.

    Args:
        photos (np.ndarray): (N, S, S, 3) uint8, BGR.
        labels (Sequence[int]): N classes.
        size (tuple[int, int]): Width and height in pixels.
        rng (np.random.Generator): Source of all choices.
        num_objects (tuple[int, int]): Least and greatest number of objects. Defaults to (1, 5).

    Returns:
        Scene: With at least one object.

    Raises:
        ValueError: If the numbers of objects are not 1 <= least <= greatest.
    """
    least, greatest = num_objects
    if not 1 <= least <= greatest:
        raise ValueError(f'num_objects must be 1 <= least <= greatest, not {num_objects}.')
    width, height = size
    image, horizon = _background(photos, size, rng)
    owner = np.full((height, width), -1)
    labels_seen: list[int] = []
    areas: list[int] = []
    for _ in range(int(rng.integers(least, greatest + 1))):
        photo = int(rng.integers(len(photos)))
        side = int(rng.uniform(*SCALES) * min(size))
        for _ in range(ATTEMPTS):
            x, y = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
            shape = np.zeros((height, width), dtype=bool)
            shape[y:y + side, x:x + side] = _outline(side, rng)
            if all((owner[~shape] == i).sum() >= VISIBLE * area for i, area in enumerate(areas)):
                break
        else:
            continue  # the scene is full
        pixels = cv2.resize(photos[photo], (side, side), interpolation=cv2.INTER_CUBIC)
        image[shape] = pixels[shape[y:y + side, x:x + side]]
        owner[shape] = len(areas)
        areas.append(int(shape.sum()))
        labels_seen.append(int(labels[photo]))
    objects = [SceneObject(label, owner == i, float(1 - (owner == i).sum() / area))
               for i, (label, area) in enumerate(zip(labels_seen, areas))]
    return Scene(image, objects, horizon)


def _background(photos: np.ndarray, size: tuple[int, int],
                rng: np.random.Generator) -> tuple[np.ndarray, int]:
    width, height = size
    horizon = int(height * rng.uniform(0.3, 0.7))
    image = np.empty((height, width, 3), dtype=np.uint8)
    for rows in (slice(0, horizon), slice(horizon, height)):
        photo = photos[int(rng.integers(len(photos)))]
        side = photo.shape[0] // 2  # a part of it: no whole object is in the background
        x, y = rng.integers(side, size=2)
        part = cv2.resize(photo[y:y + side, x:x + side], (width, height),
                          interpolation=cv2.INTER_CUBIC)
        grain = rng.normal(0, 8, (height // 2 + 1, width // 2 + 1)).astype(np.float32)
        grained = part + cv2.resize(grain, (width, height))[..., None]
        image[rows] = np.clip(grained, 0, 255).astype(np.uint8)[rows]
    return image, horizon


def _outline(side: int, rng: np.random.Generator) -> np.ndarray:
    """(side, side) bool: an ellipse, or a polygon of corners on one."""
    mask = np.zeros((side, side), dtype=np.uint8)
    centre = side / 2
    radii = side / 2 * rng.uniform(0.75, 1, 2)
    corners = int(rng.choice([5, 6, 8, 64]))
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform()) / corners
    points = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * radii
    cv2.fillPoly(mask, [points.round().astype(np.int32)], 1)
    return mask.astype(bool)
