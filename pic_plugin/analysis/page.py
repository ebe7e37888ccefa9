# SPDX-License-Identifier: Apache-2.0
"""One HTML file that needs nothing else: figures, tables and a map to look around in."""
from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, List, NamedTuple

import cv2
import numpy as np

from pic_plugin.analysis.embedding import group_styles
from pic_plugin.analysis.style import png_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ASSETS = Path(__file__).resolve().parent.parent / 'data'
THUMB = 48  # pixels of a picture in the map
COLUMNS = 32


class Section(NamedTuple):
    """A part of the page.

    Attributes:
        name (str): Short, of letters and digits, for links to it.
        title (str): Heading.
        body (str): HTML.
    """

    name: str
    title: str
    body: str


def build_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The file's content; nothing in it refers to another file or address.

    Args:
        title (str): Plain text.
        subtitle (str): Plain text.
        sections (Sequence[Section]): In their order.
    """
    links = ''.join(f'<li><a href="#{one.name}">{html.escape(one.title)}</a></li>'
                    for one in sections)
    parts = ''.join(f'<section aria-labelledby="{one.name}"><h2 id="{one.name}">'
                    f'{html.escape(one.title)}</h2>\n{one.body}\n</section>\n' for one in sections)
    return f'''<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{_asset("report.css")}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the figures</a>
<header><h1>{html.escape(title)}</h1><p class="note">{html.escape(subtitle)}</p>
<nav aria-label="Sections"><ul>{links}</ul></nav></header>
<main id="main">
{parts}</main>
<dialog aria-label="Figure in full size"><button class="plain">Close</button>
<div class="large" tabindex="0"><img alt="" src="data:,"></div></dialog>
<script>
{_asset("report.js")}</script>
</body>
</html>
'''


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding='utf-8')


def _data_uri(content: bytes, kind: str) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'


def figure_html(draw: Callable[[], Figure], description: str, caption: str) -> str:
    """A figure for light and dark pages, which opens in full size.

    Args:
        draw (Callable): Makes it.
        description (str): What it shows, for those who do not see it.
        caption (str): Below it.
    """
    light, dark = (_data_uri(png_bytes(draw, dark), 'png') for dark in (False, True))
    return (f'<figure><button class="zoom" aria-haspopup="dialog"><picture><source '
            f'media="(prefers-color-scheme: dark)" srcset="{dark}"><img src="{light}" '
            f'alt="{html.escape(description)}"></picture></button>'
            f'<figcaption>{html.escape(caption)}</figcaption></figure>')


def table_html(header: Sequence[str], rows: Sequence[Sequence[Any]], summary: str) -> str:
    """A table that unfolds under ``summary``."""
    head = ''.join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    body = ''.join('<tr>' + ''.join(f'<td>{html.escape(_text(cell))}</td>' for cell in row)
                   + '</tr>' for row in rows)
    return (f'<details><summary>{html.escape(summary)}</summary><div class="scroll" tabindex="0">'
            f'<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>')


def _text(cell: Any) -> str:
    return '' if cell is None else f'{cell:.4g}' if isinstance(cell, float) else str(cell)


def missing_html(reason: str) -> str:
    """Instead of a figure that cannot be drawn."""
    return f'<p class="missing">Not drawn: {html.escape(reason)}</p>'


def paragraph_html(text: str) -> str:
    """Plain text."""
    return f'<p>{html.escape(text)}</p>'


def map_html(points: np.ndarray, groups: Sequence[str], names: Sequence[str],
             pictures: Sequence[np.ndarray]) -> str:
    """A map of points; a point under the pointer or chosen by arrow keys shows its picture.

    Args:
        points (np.ndarray): (n, 2) in [0, 1].
        groups (Sequence[str]): (n,) label or cluster.
        names (Sequence[str]): (n,).
        pictures (Sequence[np.ndarray]): (n,) of (48, 48, 3) uint8, BGR.
    """
    # Arrow keys go from group to group.
    order = sorted(range(len(groups)), key=lambda i: (groups[i], points[i, 0]))
    rows = -(-len(order) // COLUMNS)
    sheet = np.zeros((rows, THUMB, COLUMNS, THUMB, 3), dtype=np.uint8)
    for place, i in enumerate(order):
        sheet[place // COLUMNS, :, place % COLUMNS] = pictures[i]
    done, encoded = cv2.imencode('.jpg', sheet.reshape(rows * THUMB, COLUMNS * THUMB, 3))
    if not done:
        raise RuntimeError('OpenCV cannot write JPEG.')
    styles = group_styles(groups)
    circles = ''.join(
        f'<circle cx="{points[i, 0]:.4f}" cy="{1 - points[i, 1]:.4f}" r="0.009" '
        f'fill="{styles[groups[i]][0]}"/>' for i in order)
    key = ''.join(f'<li><span style="background:{colour}"></span>{html.escape(name)}</li>'
                  for name, (colour, _) in styles.items())
    data = json.dumps(dict(columns=COLUMNS, rows=rows, groups=[groups[i] for i in order],
                           names=[names[i] for i in order])).replace('<', '\\u003c')
    return (f'<div class="map"><p class="note">Point at or touch a dot to see its picture; with '
            f'the keyboard, arrows go from dot to dot, + and - zoom.</p>'
            f'<button class="plain in" aria-label="Zoom in">+</button> '
            f'<button class="plain out" aria-label="Zoom out">&minus;</button>'
            f'<svg viewBox="-0.03 -0.03 1.06 1.06" tabindex="0" role="application" '
            f'aria-label="Map of {len(order)} pictures">{circles}</svg>'
            f'<ul class="key">{key}</ul>'
            f'<div class="tip" hidden><div class="thumb"></div><div class="name"></div></div>'
            f'<div aria-live="polite" class="skip"></div>'
            f'<img class="sprite" hidden alt="" src="{_data_uri(encoded.tobytes(), "jpeg")}">'
            f'<script type="application/json">{data}</script></div>')


def thumbnails(pictures: np.ndarray) -> List[np.ndarray]:
    """(B, side, side, 3) uint8 -> B pictures of (48, 48, 3)."""
    return [cv2.resize(picture, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
            for picture in pictures]
