# SPDX-License-Identifier: Apache-2.0
"""A page about trainings under way: verdicts, curves, and what differs in their configs."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pic_plugin.analysis.health_figure import draw_health
from pic_plugin.analysis.page import data_uri, render
from pic_plugin.analysis.scalars import names_of, read_run
from pic_plugin.analysis.style import png_bytes
from pic_plugin.analysis.verdict_help import explanation
from pic_plugin.analysis.verdicts import config_differences, context_of, verdicts_of
from pic_plugin.analysis.work_folder import find_run_config


def live_page(work_dirs: Sequence[Path], seconds: int = 20) -> str:
    """HTML of the page as of now; it asks for itself again after some time.

    Args:
        work_dirs (Sequence[Path]): Of the trainings, at least one; they may have logged nothing
            yet.
        seconds (int): Until the page asks again. Defaults to 20.
    """
    configs = [read_config(folder) for folder in work_dirs]
    names = names_of(work_dirs)
    trainings = [_training(*one) for one in zip(work_dirs, names, configs)]
    runs = [training['run'] for training in trainings if training['run'] is not None]
    figure = data_uri(png_bytes(lambda: draw_health(runs)), 'png') if runs else None
    return render(
        'live.html.jinja', title=', '.join(names),
        seconds=seconds, figure=figure, trainings=trainings,
        differences=config_differences(configs) if len(configs) > 1 else None)


def read_config(work_dir: Path) -> dict[str, Any]:
    """The newest config that mmengine wrote into a work folder; empty if there is none."""
    try:
        cfg = Config.fromfile(find_run_config(work_dir), import_custom_modules=False)
    except FileNotFoundError:
        return {}
    content: dict[str, Any] = cfg.to_dict()
    return content


def _training(folder: Path, name: str, config: dict[str, Any]) -> dict[str, Any]:
    try:
        run = read_run(folder)._replace(name=name)
    except FileNotFoundError as error:
        return dict(name=name, run=None, missing=str(error))
    verdicts = [(verdict, explanation(verdict.page))
                for verdict in verdicts_of(run, context_of(config))]
    return dict(name=name, run=run, verdicts=verdicts)
