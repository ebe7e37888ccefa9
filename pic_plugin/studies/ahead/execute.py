# SPDX-License-Identifier: Apache-2.0
"""Many trainings side by side on one device, each result written at once."""
from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import torch

from pic_plugin.evaluation.linear_probe import linear_accuracy

from .evaluation import knn_accuracies
from .images import Images
from .setting import Setting
from .training import Training

ROUND_STEPS = 8  # of one training before the next one's turn
POOL_REFERENCES = 20000  # more take a core minutes, and the device a second

Labelled = tuple[str, Setting]


class Results:
    """A file of one JSON line for each result, written as it comes.

    Args:
        path (Path): Appended to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start = time.monotonic()

    def write(self, **record: Any) -> None:
        """Append a line."""
        record['at'] = round(time.monotonic() - self.start, 1)
        with self.path.open('a') as file:
            file.write(json.dumps(record) + '\n')


class LinearPool:
    """Linear evaluation in processes of their own, beside the device's work.

    Args:
        workers (int): Processes; made at once, before the device is used.
    """

    def __init__(self, workers: int) -> None:
        self.pool = multiprocessing.get_context('fork').Pool(workers)
        self.pending: list[Any] = []

    def submit(self, arrays: tuple, done: Callable[[float], None]) -> None:
        """Have an accuracy computed, and call ``done`` with it."""
        self.pending.append(self.pool.apply_async(
            _linear, (arrays, ), callback=done,
            error_callback=lambda error: print(f'linear evaluation: {error}', flush=True)))

    def close(self, seconds: float) -> None:
        """Wait for what is pending, at most so long, and end the processes."""
        end = time.monotonic() + seconds
        for result in self.pending:
            result.wait(max(end - time.monotonic(), 0.0))
        self.pool.terminate()


def _linear(arrays: tuple) -> float:
    torch.set_num_threads(1)
    features, labels, test_features, test_labels = (torch.from_numpy(array) for array in arrays)
    return round(linear_accuracy(features, labels, test_features, test_labels), 2)


class Executor:
    """Runs trainings in lanes of one device.

    Args:
        images (Callable): Name of a data set -> :class:`Images` on the device.
        results (Results): Where results go.
        pool (LinearPool): For linear accuracies.
        lanes (int): Trainings at a time.
        deadline (float): Of ``time.monotonic()``: nothing is done any more beyond it.
        record (bool): See :class:`Training`.
    """

    def __init__(self, images: Callable[[str], Images], results: Results, pool: LinearPool,
                 lanes: int, deadline: float, record: bool = True) -> None:
        self.images, self.results, self.pool = images, results, pool
        self.deadline, self.record = deadline, record
        self.streams = [torch.cuda.Stream() if torch.cuda.is_available() else None
                        for _ in range(lanes)]

    def run(self, stage: str, source: Iterator[Labelled], seconds: float, lanes: int = 0,
            linear: bool = True, splits: tuple[str, ...] = ('test', ), course: int = 0,
            report: Callable[[str, Setting, dict[str, Any]], None] | None = None) -> int:
        """Run trainings until there are none left or the time is up.

        Args:
            stage (str): Name of what they belong to, for the results.
            source (Iterator): Gives labels and settings; asked whenever a lane is free.
            seconds (float): After which none is started that would not end in time, as far as
                those before it tell.
            lanes (int): Fewer than there are. Defaults to 0: all.
            linear (bool): Whether linear accuracies are wanted.
            splits (tuple[str, ...]): Images that are classified.
            course (int): Parts of the training after which neighbours are looked at, too.
            report (Callable, optional): Called with each label, setting and result.

        Returns:
            int: Trainings that ended.
        """
        end = min(time.monotonic() + seconds, self.deadline)
        free = list(self.streams[:lanes or None])
        active: list[tuple[str, Training, Any, float]] = []
        pace: list[float] = []  # seconds for a pass of those that ended
        ended, source_open = 0, True
        while True:
            while free and source_open and time.monotonic() < end:
                one = next(source, None)
                if one is None:
                    source_open = False
                    break
                label, setting = one
                if pace and time.monotonic() + max(pace[-8:]) * setting.passes > end:
                    self.results.write(stage=stage, name=label, skipped=setting.key)
                    # A search proposes what is equally long; results get shorter.
                    source_open = report is None
                    continue
                training = Training(setting, self.images(setting.data), free[-1], self.record)
                active.append((label, training, free.pop(), time.monotonic()))
            if not active:
                return ended
            if time.monotonic() > self.deadline:
                for label, training, _, _ in active:
                    self.results.write(stage=stage, name=label, cut=training.setting.key,
                                       steps=training.done)
                return ended
            for label, training, _, _ in active:
                training.advance(ROUND_STEPS)
                if course and not training.is_done and (
                        training.done % (max(training.setting.steps // course, 1)
                                         // ROUND_STEPS * ROUND_STEPS or 1) == 0):
                    self.results.write(stage=stage, name=label, course=training.done,
                                       setting=training.setting.differences(),
                                       **self._neighbours(training, splits)[0])
            for ended_one in [one for one in active if one[1].is_done]:
                label, training, stream, begun = ended_one
                result = self._evaluate(stage, label, training, splits, linear, begun)
                pace.append((time.monotonic() - begun) / training.setting.passes)
                active.remove(ended_one)
                free.append(stream)
                ended += 1
                if report is not None:
                    report(label, training.setting, result)

    def _neighbours(self, training: Training, splits: tuple[str, ...]) -> tuple[dict, list]:
        images = training.images
        count = images.references
        stream = torch.cuda.stream(training.stream)
        with stream:
            references = training.features(images.train[:count])
            values, parts = {}, [references]
            for split in splits:
                pixels, labels = images.splits[split]
                features = training.features(pixels)
                parts.append(features)
                if torch.isfinite(references).all() and torch.isfinite(features).all():
                    values.update({f'{split}_{name}': value for name, value in knn_accuracies(
                        features, labels, references, images.train_labels[:count]).items()})
        return values, parts

    def _evaluate(self, stage: str, label: str, training: Training, splits: tuple[str, ...],
                  linear: bool, begun: float) -> dict[str, Any]:
        values, parts = self._neighbours(training, splits)
        result = dict(training.finish(), **values)
        seconds = time.monotonic() - begun
        identity = dict(stage=stage, name=label, setting=training.setting.differences())
        self.results.write(**identity, seconds=round(seconds, 2), **result)
        if linear and values:
            images = training.images
            if images.references > POOL_REFERENCES and parts[0].is_cuda:
                with torch.cuda.stream(training.stream), parts[0].device:
                    accuracy = linear_accuracy(parts[0], images.train_labels[:images.references],
                                               parts[-1], images.splits[splits[-1]][1])
                self.results.write(**identity, **{f'{splits[-1]}_linear': round(accuracy, 2)})
                return result
            labels = images.splits[splits[-1]][1]
            arrays = tuple(tensor.cpu().numpy() for tensor in (
                parts[0], images.train_labels[:images.references], parts[-1], labels))
            self.pool.submit(arrays, lambda accuracy: self.results.write(
                **identity, **{f'{splits[-1]}_linear': accuracy}))
        return result
