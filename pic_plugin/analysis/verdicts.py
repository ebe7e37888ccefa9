# SPDX-License-Identifier: Apache-2.0
"""Verdicts in words on the numbers of a run, each with a page that helps.

Functions of the scalars that mmengine wrote: the same verdicts for a run that is over and
for one that is under way.
"""
from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pic_plugin.analysis.scalars import Curve, Run
from pic_plugin.bank.correction import MAX_DECAY
from pic_plugin.engine.type_names import is_pretrained, type_name
from pic_plugin.wording import counted

GOOD, NOTICE, BAD = 'good', 'notice', 'bad'
# Of the last of a curve, what is averaged: single steps are noisy.
TAIL = 0.2
LEAST_POINTS = 5
# Nats below ln A from which something has been learned beyond the noise of a batch.
LEARNED = 0.2
# Passes over the classes in the softmax before which a loss at chance says nothing.
EARLY_PASSES = 5
LOADER_SHARE = 0.5
# Percent points of kNN accuracy: about two standard errors for 1,000 pictures.
KNN_STEP = 3.0
# Dimensions in which features differ, below which they lie on a line.
COLLAPSED = 2.0
# Lists that have a line for each picture, and no others.
LISTS = ('.txt', '.jsonl')
# What two runs never have in common, whatever they were started with.
OF_ONE_RUN = {'work_dir', 'experiment_name'}


class Verdict(NamedTuple):
    """One finding.

    Attributes:
        name (str): Of the kind, a word.
        level (str): 'good', 'notice' or 'bad'.
        text (str): What was seen, what it means, what to do.
        page (str): Page of the documentation, below docs/, with a section.
    """

    name: str
    level: str
    text: str
    page: str


class Context(NamedTuple):
    """What a config says that the scalars do not.

    Attributes:
        num_workers (int | None): Of the loader.
        goes_on (bool): Whether the network was trained before. Defaults to False.
        num_queries (int | None): Pictures that kNN classifies; None if the config does not tell.
        refresh (float): Share by which returning rows are turned to the present feature. Defaults
            to 0.
    """

    num_workers: int | None = None
    goes_on: bool = False
    num_queries: int | None = None
    refresh: float = 0.0


def context_of(cfg: Any) -> Context:
    """Context out of a run's config (a Config or dict; missing parts are left open)."""
    loader = cfg.get('train_dataloader') or {}
    model = cfg.get('model') or {}
    init = (model.get('backbone') or {}).get('init_cfg')
    goes_on = bool(cfg.get('load_from') or model.get('pretrained') or is_pretrained(init))
    return Context(loader.get('num_workers'), goes_on, _num_queries(cfg),
                   (model.get('head') or {}).get('refresh_returning', 0.0))


def _num_queries(cfg: Any) -> int | None:
    """Pictures that are classified, by the lines of their lists; None where those do not tell."""
    dataset = (cfg.get('val_dataloader') or {}).get('dataset') or {}
    lists = [part.get('ann_file') for part in dataset.get('datasets', ())
             if all(type_name(step) != 'MarkReference' for step in part.get('pipeline', ()))]
    if not lists or not all(isinstance(name, str) and name.endswith(LISTS) and os.path.isfile(name)
                            for name in lists):
        return None
    return sum(len(Path(name).read_bytes().splitlines()) for name in lists)


def knn_error(accuracy: float, num_queries: int) -> float:
    """Two standard errors of an accuracy, in percent points.

    Args:
        accuracy (float): In percent.
        num_queries (int): Pictures that were classified.
    """
    share = min(max(accuracy / 100, 0.0), 1.0)
    return 200 * math.sqrt(share * (1 - share) / num_queries)


def verdicts_of(run: Run, context: Context | None = None,
                untrained: dict[str, float] | None = None) -> list[Verdict]:
    """All verdicts that a run's numbers allow.

    Args:
        run (Run): Its scalars.
        context (Context, optional): Of its config. Defaults to nothing known.
        untrained (dict[str, float], optional): Results before training, by the scalar's name.
            Defaults to None.
    """
    context = context or Context()
    found = [loss_at_chance(run, context), not_finite(run), collapsed(run),
             loader_bound(run, context), knn_falls(run),
             *not_above_start(run, context, untrained or {}), returns_as_nothing(run)]
    return [one for one in found if one is not None]


def loss_at_chance(run: Run, context: Context) -> Verdict | None:
    """Whether the loss is still what a network that knows nothing has: ln A.

    With refresh such a network begins near 0, each image's row being its feature, and rises to ln A
    as more of them compete. There only a loss that has fallen again says that something is learned.
    """
    loss, active = run.curves.get('loss', []), run.curves.get('active_classes', [])
    num_active = active[-1][1] if active else None
    if len(loss) < LEAST_POINTS or not num_active or num_active < 2:
        return None
    chance, now = math.log(num_active), _tail(loss)
    if not math.isfinite(now):
        return None
    if now > chance - LEARNED:
        # Classes in the softmax that have been seen a few times each have hardly begun to differ.
        early = loss[-1][0] < EARLY_PASSES * num_active
        return Verdict(
            'loss at chance', NOTICE if early else BAD,
            f'The loss is {now:.2f}, and a network that knows nothing has ln({num_active:,.0f}) = '
            f'{chance:.2f}. ' + ('The training is too short yet to tell. If it stays so, look'
                                 if early else 'After so many passes it should be lower: look')
            + ' at the learning rate (too low, or so high that it diverged) and at whether each '
            'picture has an id of its own.', 'verdicts.md#the-loss-is-at-chance')
    if context.refresh and not _has_fallen(loss):
        return Verdict(
            'loss does not tell yet', NOTICE, f'The loss is {now:.2f}, below chance, '
            f'ln({num_active:,.0f}) = {chance:.2f}, and has not fallen yet. Rows begin as features '
            '(refresh_returning), so that it begins low and rises, whether anything is learned or '
            'not. The accuracy of nearest neighbours tells.',
            'verdicts.md#the-loss-does-not-tell-yet')
    return Verdict('loss', GOOD, f'The loss has come down from chance, ln({num_active:,.0f}) = '
                   f'{chance:.2f}, to {now:.2f}.', 'verdicts.md#the-loss-has-come-down')


def not_finite(run: Run) -> Verdict | None:
    """Whether the loss stopped being a number."""
    loss = run.curves.get('loss', [])
    bad = [seen for seen, value in loss if not math.isfinite(value)]
    if not bad:
        return None
    return Verdict('loss not finite', BAD, f'The loss is not a number after {bad[0]:,.0f} images: '
                   'lower the learning rate, or train in bfloat16 or float32.',
                   'verdicts.md#the-loss-is-not-a-number')


def collapsed(run: Run) -> Verdict | None:
    """Whether features of all pictures are the same, or nearly on one line."""
    rank = run.curves.get('effective_rank', [])
    if len(rank) < LEAST_POINTS or not _tail(rank) < COLLAPSED:
        return None
    return Verdict('features collapse', BAD, f'The effective rank of the features is '
                   f'{_tail(rank):.1f} and was {max(value for _, value in rank):.1f}: all pictures '
                   'get nearly the same feature. Lower the learning rate, and begin anew.',
                   'verdicts.md#features-collapse')


def loader_bound(run: Run, context: Context) -> Verdict | None:
    """Whether the network waits for pictures."""
    whole, loading = run.curves.get('time', []), run.curves.get('data_time', [])
    if len(whole) < LEAST_POINTS or len(loading) < LEAST_POINTS or not _tail(whole) > 0:
        return None
    share = _tail(loading) / _tail(whole)
    if share <= LOADER_SHARE:
        return None
    workers = '' if context.num_workers is None else (
        f' The loader has {counted(context.num_workers, "worker")}.')
    return Verdict('loader-bound', NOTICE, f'{100 * share:.0f} % of the time goes into waiting for '
                   f'pictures.{workers} More workers, smaller copies of the pictures, or '
                   'augmentation on the device make it faster; results stay the same.',
                   'verdicts.md#the-loader-is-the-bottleneck')


def knn_falls(run: Run) -> Verdict | None:
    """Whether accuracy falls while the loss falls."""
    loss = run.curves.get('loss', [])
    for name, curve in sorted(run.curves.items()):
        if not name.startswith('knn/') or len(curve) < 3:
            continue
        best_seen, best = max(curve, key=lambda point: point[1])
        last_seen, last = curve[-1]
        before = [value for seen, value in loss if seen <= best_seen]
        # A loss that only wavers about chance is not one that falls.
        falls = before and _tail(loss) < before[-1] and _has_fallen(loss)
        if last < best - KNN_STEP and falls:
            return Verdict(
                'kNN falls while the loss falls', BAD, f'{_called(name)} was {best:.1f} % after '
                f'{best_seen:,.0f} images and is {last:.1f} % after {last_seen:,.0f}, while the '
                'loss went on falling: the network tells pictures apart by what does not matter. '
                'Stronger augmentation, a smaller network, a shorter training, or the checkpoint '
                f'of {best_seen:,.0f} images.', 'verdicts.md#knn-falls-while-the-loss-falls')
    return None


def not_above_start(run: Run, context: Context, untrained: dict[str, float]) -> list[Verdict]:
    """Whether accuracy is above that of the network before training."""
    found = []
    start, page = 'random weights', 'verdicts.md#not-above-random-weights'
    nothing = 'nothing useful has been learned yet.'
    advice = 'See whether the loss is below chance, and train longer.'
    if context.goes_on:
        start, page = 'the weights it began with', 'verdicts.md#not-above-the-weights-it-began-with'
        nothing, advice = 'these pictures have taught it nothing.', 'Try a lower learning rate.'
    # Few neighbours first: k = 20 says more than k = 200.
    for name, before in sorted(untrained.items(), key=lambda item: (len(item[0]), item[0])):
        curve = run.curves.get(name)
        if not curve or not name.startswith('knn/'):
            continue
        now, called = curve[-1][1], _called(name)
        error = KNN_STEP if not context.num_queries else knn_error(
            (now + before) / 2, context.num_queries)
        pictures = ('so few pictures' if not context.num_queries else
                    counted(context.num_queries, 'picture'))
        if before < now < before + error:
            found.append(Verdict(
                f'not above {start}', NOTICE, f'{called} is {now:.1f} %, and the network with '
                f'{start} has {before:.1f} %: the difference is within the error of {pictures}, '
                f'{error:.1f} points. More labelled pictures would tell. {advice}', page))
        elif now <= before:
            found.append(Verdict(
                f'not above {start}', BAD, f'{called} is {now:.1f} %, and the network with '
                f'{start} has {before:.1f} %: {nothing} {advice}', page))
        else:
            known = f' (± {error:.1f})' if context.num_queries else ''
            found.append(Verdict(
                f'above {start}', GOOD, f'{called} is {now:.1f} %{known}, with {start} it is '
                f'{before:.1f} %.', 'verdicts.md#above-the-start'))
    return found[:1]


def _called(name: str) -> str:
    k = re.fullmatch(r'knn/top1_k(\d+)', name)
    return f'The accuracy by the {k[1]} nearest neighbours' if k else name


def returns_as_nothing(run: Run) -> Verdict | None:
    """Whether weight decay shrinks class weights to nothing while they are outside the softmax."""
    staleness, curve = run.curves.get('row_staleness', []), run.curves.get('row_decay', [])
    decay = max((value for _, value in curve), default=0.0)
    if not staleness or not decay > MAX_DECAY:
        return None
    return Verdict('rows return as nothing', BAD, f'Class weights come back to the softmax after '
                   f'{_tail(staleness):,.0f} steps, in which weight decay leaves '
                   f'exp(-{decay:.1f}) of them: they begin anew each time. A smaller window, more '
                   'classes in the softmax, or no weight decay on the class weights.',
                   'verdicts.md#rows-return-as-nothing')


def _tail(curve: Curve, size: int | None = None) -> float:
    """Mean of the last points, by default of a fifth of them."""
    values = [value for _, value in curve[-(size or max(1, int(TAIL * len(curve)))):]]
    return sum(values) / len(values)


def _has_fallen(loss: Curve) -> bool:
    """Whether a loss is lower than it was, by more than its noise: by the means of its fifths."""
    size = max(1, int(TAIL * len(loss)))
    means = [_tail(loss[:end], size) for end in range(len(loss), 0, -size)]
    return means[0] < max(means) - LEARNED


def config_differences(configs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Values in which the configs of several runs differ.

    Args:
        configs (Sequence[dict]): Plain nested values.

    Returns:
        list[list[str]]: Rows of the key, with dots, and the value in each config, '' where it is
        not set; sorted by key.
    """
    flat = [_flatten(config, '') for config in configs]
    keys = sorted({key for one in flat for key in one} - OF_ONE_RUN)
    rows = [[key, *(one.get(key, '') for one in flat)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def _flatten(value: Any, prefix: str) -> dict[str, str]:
    if isinstance(value, dict) and value:
        return {key: text for name, one in value.items()
                for key, text in _flatten(one, f'{prefix}.{name}' if prefix else str(name)).items()}
    if isinstance(value, (list, tuple)) and any(isinstance(one, dict) for one in value):
        return {key: text for number, one in enumerate(value)
                for key, text in _flatten(one, f'{prefix}.{number}').items()}
    return {prefix: str(value)}
