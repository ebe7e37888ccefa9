# SPDX-License-Identifier: Apache-2.0
"""Run the trainings of grids in processes of their own, those that are left to do."""
from __future__ import annotations

import contextlib
import copy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from mmengine.config import Config

from pic_plugin.files import write_atomically
from pic_plugin.studies.ablation.grid import Grid, Training
from pic_plugin.studies.ablation.table import known_trainings, read_tables
from pic_plugin.studies.ablation.training import CONFIG, RESULT

LOG = 'output.log'


def run_grids(grids: Sequence[Grid], folder: Path, jobs: int, data_root: str | None = None,
              tables: Path | None = None) -> list[Training]:
    """Do what is left of several grids; SIGTERM ends it as Ctrl-C does.

    Args:
        grids (Sequence[Grid]): The grids.
        folder (Path): A folder for each training is made in it.
        jobs (int): Processes at a time, each on one core.
        data_root (str, optional): Folder of the images, for configs that leave it open.
        tables (Path, optional): Folder of tables whose trainings count as done.

    Returns:
        list[Training]: Those that failed.

    Raises:
        ValueError: If ``tables`` has no tables, or as :func:`run_all`.
        RuntimeError: If another process works in ``folder``.
    """
    earlier = read_tables(tables) if tables else {}
    if tables and not earlier:
        raise ValueError(f'{tables} has no tables (NAME.csv): --results is the --out of `report`.')
    known = {name for grid in grids for name in known_trainings(grid, earlier)}
    # Ends the trainings too, which would go on by themselves.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    trainings = [training for grid in grids for training in grid.trainings]
    return run_all(trainings, folder, jobs, data_root, known)


def run_all(trainings: Sequence[Training], folder: Path, jobs: int = 1,
            data_root: str | None = None, known: Collection[str] = ()) -> list[Training]:
    """Do the trainings that have no result yet; those that were interrupted go on.

    Args:
        trainings (Sequence[Training]): In the order in which they are to be done.
        folder (Path): A folder for each training is made in it.
        jobs (int): Processes at a time, each on one core. Defaults to 1.
        data_root (str, optional): Folder of the images, for configs that leave it open.
        known (Collection[str]): Names of trainings whose results are kept elsewhere.

    Returns:
        list[Training]: Those that failed.

    Raises:
        ValueError: If ``jobs`` is not positive, or a config needs a ``data_root``.
        RuntimeError: If another process works in ``folder``.
    """
    if jobs < 1:
        raise ValueError(f'jobs must be at least 1, not {jobs}.')
    # The same training may be in several grids.
    distinct = {training.name: training for training in trainings}
    left = [training for name, training in distinct.items()
            if name not in known and not (folder / name / RESULT).is_file()]
    print(f'{len(distinct) - len(left)} of {len(distinct)} trainings are done', flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder):
        for training in left:
            prepare(training, folder / training.name, data_root)
        return _in_processes(left, folder, jobs)


def prepare(training: Training, folder: Path, data_root: str | None) -> None:
    """Write a training's config into its folder."""
    cfg = with_data_root(training.cfg, data_root)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / CONFIG, cfg.pretty_text)


def with_data_root(cfg: Config, data_root: str | None) -> Config:
    """A copy with the folder of the images, where the config has ``data_root=None``.

    Raises:
        ValueError: If there is such a place, and no folder or one that does not exist.
    """
    cfg = copy.deepcopy(cfg)
    datasets = [cfg.train_dataloader.dataset, *cfg.val_dataloader.dataset.datasets]
    for dataset in datasets:
        if 'data_root' in dataset and dataset.data_root is None:
            if data_root is None or not Path(data_root).is_dir():
                raise ValueError(f'{cfg.filename} needs the folder of its images, and '
                                 f'{data_root} is not a folder: give it with --data-root.')
            dataset.data_root = str(Path(data_root).resolve())
    return cfg


def _in_processes(left: list[Training], folder: Path, jobs: int) -> list[Training]:
    running: dict[subprocess.Popen, tuple[Training, float]] = {}
    failed = []
    try:
        waiting = list(left)
        while waiting or running:
            while waiting and len(running) < jobs:
                training = waiting.pop(0)
                running[_start(folder / training.name)] = (training, time.monotonic())
            time.sleep(0.1)
            for process in [process for process in running if process.poll() is not None]:
                training, start = running.pop(process)
                done = process.returncode == 0
                if not done:
                    failed.append(training)
                print(f'{time.strftime("%H:%M:%S")} {"done" if done else "FAILED"} in '
                      f'{time.monotonic() - start:.0f} s, {len(waiting) + len(running)} left: '
                      f'{training.labels} seed {training.seed}'
                      + ('' if done else f'; see {folder / training.name / LOG}'), flush=True)
    finally:
        for process in running:
            process.terminate()
            process.wait()
    return failed


def _start(folder: Path) -> subprocess.Popen:
    # One core for each: more threads would only wait for each other.
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    with open(folder / LOG, 'a', encoding='utf-8') as log:
        return subprocess.Popen(
            [sys.executable, '-m', 'pic_plugin.studies.ablation.training', str(folder)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Two processes would train the same, and write over each other's checkpoints."""
    import fcntl  # not on Windows; only this command needs it
    with open(folder / 'lock', 'w', encoding='utf-8') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RuntimeError(f'another process trains in {folder}: wait for it, or give another '
                               '--work-dir.') from error
        yield
