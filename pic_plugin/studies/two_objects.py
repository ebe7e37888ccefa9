# SPDX-License-Identifier: Apache-2.0
"""Pictures of two objects, put together from two, and how evenly a network looks at both."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pic_plugin.analysis.images import Images, square
from pic_plugin.analysis.network import Network
from pic_plugin.analysis.overlap import mean_and_error
from pic_plugin.analysis.saliency_comparison import make_panels
from pic_plugin.analysis.saliency_figure import draw_maps
from pic_plugin.analysis.saliency_study import measure, occlusion
from pic_plugin.analysis.style import write_figure
from pic_plugin.files import write_csv, write_json

GREY = 127


class PairedImages(Images):
    """Two pictures of different classes side by side on grey.

    A picture is ``2 * side`` pixels wide and high; the two lie in its middle, left and right.

    Args:
        images (Images): With labels, or any two pictures are paired.
        side (int): Pixels of each of the two.
        count (int): Pairs, drawn without telling classes apart otherwise.
        seed (int): Same pictures, count and seed, same pairs. Defaults to 0.

    Raises:
        ValueError: If there is no pair.
    """

    def __init__(self, images: Images, side: int, count: int, seed: int = 0) -> None:
        labels = images.labels or images.names
        if len(set(labels)) < 2:
            raise ValueError('two objects need pictures of two classes, or two without labels: '
                             'give more pictures.')
        generator = np.random.default_rng(seed)
        self.pairs: list[tuple[int, int]] = []
        while len(self.pairs) < count:
            first, second = generator.integers(len(labels), size=2).tolist()
            if labels[first] != labels[second]:
                self.pairs.append((first, second))
        self.images, self.side = images, side
        super().__init__([f'{images.names[first]} + {images.names[second]}'
                          for first, second in self.pairs], None)

    def read(self, index: int) -> np.ndarray:
        """See :meth:`Images.read`."""
        side = self.side
        canvas = np.full((2 * side, 2 * side, 3), GREY, dtype=np.uint8)
        for place, picture in enumerate(self.pairs[index]):
            canvas[side // 2:side // 2 + side, place * side:(place + 1) * side] = square(
                self.images.read(picture), side)
        return canvas


def balance(maps: Tensor) -> Tensor:
    """How evenly saliency is spread over the left and right picture.

    That of the grey above and below is left out: a network that is moved by patches there would
    seem to look at both.

    Args:
        maps (Tensor): (B, H, W), not negative, of :class:`PairedImages`.

    Returns:
        Tensor: (B,) float64: 1 if both pictures have the same, 0 if one has all; NaN for a map that
        is zero on both.
    """
    grey, half = maps.shape[1] // 4, maps.shape[2] // 2
    pictures = maps[:, grey:maps.shape[1] - grey].double()
    sides = torch.stack([pictures[:, :, :half].sum(dim=(1, 2)),
                         pictures[:, :, -half:].sum(dim=(1, 2))])
    return 2 * sides.amin(dim=0) / sides.sum(dim=0)


def compare_balance(networks: Sequence[Network], names: Sequence[str], pairs: PairedImages,
                    batch_size: int, out: Path, show: int) -> dict[str, dict[str, Any]]:
    """Measure the balance of all pairs and write two_objects.csv, .json, .png and .svg.

    Args:
        networks (Sequence[Network]): Networks.
        names (Sequence[str]): Of the networks.
        pairs (PairedImages): Pictures of two objects.
        batch_size (int): Images in one forward pass.
        out (Path): Folder, made if it is not there.
        show (int): Pairs in the figure.

    Returns:
        dict[str, dict]: Mean and standard error of each network.
    """
    # A patch as for single pictures, which are half as wide; halves need no finer stride.
    patch = occlusion(pairs.side).patch
    settings = occlusion(2 * pairs.side, patch, max(1, patch // 2), batch_size)
    measured = measure(networks, pairs, range(len(pairs)), settings)
    balances = torch.stack([balance(settings.maps(one)) for one in measured.distances], dim=1)
    write_csv(out / 'two_objects.csv', ['pair', *names],
              [[pairs.names[index], *row]
               for index, row in zip(measured.indices, balances.tolist())])
    summary = {name: _mean(balances[:, place]) for place, name in enumerate(names)}
    differences = {name: _mean(balances[:, place] - balances[:, 0])
                   for place, name in enumerate(names) if place}
    write_json(out / 'two_objects.json', dict(
        balance=summary, difference_to_first=differences, settings=settings._asdict()))
    panels = make_panels(pairs, measured, settings, range(min(show, len(measured.indices))))
    write_figure(lambda: draw_maps(panels, names), out / 'two_objects')
    return summary


def _mean(values: Tensor) -> dict[str, Any]:
    mean, error = (None if value is None else round(value, 6) for value in mean_and_error(values))
    return dict(pairs=int((~values.isnan()).sum()), mean=mean, standard_error=error)
