# SPDX-License-Identifier: Apache-2.0
"""Faults of the evaluation data, found before the first step and not hours later."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mmengine.dist as dist
import numpy as np
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS
from mmpretrain.utils import get_ori_model

from pic_plugin.datasets.skip_broken import skip_broken
from pic_plugin.datasets.transforms import MarkReference
from pic_plugin.engine.type_names import type_name
from pic_plugin.models.pic import PIC

MAX_LABELS = 200_000  # of a data set whose labels are gone through: a second


def check_evaluation(runner: Runner, loop: Any) -> None:
    """Look at the metrics and the data of an evaluation, and let kNN pass over broken pictures.

    The data concern metrics that have ``check_references``, as KNNMetric does. No picture is read.
    Of classes that only one split has images of the log warns.

    Args:
        runner (Runner): For its log.
        loop: A validation or test loop that has been built; None does nothing.

    Raises:
        ValueError: If there are fewer references than a k, or a metric asks for labels that a PIC
            model does not predict.
    """
    metrics = getattr(getattr(loop, 'evaluator', None), 'metrics', [])
    if getattr(type(get_ori_model(runner.model)), 'predict', None) is PIC.predict:
        _check_metrics(metrics)
    metrics = [metric for metric in metrics if hasattr(metric, 'check_references')]
    if not metrics:
        return
    dataset = loop.dataloader.dataset
    parts = getattr(dataset, 'datasets', [dataset])
    references = [part for part in parts if _marks_references(part)]
    queries = [part for part in parts if not _marks_references(part)]
    if references and queries:  # else the metric says what to write
        for metric in metrics:
            metric.check_references(sum(map(len, references)))
        only = _classes_in_one(references, queries)
        if only and dist.is_main_process():
            runner.logger.warning('kNN evaluation: ' + only)
    skip_broken(dataset)


def _check_metrics(metrics: list[Any]) -> None:
    """Of mmpretrain's metrics, which its data sets' configs bring along, none takes features."""
    for metric in metrics:
        if type(metric).process.__module__.startswith('mmpretrain.'):
            raise ValueError(
                f'{type(metric).__name__} compares predicted labels, and PIC predicts none, but '
                "features: set val_evaluator=dict(type='KNNMetric', topk=(20, 200)) and "
                'val_dataloader as docs/evaluate.md has them, or, to train without evaluation, '
                'val_dataloader=None, val_evaluator=None and val_cfg=None.')


def _marks_references(part: Any) -> bool:
    transforms = getattr(getattr(part, 'pipeline', None), 'transforms', [])
    return any(isinstance(transform, MarkReference) for transform in transforms)


def _classes_in_one(references: list[Any], queries: list[Any], most: int = MAX_LABELS) -> str:
    """A sentence on classes that only one of the splits has images of; '' if there are none.

    Of a data set of more than ``most`` images so many are looked at, evenly from all; classes that
    seem to be missing in it are not named.
    """
    labels: tuple[set, set] = (set(), set())
    is_whole = [True, True]
    for number, parts in enumerate((references, queries)):
        for part in parts:
            if not hasattr(part, 'get_data_info'):
                return ''
            step = -(-len(part) // most) or 1
            is_whole[number] &= step == 1
            found = (part.get_data_info(place).get('gt_label')
                     for place in range(0, len(part), step))
            labels[number].update(int(label) for label in found
                                  if np.ndim(label) == 0 and label is not None)
    names = references[0].metainfo.get('classes')
    sentences = []
    for one, name in ((0, 'to evaluate'), (1, 'among the references')):
        missing = sorted(labels[one] - labels[1 - one])
        if missing and labels[1 - one] and is_whole[1 - one]:
            shown = ', '.join(str(names[i]) if names and i < len(names) else str(i)
                              for i in missing[:5])
            sentences.append(f'no image {name} is of class {shown}'
                             + (f' and {len(missing) - 5} more' if len(missing) > 5 else ''))
    return '; '.join(sentences) + '.' if sentences else ''


@contextmanager
def explained_data(tool: str, runner: Runner) -> Iterator[None]:
    """Say what is wrong with folders of a data set, where mmengine and mmpretrain do not.

    Raises:
        SystemExit: If one is not there or has no pictures in folders by class, or data sets that
            are joined have different classes.
    """
    keys = 'check data_root, data_prefix and ann_file of the data sets'
    try:
        yield
    except OSError as error:
        if error.filename is None:  # our own say what to do
            raise
        raise SystemExit(f'{tool}: {error.filename}: {error.strerror}: {keys}.') from error
    except RuntimeError as error:
        if 'Found 0 files in subfolders' not in str(error):
            raise
        raise SystemExit(f'{tool}: {error}. Pictures have to be in a folder for each class: '
                         f'{keys}.') from error
    except ValueError as error:
        if 'meta information of the' not in str(error):
            raise
        for name in ('val_dataloader', 'test_dataloader'):
            cfg = (runner.cfg.get(name) or {}).get('dataset')
            if isinstance(cfg, dict) and type_name(cfg) == 'ConcatDataset':
                difference = _different_classes([DATASETS.build(part) for part in cfg['datasets']])
                if difference:
                    raise SystemExit(f'{tool}: {difference}') from error
        raise


def _different_classes(parts: list[Any]) -> str:
    first = list(parts[0].metainfo.get('classes') or [])
    for part in parts[1:]:
        own = list(part.metainfo.get('classes') or [])
        if own == first:
            continue
        where = [str(getattr(one, 'img_prefix', '') or getattr(one, 'ann_file', '')
                     or type(one).__name__) for one in (parts[0], part)]
        lacking = [f'{place} lacks {", ".join(sorted(missing)[:5])}' for place, missing in (
            (where[1], set(first) - set(own)), (where[0], set(own) - set(first))) if missing]
        return (f'{where[0]} and {where[1]} do not have the same classes in the same order: '
                f'{"; ".join(lacking) or f"{first[:5]} and {own[:5]}"}. Labels would differ in '
                'meaning: add the missing folders (they may hold few images), take the others '
                'away, or give both data sets the same metainfo=dict(classes=[...]).')
    return ''
