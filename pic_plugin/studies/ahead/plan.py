# SPDX-License-Identifier: Apache-2.0
"""The study from search to results, the most important first, within a given time."""
from __future__ import annotations

import dataclasses
import json
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .execute import Executor, Labelled
from .search import RIVALS, SPACES, Search
from .setting import PASSES_PER_IMAGE, Setting
from .training import Training

SEEDS = (0, 1, 2)
MARGIN = 0.85  # of the time that the measured rate promises
PASSES = (60000, 120000, 300000)


@dataclasses.dataclass
class Scale:
    """Sizes, which a rehearsal makes small.

    Attributes:
        images (tuple[int, int]): N of the two small scales.
        passes (tuple[int, ...]): Lengths of results.
        search_passes (tuple[int, int]): Length of a try at the two scales.
        tries (int): Most tries of each method.
        full_images (int): N of the large scale.
        full_passes (int): Its length.
        full_batch (int): Passes in one of its steps.
        full_width (int): Channels of its first stage.
        changes (dict): What all small settings share.
    """

    images: tuple = (5000, 10000)
    passes: tuple = PASSES
    search_passes: tuple = (120000, 300000)
    tries: int = 60
    full_images: int = 50000
    full_passes: int = 2300000
    full_batch: int = 512
    full_width: int = 64
    changes: dict = dataclasses.field(default_factory=dict)


TINY = Scale(images=(128, 256), passes=(512, 1024), search_passes=(512, 1024), tries=3,
             full_images=256, full_passes=1024, full_batch=64, full_width=8,
             changes=dict(width=8, hidden=32))


class Plan:
    """All stages, each with its share of the time.

    Args:
        executor (Executor): Runs trainings.
        scale (Scale): Sizes.
        out (Path): Folder of the chosen settings.
        shares (dict): Stage -> share of the time.
    """

    def __init__(self, executor: Executor, scale: Scale, out: Path,
                 shares: dict[str, float]) -> None:
        self.executor, self.scale, self.out, self.shares = executor, scale, out, shares
        self.chosen: dict[str, dict[str, Setting]] = {}

    def run(self, stages: list[str]) -> None:
        """Run stages by name, in this order; one that fails does not stop those after it.

        Each gets its share of the time that is left, so what one does not need goes to the others.
        """
        for number, name in enumerate(stages):
            begun = time.monotonic()
            note: dict[str, Any] = {}
            left = self.executor.deadline - begun
            seconds = left * self.shares[name] / sum(self.shares[one] for one in stages[number:])
            if left <= 0:
                break
            try:
                note['trainings'] = getattr(self, f'stage_{name}')(seconds)
            except (RuntimeError, ValueError, KeyError, ArithmeticError) as error:
                note['error'] = f'{type(error).__name__}: {error}'
                traceback.print_exc()
            self.executor.results.write(stage_ended=name, given=round(seconds, 1),
                                        took=round(time.monotonic() - begun, 1), **note)
            print(f'{name}: {time.monotonic() - begun:.1f} of {seconds:.1f} s, {note}', flush=True)

    def stage_smoke(self, seconds: float) -> int:
        """Whether recorded steps do what called ones do."""
        images = self.executor.images('cifar10')
        share = dict(images=self.scale.images[0], passes=256 * 40, **self.scale.changes)
        settings = [Setting(method, batch=256, negatives=0.1, refresh=1.0, smoothing=0.1, **share)
                    for method in PASSES_PER_IMAGE]
        settings.append(settings[0].but(measure=True))
        for setting in settings:
            losses = []
            for record in (True, False):
                training = Training(setting, images, self.executor.streams[0], record)
                training.advance(10)
                losses.append(training.losses_so_far())
            self._note(stage='smoke', method=setting.method, recorded=losses[0].tolist(),
                       called=losses[1].tolist(),
                       difference=float((losses[0] - losses[1]).abs().max()))
        return len(settings)

    def stage_lanes(self, seconds: float) -> int:
        """How many trainings go side by side: as many as make more passes a second."""
        end = time.monotonic() + seconds
        one = Setting(negatives=0.1, refresh=1.0, images=self.scale.images[0],
                      **self.scale.changes)
        rates: dict[int, float] = {}
        for lanes in (4, 8, 16, 32):
            if time.monotonic() < end and lanes <= len(self.executor.streams):
                rates[lanes] = self._rate([one] * lanes)
                self._note(stage='lanes', lanes=lanes, passes_a_second=round(rates[lanes]))
        if rates:
            best = max(rates.values())
            enough = min(lanes for lanes, rate in rates.items() if rate > 0.95 * best)
            self.executor.streams = self.executor.streams[:enough]
        return sum(rates)

    def _note(self, **record: Any) -> None:
        self.executor.results.write(**record)
        print(record, flush=True)

    # Search and results at the two small scales.

    def stage_search_small(self, seconds: float) -> int:
        """Search with the fewer images."""
        return self._search('search_small', seconds, 0, SPACES, {})

    def stage_search_large(self, seconds: float) -> int:
        """Search with more images, from what was best with fewer."""
        return self._search('search_large', seconds, 1, SPACES,
                            self.chosen.get('search_small', {}))

    def stage_search_rivals(self, seconds: float) -> int:
        """Search for the other rivals, with the fewer images."""
        return self._search('search_rivals', seconds, 0, RIVALS, {})

    def _search(self, stage: str, seconds: float, which: int, spaces: dict[str, Any],
                starts: dict[str, Setting]) -> int:
        search = Search(spaces, dict(images=self.scale.images[which],
                                     passes=self.scale.search_passes[which], **self.scale.changes),
                        self.scale.tries, starts)
        options: dict[str, Any] = dict(linear=False, splits=('validation', ),
                                       report=search.report)
        # Two thirds of the time for tries, the rest for repeating the best.
        begun = time.monotonic()
        count = self.executor.run(stage, iter(search.next_try, None), seconds * 0.67, **options)
        self.chosen[stage] = search.chosen()
        left = seconds - (time.monotonic() - begun)
        count += self.executor.run(f'{stage}_confirm', iter(search.confirmations()), left,
                                   **options)
        self.chosen[stage] = search.chosen()
        (self.out / f'{stage}.json').write_text(json.dumps(
            {label: setting.differences() for label, setting in self.chosen[stage].items()},
            indent=1))
        return count

    def stage_results_small(self, seconds: float) -> int:
        """Fresh seeds and all lengths, of the settings found with the fewer images."""
        return self.executor.run('results_small', self._results('search_small', 0), seconds)

    def stage_results_large(self, seconds: float) -> int:
        """The same with more images, of the settings found with fewer."""
        return self.executor.run('results_large', self._results('search_small', 1), seconds)

    def stage_results_large_tuned(self, seconds: float) -> int:
        """The same, of the settings found with as many images."""
        return self.executor.run('results_large_tuned', self._results('search_large', 1), seconds)

    def stage_results_clothing(self, seconds: float) -> int:
        """Photos of another kind, with nothing chosen on them."""
        images = len(self.executor.images('clothing').train)
        source = (
            (label, setting.but(data='clothing', images=images))
            for label, setting in self._results('search_small', 0))
        return self.executor.run('results_clothing', source, seconds)

    def stage_results_rivals(self, seconds: float) -> int:
        """The other rivals: one seed at the length they were tuned at."""
        settings = self._chosen('search_rivals')
        source = [(label, setting.but(seed=0)) for label, setting in settings.items()]
        return self.executor.run('results_rivals', iter(source), seconds)

    def _chosen(self, stage: str) -> dict[str, Setting]:
        """What a search chose; without one, its start."""
        if stage in self.chosen:
            return self.chosen[stage]
        path = self.out / f'{stage}.json'
        if path.is_file():
            return {label: Setting(**values)
                    for label, values in json.loads(path.read_text()).items()}
        spaces = RIVALS if stage == 'search_rivals' else SPACES
        changes = dict(images=self.scale.images[0], passes=self.scale.search_passes[0],
                       **self.scale.changes)
        return {label: start.but(**changes) for label, (start, _) in spaces.items()}

    def _results(self, stage: str, which: int) -> Iterator[Labelled]:
        settings = self._chosen(stage)
        for seed in SEEDS:
            for passes in sorted(self.scale.passes, reverse=True):
                for label, setting in settings.items():
                    yield label, setting.but(seed=seed, passes=passes,
                                             images=self.scale.images[which])

    # What the option does, and its parts.

    def stage_parts(self, seconds: float) -> int:
        """The chosen setting with one thing changed at a time, three seeds, the middle length."""
        best = self._chosen('search_small')['PIC, refresh'].but(
            images=self.scale.images[0], passes=self.scale.search_passes[0])
        changes: dict[str, dict[str, Any]] = {
            'as chosen': {}, 'no refresh': dict(refresh=0.0), 'half refresh': dict(refresh=0.5),
            'full refresh': dict(refresh=1.0), 'all classes': dict(negatives=0.0),
            'K = N/20': dict(negatives=0.05), 'K = N/10': dict(negatives=0.1),
            'K = N/5': dict(negatives=0.2), 'class weights at 0.1 of the rate': dict(weight_lr=0.1),
            'at 0.3': dict(weight_lr=0.3), 'at 1': dict(weight_lr=1.0),
            'no momentum of class weights': dict(weight_momentum=0.0),
            'no decay of class weights': dict(weight_wd=0.0),
            'label smoothing 0.1': dict(smoothing=0.1), 'label smoothing 0.8': dict(smoothing=0.8),
            'epochs': dict(window=0.0), 'window N/10': dict(window=0.1),
            'window 2N/5': dict(window=0.4), '4 visits': dict(visits=4),
            '16 visits': dict(visits=16), 'away after 1 window': dict(away=1.0),
            'away after 4 windows': dict(away=4.0), '3 layers': dict(layers=3),
            'cosine to 0': dict(end=0.0), 'temperature 0.2': dict(temperature=0.2)}
        source = ((label, best.but(seed=seed, **change)) for seed in SEEDS
                  for label, change in changes.items())
        return self.executor.run('parts', source, seconds)

    def stage_measures(self, seconds: float) -> int:
        """Rows and visits, with refresh and without, all classes and K."""
        best = self._chosen('search_small')['PIC, refresh'].but(
            images=self.scale.images[0], passes=self.scale.search_passes[0], measure=True, seed=0)
        source = [('without refresh', best.but(refresh=0.0)), ('with refresh', best)]
        source += [(f'{label}, all classes', setting.but(negatives=0.0))
                   for label, setting in source]
        return self.executor.run('measures', iter(source), seconds)

    # All of CIFAR-10.

    def stage_full(self, seconds: float) -> int:
        """Full-width network on all images: as many passes as fit, the same for each method."""
        scale = self.scale
        share: dict[str, Any] = dict(
            data='cifar10-all', images=scale.full_images, passes=scale.full_passes,
            batch=scale.full_batch, width=scale.full_width,
            hidden=2048 if scale.full_width >= 64 else 32, strides=(1, 2, 2, 2), lr=0.24, end=0.0,
            half=True, seed=0)
        refresh = self._chosen('search_small')['PIC, refresh']
        runs = [
            ('SimCLR', Setting('simclr', temperature=0.2, window=0.0, **share)),
            ('PIC, refresh', Setting('pic', temperature=0.1, window=0.1, negatives=0.1,
                                     refresh=refresh.refresh or 1.0, weight_lr=0.3, **share)),
        ]
        torch.backends.cudnn.benchmark = True  # worth its seconds for convolutions of this size
        end = time.monotonic() + seconds
        rate = self._rate([setting for _, setting in runs])
        left = end - time.monotonic()
        if rate * left * MARGIN > 3 * scale.full_passes:
            runs.append(('PIC', Setting('pic', temperature=0.1, window=0.1, **share)))
        passes = int(min(scale.full_passes, MARGIN * left * rate / len(runs)))
        passes -= passes % scale.full_batch
        if passes < 8 * scale.full_batch:
            raise ValueError(f'{left:.0f} s are too few for a training at {rate:.0f} passes a '
                             'second: give more --seconds.')
        self._note(stage='full', passes_a_second=round(rate), passes=passes, runs=len(runs))
        source = iter([(label, setting.but(passes=passes)) for label, setting in runs])
        count = self.executor.run('full', source, left, lanes=len(runs), course=4)
        torch.backends.cudnn.benchmark = False
        return count

    def _rate(self, settings: list[Setting], seconds: float = 1.5) -> float:
        """Passes a second of trainings side by side."""
        trainings = [Training(setting, self.executor.images(setting.data), stream,
                              self.executor.record)
                     for setting, stream in zip(settings, self.executor.streams)]
        for training in trainings:
            training.advance(8)
        _synchronize()
        begun, done = time.monotonic(), sum(t.done * t.setting.batch for t in trainings)
        while time.monotonic() - begun < seconds and not trainings[0].is_done:
            for _ in range(4):
                for training in trainings:
                    training.advance(8)
            _synchronize()
        done = sum(t.done * t.setting.batch for t in trainings) - done
        return done / (time.monotonic() - begun)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
