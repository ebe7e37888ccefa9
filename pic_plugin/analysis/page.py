# SPDX-License-Identifier: Apache-2.0
"""One HTML file that needs nothing else: figures, tables and a map to look around in.

A section is a list of parts, dicts that the functions here make and ``data/report.html.jinja``
turns into HTML.
"""
from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

import cv2
import numpy as np

from pic_plugin.analysis.embedding import group_styles
from pic_plugin.analysis.style import png_bytes, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DATA = Path(__file__).resolve().parents[1] / 'data'
THUMB = 48  # pixels of a picture in the map
COLUMNS = 32  # of pictures in the map's sheet, at least


class Section(NamedTuple):
    """A part of the page.

    Attributes:
        name (str): Short, of letters and digits, for links to it.
        title (str): Heading.
        parts (Sequence[dict]): Figures, tables and so on.
    """

    name: str
    title: str
    parts: Sequence[dict[str, Any]]


def build_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The file's content; nothing in it refers to another file or address."""
    return render('report.html.jinja', title=title, subtitle=subtitle, sections=sections)


def render(template: str, **values: Any) -> str:
    """HTML out of a template in ``data/``.

    Raises:
        ModuleNotFoundError: If jinja2 is not installed, with the command that installs it.
    """
    require('jinja2')
    import jinja2
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(DATA), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.get_template(template).render(values).strip() + '\n'


def data_uri(content: bytes, kind: str) -> str:
    """A picture of the ``kind`` 'png' or 'jpeg' as an address that holds all of it."""
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'


def figure(draw: Callable[[], Figure], description: str, caption: str,
           drawn: Figure | None = None) -> dict[str, Any]:
    """A figure for light and dark pages, which opens in full size.

    Args:
        draw (Callable[[], Figure]): Makes it in the style that is set.
        description (str): What is seen in it, for those who do not see it.
        caption (str): What stands under it.
        drawn (Figure, optional): The light one, if it has been drawn.
    """
    light = png_bytes(draw if drawn is None else lambda: drawn)
    return dict(kind='figure', light=data_uri(light, 'png'),
                dark=data_uri(png_bytes(draw, dark=True), 'png'), description=description,
                caption=caption)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], summary: str) -> dict[str, Any]:
    """A table that unfolds under ``summary``."""
    return dict(kind='table', header=header, rows=[[_text(cell) for cell in row] for row in rows],
                summary=summary)


def _text(cell: Any) -> str:
    return '' if cell is None else f'{cell:.4g}' if isinstance(cell, float) else str(cell)


def missing(reason: str) -> dict[str, Any]:
    """Instead of a figure that cannot be drawn."""
    return dict(kind='missing', text=reason)


def verdict(level: str, name: str, text: str, explanation: str) -> dict[str, Any]:
    """What a number means: 'bad', 'notice' or 'good', and what the documentation says of it."""
    return dict(kind='verdict', level=level, name=name, text=text, help=explanation)


def paragraph(text: str) -> dict[str, Any]:
    """Plain text."""
    return dict(kind='paragraph', text=text)


def picture_map(points: np.ndarray, groups: Sequence[str], names: Sequence[str],
                pictures: Sequence[np.ndarray]) -> dict[str, Any]:
    """A map of points; a point under the pointer or chosen by arrow keys shows its picture.

    Args:
        points (np.ndarray): (n, 2) in [0, 1].
        groups (Sequence[str]): (n,) label or cluster.
        names (Sequence[str]): (n,).
        pictures (Sequence[np.ndarray]): (n,) of (THUMB, THUMB, 3) uint8, BGR.
    """
    # Arrow keys go from group to group.
    order = sorted(range(len(groups)), key=lambda i: (groups[i], points[i, 0]))
    # JPEG ends at 65,500 pixels: the sheet grows in both directions.
    columns = max(COLUMNS, math.isqrt(len(order)))
    rows = -(-len(order) // columns)
    sheet = np.zeros((rows, THUMB, columns, THUMB, 3), dtype=np.uint8)
    for place, i in enumerate(order):
        sheet[place // columns, :, place % columns] = pictures[i]
    done, encoded = cv2.imencode('.jpg', sheet.reshape(rows * THUMB, columns * THUMB, 3))
    if not done:
        raise RuntimeError('OpenCV cannot write JPEG.')
    styles = group_styles(groups)
    return dict(
        kind='map', key=[(name, *style) for name, style in styles.items()],
        sprite=data_uri(encoded.tobytes(), 'jpeg'),
        dots=[(points[i, 0], 1 - points[i, 1], *styles[groups[i]]) for i in order],
        data=dict(columns=columns, rows=rows, groups=[groups[i] for i in order],
                  names=[names[i] for i in order]))
