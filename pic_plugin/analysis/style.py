# SPDX-License-Identifier: Apache-2.0
"""How figures look, and how they are written: light or dark, for the screen and for papers."""
from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COMMON = {
    'font.size': 9, 'axes.titlesize': 10, 'axes.grid': True, 'axes.axisbelow': True,
    'grid.alpha': 0.3,
    'axes.spines.top': False, 'axes.spines.right': False, 'legend.frameon': False,
    # The same data give the same file.
    'svg.hashsalt': 'pic_plugin',
    # Text stays text in an SVG: it can be searched and read aloud.
    'svg.fonttype': 'none',
    # Names of classes and files are no formulas, whatever dollars are in them.
    'text.parse_math': False,
}
# The first eight differ for colour-blind readers too (Okabe and Ito), on white and on black.
COLOURS = ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#56B4E9', '#D55E00', '#B8A800', '#888888',
           '#7B4FD0', '#8C510A', '#00B5AD', '#E0218A')
_DARK = '#15181c'


def require(name: str) -> None:
    """Look for a library of the extra ``analysis``.

    Raises:
        ModuleNotFoundError: If it is not installed, with the command that installs it.
    """
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name} is not installed: pip install 'pic_plugin[analysis]' brings it.",
            name=name) from error


@contextmanager
def styled(dark: bool = False) -> Iterator[None]:
    """Figures that are made in this context have the house style.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
    """
    require('matplotlib')
    from cycler import cycler
    from matplotlib import style
    base = ['dark_background'] if dark else []
    colours = {f'{what}.facecolor': _DARK for what in ('figure', 'axes', 'savefig')} if dark else {}
    cycle = {'axes.prop_cycle': cycler('color', COLOURS)}
    with style.context([*base, {**_COMMON, **colours, **cycle}]):
        yield


def subplots(width: float, height: float, *shape: int, **options: Any) -> tuple[Figure, Any]:
    """A figure of so many inches with its axes, for a context of :func:`styled`."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout='constrained')
    return figure, figure.subplots(*shape, **options)


def legend(owner: Any, handles: Sequence[Any], names: Sequence[str], **options: Any) -> Any:
    """A legend of a figure or its axes with any names: matplotlib drops those that begin with _."""
    made = owner.legend(handles, [str(place) for place in range(len(names))], **options)
    for text, name in zip(made.get_texts(), names):
        text.set_text(name)
    return made


def hide_axes(axes: Any) -> None:
    """For pictures and maps: no ticks, grid and frame (which can be shown again)."""
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def write_figure(draw: Callable[[], Figure], out: Path) -> Figure:
    """Draw a figure and write it as ``out`` with .png, for the screen, and .svg, for papers."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with styled():
        figure = draw()
        figure.savefig(out.with_name(f'{out.name}.png'), dpi=150)
        # Where its parts go is found by now, which took as long as drawing them.
        figure.set_layout_engine('none')
        figure.savefig(out.with_name(f'{out.name}.svg'), dpi=150, metadata={'Date': None})
    return figure


def png_bytes(draw: Callable[[], Figure], dark: bool = False) -> bytes:
    """PNG of a figure in the style of a light or a dark page."""
    content = io.BytesIO()
    with styled(dark):
        draw().savefig(content, format='png', dpi=110)
    return content.getvalue()
