# SPDX-License-Identifier: Apache-2.0
"""Scalars that a run logged, over images seen, from the files of mmengine's LocalVisBackend."""
from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pic_plugin.transfer.config_text import value_in_config

Curve = list[tuple[float, float]]
FILE = 'scalars.json'
COUNTERS = ('iter', 'epoch', 'step')


class Run(NamedTuple):
    """The scalars of one training.

    Attributes:
        name (str): Of its work folder.
        curves (dict[str, list]): For each scalar (images seen, value), ascending.
        damaged (int): Lines that are not JSON, such as the last of a run that was killed.
    """

    name: str
    curves: dict[str, Curve]
    damaged: int


def read_run(work_dir: str | Path) -> Run:
    """Read the scalars of all starts of a run; what a resumed one did again replaces the old.

    Images seen are iterations times the batch of all processes, as config and log of each start
    tell them; iterations where the config does not tell a batch.

    Args:
        work_dir (str | Path): Folder with ``*/vis_data/scalars.json``.

    Raises:
        FileNotFoundError: If there is no such folder, or no scalars in it.
    """
    work_dir = Path(work_dir)
    if not work_dir.is_dir():
        raise FileNotFoundError(f'there is no folder {work_dir}.')
    # Folders are named after the time of the start.
    files = sorted(work_dir.glob(f'*/vis_data/{FILE}'))
    if not files:
        raise FileNotFoundError(
            f"{work_dir} has no */vis_data/{FILE}: mmengine's LocalVisBackend writes it; add "
            "dict(type='LocalVisBackend') to vis_backends of the visualizer.")
    points: dict[str, dict[float, float]] = {}
    steps: list[tuple[int, float]] = [(0, 0.0)]  # iteration, images seen
    damaged = 0
    for file in files:
        lines = file.read_text(encoding='utf-8', errors='replace').splitlines()
        entries = [entry for entry in map(_entry, lines) if entry is not None]
        damaged += len(lines) - len(entries)
        first_iter = next((entry['iter'] for entry in entries if 'iter' in entry), None)
        while first_iter is not None and 0 < steps[-1][0] >= first_iter:
            steps.pop()
        last_iter, seen = steps[-1]
        for curve in points.values():
            for place in [place for place in curve if place > seen]:
                del curve[place]
        batch = _global_batch(file.parent)
        for entry in entries:
            if 'iter' in entry:
                seen += (entry['iter'] - last_iter) * batch
                last_iter = entry['iter']
                steps.append((last_iter, seen))
            # Results of an evaluation have no iteration: they follow the training before them. And
            # times of their own, which are not those of a step.
            left_out = COUNTERS if 'iter' in entry else (*COUNTERS, 'time', 'data_time')
            for key, value in entry.items():
                if key not in left_out and isinstance(value, (int, float)):
                    points.setdefault(key, {})[seen] = float(value)
    return Run(work_dir.resolve().name,
               {key: sorted(curve.items()) for key, curve in points.items() if curve}, damaged)


def names_of(work_dirs: Sequence[Path]) -> list[str]:
    """Names of runs: those of their work folders, or the paths of folders of the same name."""
    names = [folder.resolve().name for folder in work_dirs]
    count = Counter(names)
    return [str(folder) if count[name] > 1 else name for name, folder in zip(names, work_dirs)]


def read_runs(work_dirs: Sequence[Path]) -> list[Run]:
    """Several runs, with names that tell them apart."""
    return [read_run(folder)._replace(name=name)
            for name, folder in zip(names_of(work_dirs), work_dirs)]


def _entry(line: str) -> Any:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) else None


def _global_batch(vis_data: Path) -> int:
    """Images of an iteration in all processes; 1 if unknown."""
    config = vis_data / 'config.py'
    loader = None
    if config.is_file():
        loader = value_in_config(config.read_text(encoding='utf-8'), 'train_dataloader')
    batch = loader.get('batch_size') if isinstance(loader, dict) else None
    if not isinstance(batch, int):
        return 1
    for log in vis_data.parent.glob('*.log'):
        with open(log, encoding='utf-8', errors='replace') as stream:
            beginning = stream.read(20000)
        processes = re.search(r'GPU number: (\d+)', beginning)
        if processes:
            return batch * max(1, int(processes[1]))
    return batch
