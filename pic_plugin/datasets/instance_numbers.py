# SPDX-License-Identifier: Apache-2.0
"""Instance ids of data sets that wrap, join or repeat others: one for each image.

mmengine's ``sample_idx`` is the place in the innermost data set, so that joined data sets give one
id to several images. The innermost data sets are numbered through here, and a transform at the head
of each one's pipeline turns its ``sample_idx`` into the id. Copies of an image (repeated, balanced
by class, listed in two parts) keep one id.
"""
from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import mmengine.dataset
import numpy as np
import torch.utils.data
from mmpretrain.datasets import KFoldDataset

from pic_plugin.datasets.file_names import hash_names
from pic_plugin.datasets.instance_classes import number_by_first

NUM_PROBES = 64
WRAPPERS = (mmengine.dataset.RepeatDataset, mmengine.dataset.ClassBalancedDataset, KFoldDataset,
            torch.utils.data.Subset)


class GiveInstanceId:
    """The transform that turns a place in the innermost data set into an instance id.

    Args:
        offset (int): Id of the first image.
        table (np.ndarray, optional): (n,) int64 id of each place, -1 for none. Defaults to None:
            they follow ``offset``.
    """

    def __init__(self, offset: int, table: np.ndarray | None = None) -> None:
        self.offset, self.table = offset, table

    def __call__(self, results: dict) -> dict | None:
        """Set ``sample_idx``, or return None for an image that is none of the training's.

        The latter comes where a data set replaces a broken image by any other one, of which a
        wrapper may show a part only: mmengine then takes yet another.
        """
        place = results['sample_idx']
        number = place + self.offset if self.table is None else int(self.table[place])
        if number < 0:
            return None
        results['sample_idx'] = number
        return results


class Instances(NamedTuple):
    """The instance classes of a data set.

    Attributes:
        num_instances (int): N.
        ids (np.ndarray, optional): (len,) int64 id of each place in the data set; None: the place.
        leaves (list): Innermost data sets.
        firsts (list[tuple[np.ndarray, np.ndarray]]): For each of them the places whose ids are
            first given there, and these ids.
        renumbered (bool): Whether pipelines were changed, so that workers that run already would
            give other ids.
    """

    num_instances: int
    ids: np.ndarray | None
    leaves: list[Any]
    firsts: list[tuple[np.ndarray, np.ndarray]]
    renumbered: bool


_known: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def number_instances(dataset: Any) -> Instances:
    """Give each image of a data set one id, and let its pipelines give it to samples.

    Args:
        dataset: The training data set, of any depth of mmengine's and mmpretrain's wrappers and of
            torch's ``ConcatDataset`` and ``Subset``.

    Raises:
        ValueError: If it is empty, or gives ids that nothing is known of.
    """
    try:
        if dataset in _known:
            return _known[dataset]
    except TypeError:  # a range, for instance, takes no reference
        pass
    if len(dataset) == 0:
        raise ValueError('the training data set is empty: check data_root, data_prefix and the '
                         'extensions of the images.')
    leaves: list[Any] = []
    leaf, place = _places(dataset, leaves)
    if leaves[0] is dataset and _same_items(dataset) is None:
        result = Instances(len(dataset), None, leaves, [(place, place)], False)
    else:
        result = _number(leaves, leaf, place)
    try:
        _known[dataset] = result
    except TypeError:
        pass
    return result


def _places(dataset: Any, leaves: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """(len,) number of the innermost data set, and place in it, of each item."""
    if isinstance(dataset, torch.utils.data.ConcatDataset):
        parts = [_places(part, leaves) for part in dataset.datasets]
        return (np.concatenate([leaf for leaf, _ in parts]),
                np.concatenate([place for _, place in parts]))
    if isinstance(dataset, WRAPPERS):
        leaf, place = _places(dataset.dataset, leaves)
        if isinstance(dataset, mmengine.dataset.RepeatDataset):
            return np.tile(leaf, dataset.times), np.tile(place, dataset.times)
        if isinstance(dataset, KFoldDataset):
            return leaf, place
        chosen = np.asarray(dataset.indices if isinstance(dataset, torch.utils.data.Subset) else
                            dataset.repeat_indices, dtype=np.int64)
        return leaf[chosen], place[chosen]
    _probe(dataset)
    number = next((i for i, leaf in enumerate(leaves) if leaf is dataset), len(leaves))
    if number == len(leaves):
        leaves.append(dataset)
    return np.full(len(dataset), number, dtype=np.int32), np.arange(len(dataset))


def _probe(dataset: Any) -> None:
    """Make sure that an innermost data set counts its images.

    Raises:
        ValueError: If it gives other ids: a wrapper that nothing is known of, most likely.
    """
    if not hasattr(dataset, 'get_data_info') or not len(dataset):
        return
    for place in sorted({*np.linspace(0, len(dataset) - 1, NUM_PROBES).astype(int).tolist()}):
        sample_idx = dataset.get_data_info(place).get('sample_idx')
        if sample_idx != place:
            raise ValueError(
                f'{type(dataset).__name__} gives image {place} the id {sample_idx}: ids of '
                'different images may collide, and would be trained as one class. Use ImageFiles, '
                'which reads several folders, or the wrappers ConcatDataset, RepeatDataset, '
                'ClassBalancedDataset and KFoldDataset, or let get_data_info(i) give '
                'sample_idx=i.')


def _number(leaves: list[Any], leaf: np.ndarray, place: np.ndarray) -> Instances:
    lengths = [len(one) for one in leaves]
    ends = np.cumsum(lengths)
    offsets = ends - lengths
    images = place + offsets[leaf]  # (len,) counted through all innermost data sets
    same = np.arange(ends[-1])
    for one, offset, length in zip(leaves, offsets, lengths):
        copies = _same_items(one)
        if copies is not None:
            _, first, inverse = np.unique(copies, return_index=True, return_inverse=True)
            same[offset:offset + length] = offset + first[inverse]
    if len(leaves) > 1:
        same = same[_same_files(leaves, lengths)]
    # Ids in the order in which the data set has the images; what it never shows needs none.
    ids = number_by_first(same[images])
    num_instances = int(ids.max()) + 1
    table = np.full(len(same), -1, dtype=np.int64)
    table[same[images]] = ids
    table = table[same]
    renumbered = False
    firsts = []
    seen = np.zeros(num_instances, dtype=bool)
    for one, offset, length in zip(leaves, offsets, lengths):
        own = table[offset:offset + length]
        renumbered |= _give_ids(one, own)
        fresh = np.flatnonzero((own >= 0) & ~seen[own])
        _, once = np.unique(own[fresh], return_index=True)
        fresh = fresh[once]
        seen[own[fresh]] = True
        firsts.append((fresh, own[fresh]))
    return Instances(num_instances, ids, leaves, firsts, renumbered)


def _same_items(dataset: Any) -> np.ndarray | None:
    """(len,) int64, equal for places that show one image; None if all differ, as usual."""
    if hasattr(dataset, 'instance_of_items'):
        items = dataset.instance_of_items()
    else:
        indices = getattr(dataset, '_indices', None)
        items = None if indices is None or isinstance(indices, (int, np.integer)) else np.asarray(
            indices, dtype=np.int64)
    # A filter after the subset would have made them other places.
    if items is None or len(items) != len(dataset) or len(np.unique(items)) == len(items):
        return None
    return items


def _same_files(leaves: Sequence[Any], lengths: Sequence[int]) -> np.ndarray:
    """(N,) int64 first image of all innermost data sets that is the same file."""
    first = np.arange(sum(lengths))
    where: dict[int, int] = {}
    number = 0
    for leaf, length in zip(leaves, lengths):
        infos = (leaf.get_data_info(i) for i in range(length)) if hasattr(
            leaf, 'get_data_info') else ({} for _ in range(length))
        for info in infos:
            path = info.get('img_path')
            if path is not None:
                file = os.fsencode(path if '://' in str(path) else os.path.abspath(path))
                first[number] = where.setdefault(int(hash_names([file])[0]), number)
            number += 1
    return first


def _give_ids(leaf: Any, ids: np.ndarray) -> bool:
    """Let a data set give these ids; whether it gives others than before."""
    offset = int(ids[0])
    runs = offset >= 0 and bool((ids == offset + np.arange(len(ids))).all())
    transforms = getattr(getattr(leaf, 'pipeline', None), 'transforms', None)
    if runs and offset == 0 and not any(
            isinstance(one, GiveInstanceId) for one in transforms or ()):
        return False
    if not isinstance(transforms, list):
        raise ValueError(
            f'{type(leaf).__name__} is joined with other data sets, and has no pipeline of '
            'transforms that could give its images ids of their own: let it be one of mmengine\'s '
            'data sets, such as ImageFiles.')
    transforms[:] = [one for one in transforms if not isinstance(one, GiveInstanceId)]
    transforms.insert(0, GiveInstanceId(offset) if runs else GiveInstanceId(0, ids))
    return True

