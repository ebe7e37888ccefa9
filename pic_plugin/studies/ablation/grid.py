# SPDX-License-Identifier: Apache-2.0
"""A grid of trainings as a file: factors, their levels, and the seeds."""
from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict

from pic_plugin.engine.config_file import find_config, read_config

GRIDS = Path(__file__).resolve().parents[1] / 'grids'
# What a level, and the grid for all, may say besides values of the training config.
CONFIG, IMAGES, PASSES = 'config', 'images', 'passes'
_KEYS = {'title', 'caption', 'seeds', 'options', 'factors', 'leave_out', 'metrics', 'figure'}


class Training(NamedTuple):
    """One training of a grid.

    Attributes:
        labels (dict[str, str]): Level of each factor.
        seed (int): Seed of network, order and augmentation.
        cfg (Config): The training config, complete but for folders.
    """

    labels: dict[str, str]
    seed: int
    cfg: Config

    @property
    def name(self) -> str:
        """Folder of the training: its config, and a digest of all that its result depends on.

        Trainings that several grids have in common have one name, and are done once. Which modules
        the config imports does not count: results stay valid when code moves.
        """
        content = self.cfg.to_dict()
        content.pop('custom_imports', None)
        text = json.dumps(content, sort_keys=True, default=str)
        return f'{Path(self.cfg.filename).stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}'


class Grid(NamedTuple):
    """All trainings of a table.

    Attributes:
        name (str): Name of the file.
        title (str): Heading of table and figure.
        caption (str): What is compared, at which scale.
        factors (list[str]): Columns of the table that name a setting.
        trainings (list[Training]): Seed by seed, so that an interrupted grid has whole tables of
            fewer seeds.
        metrics (dict[str, str]): Fields of a result, and the headings of their columns.
        figure (dict): ``x``, a factor, ``y``, a field, and ``line``, whether levels are joined.
    """

    name: str
    title: str
    caption: str
    factors: list[str]
    trainings: list[Training]
    metrics: dict[str, str]
    figure: dict


def read_grid(name: str, seeds: Sequence[int] | None = None,
              images: int | None = None) -> Grid:
    """Read a grid file, a Python file in mmengine's form.

    It has ``title``, ``caption``, ``seeds``, ``metrics``, ``figure`` and ``factors``: a dict of
    factors, each a dict of levels, each a dict of changes of the training config in the form of
    ``--cfg-options``. ``options`` are changes for all. Three changes are of another kind:
    ``config``, the name of the training config (needed), and ``images`` or ``passes``, the length
    of the training, in images seen or in forward passes; the config says how many of either an
    epoch has, ``num_images`` and ``num_views``. The trainings are all combinations of levels,
    except those that agree with an entry of ``leave_out``, a list of dicts of levels. Names that
    begin with an underscore are the file's own.

    Args:
        name (str): Path, or name of a grid of pic_plugin.
        seeds (Sequence[int], optional): Instead of the grid's.
        images (int, optional): Length of every training instead of the grid's, to try it out.

    Returns:
        Grid: Its trainings.

    Raises:
        FileNotFoundError: If there is no such file, or no such training config.
        ValueError: If the file is not a grid, or its entries contradict each other.
    """
    file = find_config(name, [GRIDS], kind='grid')
    content = {key: value for key, value in Config.fromfile(file).to_dict().items()
               if not key.startswith('_')}
    unknown = sorted(set(content) - _KEYS)
    missing = sorted({'title', 'caption', 'factors', 'metrics', 'figure'} - set(content))
    if missing or unknown:
        raise ValueError(f'{file} is not a grid of trainings: it lacks {missing} and has '
                         f'{unknown}, of {sorted(_KEYS)}.')
    factors = content['factors']
    _check_factors(file, factors, content)
    seeds = content.get('seeds', [0, 1, 2]) if seeds is None else seeds
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f'{file}: seeds must be different numbers, not {list(seeds)}.')
    trainings = [
        _training(file, content, labels, seed, images)
        for seed in seeds
        for labels in _combinations(factors)
        if not any(all(labels[factor] == level for factor, level in left_out.items())
                   for left_out in content.get('leave_out', []))]
    return Grid(Path(file).stem, content['title'], content['caption'], list(factors), trainings,
                content['metrics'], content['figure'])


def _check_factors(file: Path, factors: Any, content: dict) -> None:
    if not factors or not all(isinstance(levels, Mapping) and levels and
                              all(isinstance(level, Mapping) for level in levels.values())
                              for levels in factors.values()):
        raise ValueError(f'{file}: factors must be a dict of factors, each a dict of levels, each '
                         'a dict of config values.')
    named = [(factor, level) for left_out in content.get('leave_out', [])
             for factor, level in left_out.items()]
    wrong = [pair for pair in named if pair[1] not in factors.get(pair[0], {})]
    if wrong:
        raise ValueError(f'{file}: leave_out names {wrong[0]}, which is not a factor with one of '
                         'its levels.')
    figure = content['figure']
    if set(figure) - {'x', 'y', 'line'}:
        raise ValueError(f'{file}: figure may have x, y and line, not {dict(figure)}.')
    if figure.get('x') not in factors or figure.get('y') not in content['metrics']:
        raise ValueError(f"{file}: figure must have an x of {list(factors)} and a y of "
                         f"{list(content['metrics'])}, not {dict(figure)}.")


def _combinations(factors: dict) -> list[dict[str, str]]:
    return [dict(zip(factors, levels)) for levels in itertools.product(*factors.values())]


def _training(file: Path, content: dict, labels: dict[str, str], seed: int,
              images: int | None) -> Training:
    changes: dict[str, Any] = dict(content.get('options', {}))
    for factor, level in labels.items():
        changes.update(content['factors'][factor][level])
    config = changes.pop(CONFIG, None)
    if config is None:
        raise ValueError(f'{file}: neither `options` nor a level of {labels} names a config.')
    beside = file.parent / config
    cfg = read_config(str(beside) if beside.is_file() else config)
    lengths = {key: changes.pop(key) for key in (IMAGES, PASSES) if key in changes}
    if images is not None:
        lengths = {IMAGES: images}
    if len(lengths) != 1:
        raise ValueError(f'{file}: {labels} must have a length, as `images` or as `passes`, and '
                         f'has {lengths}.')
    cfg.merge_from_dict(_fresh(changes))
    set_length(cfg, lengths.get(IMAGES, lengths.get(PASSES, 0) / cfg.num_views))
    cfg.randomness = dict(seed=seed)
    return Training(labels, seed, cfg)


def _fresh(value: Any) -> Any:
    """A copy in which dicts are what mmengine's configs are made of."""
    if isinstance(value, Mapping):
        return ConfigDict({key: _fresh(item) for key, item in value.items()})
    return [_fresh(item) for item in value] if isinstance(value, list) else value


def set_length(cfg: Config, images: float) -> None:
    """Change the number of epochs, and with it where each scheduler begins and ends.

    Args:
        cfg (Config): A training config by epochs, with ``num_images``; changed in place.
        images (float): Images to see, rounded to whole epochs, at least one.

    Raises:
        ValueError: If it is not positive.
    """
    if not images > 0:
        raise ValueError(f'a training must see some images, not {images}.')
    epochs = max(1, round(images / cfg.num_images))
    ratio = epochs / cfg.train_cfg.max_epochs
    cfg.train_cfg.max_epochs = epochs
    for scheduler in cfg.param_scheduler:
        for key in ('begin', 'end', 'T_max'):
            if key in scheduler:
                scheduler[key] = scheduler[key] * ratio
