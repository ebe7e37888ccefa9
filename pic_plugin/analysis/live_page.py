# SPDX-License-Identifier: Apache-2.0
"""A page about trainings under way: verdicts, curves, and what differs in their configs."""
from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pic_plugin.analysis.health_figure import draw_health
from pic_plugin.analysis.scalars import Run, read_run
from pic_plugin.analysis.verdict_help import explanation
from pic_plugin.analysis.verdicts import (
    Verdict,
    config_differences,
    context_of,
    verdicts_of,
)

STYLE = '''
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse } td, th { border: 1px solid #888; padding: .2rem .6rem;
text-align: left; overflow-wrap: anywhere } img { max-width: 100% }
.help { white-space: pre-wrap }
.bad { border-left: .4rem solid #b00020; padding-left: .6rem }
.notice { border-left: .4rem solid #946200; padding-left: .6rem }
.good { border-left: .4rem solid #1b7a3d; padding-left: .6rem }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #e8e8e8 }
img { background: #fff } }
'''


def live_page(work_dirs: Sequence[Path], seconds: int = 20) -> str:
    """HTML of the page as of now; it asks for itself again after some time.

    Args:
        work_dirs (Sequence[Path]): Of the trainings, at least one; they may have logged nothing
            yet.
        seconds (int): Until the page asks again. Defaults to 20.
    """
    runs: list[Run] = []
    parts: list[str] = []
    configs: list[dict[str, Any]] = []
    for folder in work_dirs:
        config = read_config(folder)
        configs.append(config)
        try:
            run = read_run(folder)
        except FileNotFoundError as error:
            parts.append(f'<h2>{escape(folder.name)}</h2><p>Nothing was logged yet: '
                         f'{escape(str(error))}</p>')
            continue
        runs.append(run)
        parts.append(_run_html(run, config))
    if runs:
        parts.insert(0, _figure_html(runs))
    if len(work_dirs) > 1:
        parts.append(_differences_html([folder.name for folder in work_dirs], configs))
    names = ', '.join(folder.resolve().name for folder in work_dirs)
    return ('<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="refresh" content="{seconds}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{escape(names)}</title><style>{STYLE}</style></head>'
            f'<body><h1>{escape(names)}</h1>{"".join(parts)}</body></html>\n')


def read_config(work_dir: Path) -> dict[str, Any]:
    """The newest config that mmengine wrote into a work folder; empty if there is none."""
    files = sorted(work_dir.glob('*/vis_data/config.py'))
    if not files:
        return {}
    content: dict[str, Any] = Config.fromfile(files[-1], import_custom_modules=False).to_dict()
    return content


def _run_html(run: Run, config: dict[str, Any]) -> str:
    found = verdicts_of(run, context_of(config))
    loss = run.curves.get('loss')
    seen = f'{loss[-1][0]:,.0f} images seen' if loss else 'no step yet'
    lines = ''.join(map(_verdict_html, found)) or '<p>No verdict yet: too few numbers.</p>'
    damaged = f'<p>{run.damaged} lines of the log are damaged.</p>' if run.damaged else ''
    rows = ''.join(
        f'<tr><th scope="row">{escape(name)}</th><td>{curve[0][1]:.4g}</td>'
        f'<td>{curve[-1][1]:.4g}</td></tr>' for name, curve in sorted(run.curves.items()))
    return (f'<h2>{escape(run.name)}</h2><p>{seen}</p>{lines}{damaged}<table><caption>First and '
            f'last values</caption><tr><th scope="col">value</th><th scope="col">first</th>'
            f'<th scope="col">last</th></tr>{rows}</table>')


def _verdict_html(verdict: Verdict) -> str:
    return (f'<p class="{verdict.level}"><strong>{escape(verdict.name)}</strong> '
            f'({verdict.level}): {escape(verdict.text)}</p>'
            '<details><summary>What it means and what helps</summary>'
            f'<div class="help">{escape(explanation(verdict.page))}</div></details>')


def _figure_html(runs: Sequence[Run]) -> str:
    picture = io.BytesIO()
    draw_health(runs).savefig(picture, format='png', dpi=110)
    code = base64.b64encode(picture.getvalue()).decode()
    return (f'<img alt="Curves of {escape(", ".join(run.name for run in runs))} over images seen" '
            f'src="data:image/png;base64,{code}">')


def _differences_html(names: Sequence[str], configs: Sequence[dict[str, Any]]) -> str:
    rows = config_differences(configs)
    if not rows:
        return '<h2>Configs</h2><p>The configs do not differ.</p>'
    head = ''.join(f'<th scope="col">{escape(name)}</th>' for name in ('value', *names))
    body = ''.join('<tr>' + ''.join(f'<td>{escape(cell)}</td>' for cell in row) + '</tr>'
                   for row in rows)
    return f'<h2>What differs in the configs</h2><table><tr>{head}</tr>{body}</table>'


def parse_address(port: int | None) -> tuple[str, int]:
    """Where to serve: on this machine only.

    Raises:
        ValueError: If the port is out of range.
    """
    if port is not None and not 0 <= port < 65536:
        raise ValueError(f'--port must be from 0 (any that is free) to 65535, not {port}.')
    return '127.0.0.1', port or 0
