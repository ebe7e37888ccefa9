# SPDX-License-Identifier: Apache-2.0
"""The recipe of a view: which operations, how strong and how often; and draws from it."""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import get_rank
from torch import Tensor

from pic_plugin.bank.transfers import to_device
from pic_plugin.models.augment.blur import kernel_radius
from pic_plugin.models.augment.colour import TONES_BEFORE_HUE, Colours

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
NUM_TONES = 2 * TONES_BEFORE_HUE + 1  # the last is greyscale
NUM_DRAWS = 14  # uniform numbers for an image: see draw()


@dataclass(frozen=True)
class ColourJitter:
    """torchvision's ``ColorJitter`` with a probability.

    A factor of brightness, contrast and saturation is uniform in [max(0, 1 - s), 1 + s], the turn
    of the hue in [-s, s], and the order of the four is random for each image.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    prob: float = 0.8


@dataclass(frozen=True)
class Blur:
    """Gaussian blur with sigma (pixels) uniform between two values."""

    sigma: tuple[float, float] = (0.1, 2.0)
    prob: float = 0.5


@dataclass(frozen=True)
class ViewRecipe:
    """How one view, or several of a kind, are augmented after their crop.

    The defaults are those of SimCLR and MoCo v2 as this project's configs have them.

    Args:
        size (int | tuple[int, int], optional): Side, or height and width, that the loader's crops
            must have, pixels. Defaults to None: not checked.
        num_views (int): Views of this kind. Defaults to 1.
        jitter (dict | ColourJitter, optional): Arguments of :class:`ColourJitter`; None for none.
        grey (float): Probability of greyscale. Defaults to 0.2.
        blur (dict | Blur, optional): Arguments of :class:`Blur`; None for none.
        flip (float): Probability of a horizontal flip. Defaults to 0.5.

    Raises:
        ValueError: If a probability or strength is out of range.
    """

    # Of the types that __post_init__ makes of what configs hold.
    size: tuple[int, ...] | None = None
    num_views: int = 1
    jitter: ColourJitter | None = ColourJitter()
    grey: float = 0.2
    blur: Blur | None = Blur()
    flip: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, 'jitter', _build(ColourJitter, self.jitter, 'jitter'))
        object.__setattr__(self, 'blur', _build(Blur, self.blur, 'blur'))
        if isinstance(self.size, int):
            object.__setattr__(self, 'size', (self.size, self.size))
        elif self.size is not None:
            object.__setattr__(self, 'size', tuple(self.size))
        if not isinstance(self.num_views, int) or self.num_views < 1:
            raise ValueError(f'num_views of a view must be at least 1, not {self.num_views!r}.')
        probabilities = dict(grey=self.grey, flip=self.flip)
        if self.jitter is not None:
            probabilities['jitter.prob'] = self.jitter.prob
            for name in ('brightness', 'contrast', 'saturation'):
                if not getattr(self.jitter, name) >= 0:
                    raise ValueError(f'jitter.{name} must not be negative: '
                                     f'{getattr(self.jitter, name)!r}.')
            if not 0 <= self.jitter.hue <= 0.5:
                raise ValueError('jitter.hue is a share of a full turn, 0 to 0.5, not '
                                 f'{self.jitter.hue!r}.')
        if self.blur is not None:
            probabilities['blur.prob'] = self.blur.prob
            low, high = self.blur.sigma
            if not 0 < low <= high:
                raise ValueError('blur.sigma must be two numbers of pixels above 0 in order, not '
                                 f'{self.blur.sigma!r}.')
        for name, value in probabilities.items():
            if not 0 <= value <= 1:
                raise ValueError(f'{name} is a probability, 0 to 1, not {value!r}.')

    @classmethod
    def from_config(cls, config: Mapping | ViewRecipe) -> ViewRecipe:
        """Build one from an entry of ``views``."""
        recipe = _build(cls, config, 'views')
        if recipe is None:
            raise ValueError('an entry of views is None: give a dict, empty for the defaults.')
        return recipe

    def without_colour(self) -> ViewRecipe:
        """The same for images that are not RGB: neither hue, saturation nor greyscale."""
        jitter = self.jitter
        if jitter is not None:
            jitter = dataclasses.replace(jitter, saturation=0., hue=0.)
        return dataclasses.replace(self, jitter=jitter, grey=0.)


class Draws(NamedTuple):
    """What was drawn for a batch of B images, as tensors on its device.

    Attributes:
        flip (Tensor): (B,) bool.
        colours (Colours): Of all images; None if the recipe changes none.
        blurred (Tensor): (n,) int64, which images are blurred.
        sigmas (Tensor): (n,) float32, pixels.
        radius (int): Of the blur's kernel.
    """

    flip: Tensor
    colours: Colours | None
    blurred: Tensor
    sigmas: Tensor
    radius: int


def new_generator() -> torch.Generator:
    """A generator that is a function of the state of torch's global one and of the rank.

    The hooks of this project seed the global generator anew from (seed, epoch, rank), and so a
    resumed run draws what the one without interruption did. The rank comes in once more, since
    other trainings seed all processes alike.
    """
    words = torch.empty(2, dtype=torch.int64).random_().numpy()
    seed = np.random.SeedSequence([*words.tolist(), get_rank()]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(seed[0] >> np.uint64(1)))


def draw(recipe: ViewRecipe, num_images: int, device: torch.device,
         generator: torch.Generator) -> Draws:
    """Draw the parameters of a batch.

    On the host, so that they are the same on every device and that the host knows which images are
    blurred without asking the device; one copy from pinned memory brings them over, and nothing
    waits for it.

    Args:
        recipe (ViewRecipe): What to draw from.
        num_images (int): B.
        device (torch.device): Where the tensors go.
        generator (torch.Generator): Of the CPU.
    """
    uniform = torch.rand(num_images, NUM_DRAWS, generator=generator).numpy()
    flip = uniform[:, 0] < recipe.flip
    blur = recipe.blur or Blur(prob=0.)
    blurred = np.flatnonzero(uniform[:, 1] < blur.prob)
    low, high = blur.sigma
    sigmas = low + (high - low) * uniform[blurred, 2]
    tones, hue = _draw_colours(recipe, uniform[:, 3:])
    parts = [tones.ravel(), hue, flip, blurred, sigmas]
    packed = to_device(np.concatenate([part.astype(np.float32) for part in parts]), device)
    tones_, hue_, flip_, blurred_, sigmas_ = packed.split([part.size for part in parts])
    colours = None
    if recipe.jitter is not None or recipe.grey:
        turns_hue = recipe.jitter is not None and recipe.jitter.hue > 0
        gain, grey_share, mean_share = tones_.view(3, num_images, NUM_TONES).unbind()
        colours = Colours(gain, grey_share, mean_share, hue_, turns_hue)
    return Draws(flip_ > 0, colours, blurred_.long(), sigmas_, kernel_radius(high))


def _draw_colours(recipe: ViewRecipe, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (3, B, S) of the tones, and turns (B,) of the hue: see :class:`Colours`."""
    num_images = len(uniform)
    tones = np.zeros((3, num_images, NUM_TONES), dtype=np.float32)
    gain, grey_share, mean_share = tones
    gain[:] = 1
    hue = np.zeros(num_images, dtype=np.float32)
    is_grey = uniform[:, 0] < recipe.grey
    gain[is_grey, -1], grey_share[is_grey, -1] = 0, 1
    if recipe.jitter is None:
        return tones, hue
    jitter = recipe.jitter
    jittered = np.flatnonzero(uniform[:, 1] < jitter.prob)
    uniform = uniform[jittered]
    # Place of each operation in the image's own order.
    places = np.argsort(np.argsort(uniform[:, 2:6], axis=1), axis=1)  # (b, 4)
    after_hue = places > places[:, HUE:]
    slots = np.where(after_hue, TONES_BEFORE_HUE + places - places[:, HUE:] - 1, places)
    factors = []
    for i, strength in enumerate((jitter.brightness, jitter.contrast, jitter.saturation)):
        lowest = max(0., 1 - strength)
        factors.append(lowest + (1 + strength - lowest) * uniform[:, 6 + i])
        gain[jittered, slots[:, i]] = factors[i]
    mean_share[jittered, slots[:, CONTRAST]] = 1 - factors[CONTRAST]
    grey_share[jittered, slots[:, SATURATION]] = 1 - factors[SATURATION]
    hue[jittered] = jitter.hue * (2 * uniform[:, 9] - 1)
    return tones, hue


def _build(kind: Any, config: Any, name: str) -> Any:
    if config is None or isinstance(config, kind):
        return config
    known = [field.name for field in dataclasses.fields(kind)]
    if not isinstance(config, Mapping):
        raise ValueError(f'{name} must be a dict of {known}, not {config!r}.')
    unknown = sorted(set(config) - set(known) - {'_scope_'})
    if unknown:
        raise ValueError(f'{name} does not know {unknown}: choose from {known}.')
    return kind(**{key: value for key, value in config.items() if key in known})
