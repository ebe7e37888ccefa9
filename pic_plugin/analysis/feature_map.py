# SPDX-License-Identifier: Apache-2.0
"""A map of features as a figure, a table, and a page that shows the picture under the pointer."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from pic_plugin.analysis.embedding import draw_embedding, embed, groups_of
from pic_plugin.analysis.features import Features
from pic_plugin.analysis.images import Images
from pic_plugin.analysis.page import THUMB, Section, build_page, picture_map
from pic_plugin.analysis.style import write_figure
from pic_plugin.files import write_atomically, write_csv
from pic_plugin.wording import counted


def make_map(features: Features, images: Images, out: Path, method: str = 'tsne',
             clusters: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Place features in the plane, and write embedding.csv, .png and .svg to ``out``.

    See :func:`embed` for ``method`` and ``seed``, and :func:`groups_of` for ``clusters``.

    Returns:
        dict: The map as a part of a page.

    Raises:
        ModuleNotFoundError: If the method's library is not installed.
    """
    points = embed(features.values.numpy(), method, seed)
    groups = groups_of(features, images, clusters, seed)
    names = [images.names[index] for index in features.indices]
    write_csv(out / 'embedding.csv', ['image', 'group', 'x', 'y'],
              [[name, group, *point] for name, group, point in zip(names, groups, points.tolist())])
    write_figure(lambda: draw_embedding(points, groups), out / 'embedding')
    pictures = [picture for _, batch in images.shown(features.indices, THUMB, 64)
                for picture in batch]
    return picture_map(points, groups, names, pictures)


def write_map(features: Features, images: Images, out: Path, subtitle: str, method: str,
              clusters: int | None, seed: int) -> None:
    """Write what :func:`make_map` does, and embedding.html."""
    part = make_map(features, images, out, method, clusters, seed)
    section = Section('map', counted(len(features.indices), 'picture'), [part])
    write_atomically(out / 'embedding.html', build_page('Map of features', subtitle, [section]))
