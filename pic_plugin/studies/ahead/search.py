# SPDX-License-Identifier: Apache-2.0
"""Choice of settings: for each method equally many tries, judged on training images alone.

A try changes one to three values of the best setting so far; the first is the method's own start.
The best few are repeated with other seeds, and the best mean is chosen. What the choice cannot see
are the test images and the seeds of the results.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .setting import Setting

SEARCH_SEED = 100  # results have seeds from 0
CONFIRMED = 3  # settings of each method that are repeated
REPEATS = (101, 102)
SCORE = 'validation_knn20'

_COMMON: dict[str, tuple] = dict(
    lr=(0.015, 0.03, 0.06, 0.12, 0.24), end=(0.0, 0.1, 0.33), batch=(64, 128, 256),
    weight_decay=(1e-4, 2.5e-4, 5e-4, 1e-3), hidden=(256, 512, 1024), layers=(2, 3))
_TEMPERATURES = (0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5)
_PIC: dict[str, tuple] = dict(
    _COMMON, temperature=_TEMPERATURES, window=(0.05, 0.1, 0.2, 0.4), visits=(4, 8, 16),
    negatives=(0.0, 0.05, 0.1, 0.2, 0.4), weight_lr=(0.1, 0.3, 1.0, 3.0),
    weight_momentum=(0.0, 0.5, 0.9), weight_wd=(0.0, 1.0), smoothing=(0.0, 0.1, 0.3))

#: Label -> start and the values that may be tried. Rivals have plain epochs, as they are meant to.
SPACES: dict[str, tuple[Setting, dict[str, tuple]]] = {
    'PIC': (Setting('pic', negatives=0.1), _PIC),
    'PIC, refresh': (Setting('pic', negatives=0.1, refresh=1.0, weight_lr=0.3),
                     dict(_PIC, refresh=(0.5, 0.8, 1.0), away=(1.0, 2.0, 4.0))),
    'SimCLR': (Setting('simclr', temperature=0.2, window=0.0),
               dict(_COMMON, temperature=_TEMPERATURES)),
    'MoCo v2': (Setting('mocov2', temperature=0.2, lr=0.03, end=0.0, window=0.0),
                dict(_COMMON, temperature=_TEMPERATURES, ema=(0.9, 0.95, 0.99, 0.995),
                     queue=(512, 1024, 2048, 4096))),
}
RIVALS: dict[str, tuple[Setting, dict[str, tuple]]] = {
    'BYOL': (Setting('byol', batch=256, ema=0.98, window=0.0),
             dict(_COMMON, batch=(128, 256, 512), ema=(0.9, 0.95, 0.98, 0.99))),
    'SimSiam': (Setting('simsiam', layers=3, window=0.0), dict(_COMMON, dim=(128, 256, 512))),
    'Barlow Twins': (Setting('barlow', layers=3, dim=256, redundancy=0.01, lr=0.015,
                             window=0.0),
                     dict(_COMMON, lr=(0.002, 0.004, 0.008, 0.015, 0.03), dim=(128, 256, 512),
                          redundancy=(0.002, 0.005, 0.01, 0.03))),
    'SwAV': (Setting('swav', temperature=0.1, window=0.0),
             dict(_COMMON, temperature=_TEMPERATURES, prototypes=(32, 64, 128, 256))),
    'DIET': (Setting('diet', smoothing=0.8, window=0.0, optimizer='adamw', lr=1e-3,
                     weight_decay=0.05, end=0.0),
             dict(_COMMON, lr=(3e-4, 1e-3, 2e-3, 4e-3), weight_decay=(0.01, 0.05, 0.2),
                  smoothing=(0.0, 0.4, 0.8), window=(0.0, 0.2))),
}


class Search:
    """Proposes tries and takes their results.

    Args:
        spaces (dict): See ``SPACES``.
        changes (dict): What all settings share: images, passes, width.
        tries (int): Most tries of each method.
        starts (dict, optional): Label -> setting to begin with, instead of the space's.
    """

    def __init__(self, spaces: dict[str, tuple[Setting, dict[str, tuple]]],
                 changes: dict[str, Any], tries: int,
                 starts: dict[str, Setting] | None = None) -> None:
        self.spaces, self.tries = spaces, tries
        starts = starts or {}
        self.starts = {label: starts.get(label, start).but(seed=SEARCH_SEED, **changes)
                       for label, (start, _) in spaces.items()}
        self.rng = {label: np.random.default_rng(number) for number, label in enumerate(spaces)}
        self.asked: dict[str, list[Setting]] = {label: [] for label in spaces}
        self.scores: dict[str, dict[str, list[float]]] = {label: {} for label in spaces}
        self.confirming: list[tuple[str, Setting]] | None = None

    def next_try(self) -> tuple[str, Setting] | None:
        """A label and a setting, of the method with the fewest tries; None: enough."""
        label = min(self.asked, key=lambda name: len(self.asked[name]))
        if len(self.asked[label]) >= self.tries:
            return None
        setting = self._propose(label)
        self.asked[label].append(setting)
        return label, setting

    def report(self, label: str, setting: Setting, result: dict[str, Any]) -> None:
        """Take the result of a try."""
        key = setting.but(seed=SEARCH_SEED).key
        self.scores[label].setdefault(key, []).append(float(result.get(SCORE) or 0.0))

    def confirmations(self) -> list[tuple[str, Setting]]:
        """The best settings with other seeds, equally many of each method."""
        rounds = [[(label, setting.but(seed=seed)) for label in self.spaces
                   for setting in self._ranked(label)[place:place + 1]]
                  for seed in REPEATS for place in range(CONFIRMED)]
        return [one for part in rounds for one in part]

    def chosen(self) -> dict[str, Setting]:
        """Label -> the setting of the best mean among those that were repeated most."""
        result = {}
        for label in self.spaces:
            scores = self.scores[label]
            if not scores:
                result[label] = self.starts[label]
                continue
            most = max(len(values) for values in scores.values())
            result[label] = max(
                (setting for setting in self._distinct(label)
                 if len(scores.get(setting.key, [])) == most),
                key=lambda setting: float(np.mean(scores[setting.key])))
        return result

    def _distinct(self, label: str) -> list[Setting]:
        return list({setting.key: setting for setting in self.asked[label]}.values())

    def _ranked(self, label: str) -> list[Setting]:
        scores = self.scores[label]
        known = [setting for setting in self._distinct(label) if setting.key in scores]
        return sorted(known, key=lambda setting: -scores[setting.key][0])

    def _propose(self, label: str) -> Setting:
        asked = self.asked[label]
        if not asked:
            return self.starts[label]
        ranked = self._ranked(label)
        rng, values = self.rng[label], self.spaces[label][1]
        tried = {setting.key for setting in asked}
        for _ in range(50):
            # Mostly the best so far, sometimes the second or third: one result is not certain.
            place = min(int(rng.geometric(0.6)) - 1, len(ranked) - 1)
            base = ranked[place] if ranked else self.starts[label]
            names = rng.choice(sorted(values), size=int(rng.integers(1, 4)), replace=False)
            setting = base.but(**{str(name): values[str(name)][rng.integers(len(values[str(name)]))]
                                  for name in names})
            if setting.key not in tried:
                break
        return setting
