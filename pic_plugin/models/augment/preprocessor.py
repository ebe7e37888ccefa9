# SPDX-License-Identifier: Apache-2.0
"""AugmentPreprocessor: augmentation on the device, and normalisation."""
from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Callable

import torch
from mmengine.logging import print_log
from mmengine.model import BaseDataPreprocessor
from mmpretrain.registry import MODELS
from torch import Tensor

from pic_plugin.datasets.decode_random_crop import is_of_uint8
from pic_plugin.models.augment.blur import gaussian_blur
from pic_plugin.models.augment.colour import Colours, change_colours, change_colours_in_two_sweeps
from pic_plugin.models.augment.recipe import Draws, ViewRecipe, draw, new_generator

UINT8_RANGE = (0., 255.)
CACHED_NUMBERS = 600_000  # float32: 2.4 MB, and a few temporaries of a third each


@MODELS.register_module()
class AugmentPreprocessor(BaseDataPreprocessor):
    """Augments and normalises whole batches on the device, each image in its own way.

    Takes the place of mmpretrain's ``SelfSupDataPreprocessor``. The loader delivers crops as they
    were read, uint8 as a rule (``DecodeRandomCrop``); in training each view gets flip, colour
    jitter in random order, greyscale, and Gaussian blur, with the probabilities of its
    recipe. In evaluation images are only normalised.

    The distribution is that of torchvision's ``ColorJitter``, ``RandomGrayscale`` and
    ``GaussianBlur``. Everything is float32 in [0, 1] until it is normalised, under autocast too;
    nothing is rounded to 256 levels in between, where torchvision on uint8 truncates after each
    operation. Random numbers are a function of the state of torch's global CPU generator and of
    the rank: see :func:`pic_plugin.models.augment.recipe.new_generator`.

    Args:
        mean (Sequence[float], optional): Of each channel after ``to_rgb``, in the units of the
            pixels (0 to 255 for uint8). Defaults to None, no normalisation.
        std (Sequence[float], optional): The same for the standard deviation.
        to_rgb (bool): Swap BGR, the order of OpenMMLab's loaders, to RGB. For images of three
            channels. Defaults to False.
        channels_last (bool): Views in torch's ``channels_last`` memory format, which convolutions
            on a GPU prefer; the model is brought into it before the first batch. Defaults to False.
        views (dict | Sequence[dict], optional): Recipes, arguments of
            :class:`~pic_plugin.models.augment.recipe.ViewRecipe`, in the order in which the loader
            delivers the views. Defaults to None: one recipe with its defaults for all views.
        value_range (tuple[float, float], optional): Pixel values that count as black and white,
            for images that are not uint8; what lies beyond is cut off, and NaN is black. Defaults
            to None: 0 to 255, and uint8 alone is accepted. With another range, uint8 is not.
        compile (bool): Fuse the colour operations with ``torch.compile``. Pays on a GPU; where
            compiling fails a warning says so and they run as they are. Defaults to False.
        non_blocking (bool): Copy to the device without waiting. Defaults to True.

    Raises:
        ValueError: If a setting is out of range.
    """

    mean: Tensor
    std: Tensor

    def __init__(self,
                 mean: Sequence[float] | None = None,
                 std: Sequence[float] | None = None,
                 to_rgb: bool = False,
                 channels_last: bool = False,
                 views: Mapping | Sequence[Mapping] | None = None,
                 value_range: tuple[float, float] | None = None,
                 compile: bool = False,
                 non_blocking: bool = True) -> None:
        super().__init__(non_blocking)
        if (mean is None) != (std is None):
            raise ValueError('mean and std go together: give both or neither.')
        mean, std = mean or (0., ), std or (1., )
        if len(mean) != len(std) or not min(std) > 0:
            raise ValueError('mean and std need one number for each channel, and std numbers above '
                             f'0, not mean={list(mean)}, std={list(std)}.')
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), False)
        self.to_rgb = to_rgb
        self.channels_last = channels_last
        self.value_range = None if value_range is None else tuple(map(float, value_range))
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f'value_range must be (black, white) in order, not {value_range}.')
        # One recipe for as many views as come, or a recipe for each.
        self.any_number = views is None
        entries = [{}] if views is None else [views] if isinstance(views, Mapping) else views
        recipes = [ViewRecipe.from_config(view) for view in entries]
        if not recipes:
            raise ValueError('views is empty: leave it out for the default recipe.')
        self.recipes = [recipe for recipe in recipes for _ in range(recipe.num_views)]
        self._compile = compile
        self._change_colours: Callable[[Tensor, Colours], Tensor] = (
            self._compiled() if compile else change_colours)
        self._said = False

    # In the middle of mmengine's compiled training step: draws are NumPy's, and not to be traced.
    @torch.compiler.disable
    def forward(self, data: Mapping, training: bool = False) -> dict:
        """Augment (in training) and normalise.

        Args:
            data (dict): ``inputs``, a view (B, C, H, W) or a list of such, and ``data_samples``.
            training (bool): Whether to augment. Defaults to False.

        Returns:
            dict: ``inputs``, in training a list of views (B, C, H, W) float32, in evaluation what
            came, normalised; and ``data_samples``.

        Raises:
            TypeError: If pixels are not uint8 and no range is declared, or uint8 and one is.
            ValueError: If views are not as declared.
        """
        inputs = data['inputs']
        came_as_list = isinstance(inputs, (list, tuple))
        views = inputs if came_as_list else [inputs]
        for i, view in enumerate(views):
            self._check_pixels(view, i)
        views = [view.to(self.device, non_blocking=self._non_blocking) for view in views]
        # Runs inside the autocast of the training step.
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            if not training:
                outputs = [self._normalise(self._unit(view)) for view in views]
                inputs = outputs if came_as_list else outputs[0]
            else:
                recipes = self._recipes_of(views)
                generator = new_generator()
                inputs = [self._augment(view, recipe, generator)
                          for view, recipe in zip(views, recipes)]
        return dict(inputs=inputs, data_samples=self._cast_samples(data.get('data_samples')))

    def _augment(self, view: Tensor, recipe: ViewRecipe, generator: torch.Generator) -> Tensor:
        """(B, C, H, W) as it came -> normalised."""
        if view.shape[1] != 3:
            recipe = recipe.without_colour()
        draws = draw(recipe, len(view), view.device, generator)
        return self._normalise(self.augment(view, draws))

    def augment(self, view: Tensor, draws: Draws) -> Tensor:
        """Augment a view with given parameters.

        Args:
            view (Tensor): (B, C, H, W), pixels as the loader delivers them.
            draws (Draws): Of B images.

        Returns:
            Tensor: (B, C, H, W) float32 in [0, 1], RGB if ``to_rgb``; not normalised.
        """
        if view.dtype != torch.uint8:
            view = view.to(torch.float32)  # torch has few operations on uint16
        # First, while a pixel is one byte; it commutes with all that follows.
        view = torch.where(draws.flip[:, None, None, None], view.flip(-1), view)
        images = self._unit(view)
        if draws.colours is not None:
            images = self._recolour(images, draws.colours)
        if len(draws.blurred):
            picked = gaussian_blur(images[draws.blurred], draws.sigmas, draws.radius)
            images = images.index_copy(0, draws.blurred, picked)
        return images

    def _recolour(self, images: Tensor, colours: Colours) -> Tensor:
        if images.device.type != 'cpu' or self._compile:
            return self._change_colours(images, colours)
        # On a CPU some images at a time, which stay in its cache: half the time at 224x224.
        step = max(1, CACHED_NUMBERS // images[0].numel())
        parts = []
        for i in range(0, len(images), step):
            some = [part[i:i + step] for part in colours[:4]]
            parts.append(self._change_colours(
                images[i:i + step], Colours(some[0], some[1], some[2], some[3],
                                            colours.turns_hue)))
        return torch.cat(parts)

    def _unit(self, view: Tensor) -> Tensor:
        """Pixels as they came (B, C, H, W) -> float32 in [0, 1], RGB."""
        if self.to_rgb and view.shape[1] == 3:
            view = view.flip(1)
        low, high = self.value_range or UINT8_RANGE
        images = view.to(torch.float32)
        if self.value_range is None:
            return images.div_(255)  # uint8: a new tensor, and none of it out of range
        return ((images - low) / (high - low)).nan_to_num_().clamp_(0, 1)

    def _normalise(self, images: Tensor) -> Tensor:
        """float32 in [0, 1] (B, C, H, W) -> normalised, in the memory format that was asked for."""
        low, high = self.value_range or UINT8_RANGE
        scale, shift = (high - low) / self.std, (low - self.mean) / self.std
        images = torch.addcmul(shift, images, scale)
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else (
            images)

    def _recipes_of(self, views: list[Tensor]) -> list[ViewRecipe]:
        """The recipe of each view."""
        recipes = self.recipes * len(views) if self.any_number else self.recipes
        if len(recipes) != len(views):
            raise ValueError(
                f'the loader delivers {len(views)} views, and AugmentPreprocessor(views=...) '
                f'declares {len(recipes)}: give one entry for each, in the order of MultiView.')
        for i, (view, recipe) in enumerate(zip(views, recipes)):
            if recipe.size is not None and tuple(view.shape[2:]) != recipe.size:
                raise ValueError(
                    f'view {i} is {view.shape[2]}x{view.shape[3]} pixels (height x width), and '
                    f'AugmentPreprocessor(views=...) declares {recipe.size[0]}x{recipe.size[1]}: '
                    'give the crop in the pipeline that size, or declare the other.')
        if not self._said and any(view.shape[1] != 3 for view in views):
            print_log(f'Images of {views[0].shape[1]} channels: AugmentPreprocessor leaves out '
                      'hue, saturation and greyscale, which are defined for RGB alone.',
                      logger='current')
            self._said = True
        return recipes

    def _check_pixels(self, view: Tensor, index: int) -> None:
        if not torch.is_tensor(view) or view.dim() != 4:
            seen = tuple(view.shape) if torch.is_tensor(view) else type(view).__name__
            raise ValueError(f'view {index} is {seen}, expected a tensor (B, C, H, W): set '
                             "collate_fn=dict(type='default_collate') and give all images of a "
                             'view one size.')
        channels, declared = view.shape[1], self.mean.shape[0]
        if declared not in (1, channels):
            raise ValueError(f'view {index} has {channels} channels, and AugmentPreprocessor has '
                             f'mean and std of {declared}: give one number for each channel, or '
                             'one for all.')
        if view.dtype == torch.uint8:
            if not is_of_uint8(self.value_range):
                raise TypeError(
                    f'view {index} is uint8, and value_range={self.value_range} is for images of '
                    'another depth: leave value_range out, or read the images in their own depth '
                    "with DecodeRandomCrop(depth='own').")
        elif self.value_range is None:
            raise TypeError(
                f'view {index} is {str(view.dtype).replace("torch.", "")}, and AugmentPreprocessor '
                'expects uint8: leave out what turns pixels to float on the host (Normalize, '
                'to_float32=True), or declare value_range=(black, white) for images of another '
                'depth.')

    def _cast_samples(self, samples: Any) -> Any:
        """Move what holds tensors; a training's samples hold their id alone, and stay."""
        if not isinstance(samples, (list, tuple)):
            return self.cast_data(samples)
        return [sample if hasattr(sample, 'keys') and not sample.keys() else self.cast_data(sample)
                for sample in samples]

    def _compiled(self) -> Callable[[Tensor, Colours], Tensor]:
        compiled: Any = torch.compile(change_colours_in_two_sweeps)

        def run(images: Tensor, colours: Colours) -> Tensor:
            try:
                return compiled(images, colours)
            except Exception as error:
                # Missing compilers and unsupported devices surface as errors of many types.
                print_log('AugmentPreprocessor(compile=True): torch.compile failed, colours run '
                          f'uncompiled: {type(error).__name__}: {str(error)[:300]}',
                          logger='current', level=logging.WARNING)
                self._change_colours = change_colours
                return change_colours(images, colours)

        return run
