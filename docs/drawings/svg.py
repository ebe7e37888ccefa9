# SPDX-License-Identifier: Apache-2.0
"""The few shapes that the drawings of the documentation are made of, as SVG text."""
from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

INK, PALE, RULE = '#1f2933', '#5d6873', '#cfd6dd'
BLUE, ORANGE, GREEN = '#0072b2', '#d55e00', '#009e73'  # told apart by colour-blind readers too
LIGHT = {BLUE: '#d6e8f3', ORANGE: '#fae3d3', GREEN: '#d3efe6', RULE: '#eef1f4'}


class Drawing:
    """Shapes on a white card, in the order in which they were added.

    Args:
        width (int): Pixels.
        height (int): Pixels.
        title (str): What a screen reader says.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self.size, self.title = (width, height), title
        self.shapes: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, fill: str = '#ffffff',
            line: str = RULE, radius: float = 4) -> None:
        """Rectangle with round corners."""
        self.shapes.append(f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" '
                           f'rx="{radius:g}" fill="{fill}" stroke="{line}"/>')

    def text(self, x: float, y: float, words: str, size: int = 14, colour: str = INK,
             anchor: str = 'start', bold: bool = False) -> None:
        """One line; ``anchor`` is start, middle or end."""
        weight = ' font-weight="600"' if bold else ''
        self.shapes.append(f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" '
                           f'text-anchor="{anchor}"{weight}>{escape(words)}</text>')

    def line(self, points: Sequence[tuple[float, float]], colour: str = INK, width: float = 1.5,
             dashes: str = '', arrow: bool = False) -> None:
        """Straight pieces through points, with a head at the end if ``arrow``."""
        path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in points)
        extra = f' stroke-dasharray="{dashes}"' if dashes else ''
        self.shapes.append(f'<polyline points="{path}" fill="none" stroke="{colour}" '
                           f'stroke-width="{width:g}" stroke-linejoin="round"{extra}/>')
        if arrow:
            self._head(points[-2], points[-1], colour)

    def dot(self, x: float, y: float, colour: str, radius: float = 4) -> None:
        """Filled circle."""
        self.shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{colour}"/>')

    def _head(self, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
        (x0, y0), (x, y) = start, end
        length = ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5
        along, across = ((x - x0) / length, (y - y0) / length), 4.5
        back = (x - 9 * along[0], y - 9 * along[1])
        corners = [(x, y), (back[0] - across * along[1], back[1] + across * along[0]),
                   (back[0] + across * along[1], back[1] - across * along[0])]
        path = ' '.join(f'{a:.1f},{b:.1f}' for a, b in corners)
        self.shapes.append(f'<polygon points="{path}" fill="{colour}"/>')

    def render(self) -> str:
        """The file's text."""
        width, height = self.size
        return '\n'.join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" '
            'font-family="Helvetica, Arial, sans-serif">',
            f'<title>{escape(self.title)}</title>',
            f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
            *self.shapes, '</svg>', ''])
