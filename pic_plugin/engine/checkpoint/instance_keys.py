# SPDX-License-Identifier: Apache-2.0
"""Lasting identities of images, by which class weights follow them to a new place."""
from __future__ import annotations

import os
from typing import Any

import numpy as np

from pic_plugin.datasets.file_names import hash_names
from pic_plugin.datasets.identities import PartNames, tell_apart
from pic_plugin.datasets.instance_numbers import number_instances

NUM_NAMED = 5  # places that an error names


def instance_keys(dataset: Any, field: str | None) -> np.ndarray | None:
    """A number for each instance class that stays when images are added, moved or reordered.

    Args:
        dataset: The training data set: one of mmengine's, or wrappers of such.
        field (str, optional): Entry of an image's data info that names it. Paths are taken relative
            to the folder of the (innermost) data set, so that it may move.

    Returns:
        np.ndarray: (N,) int64 hashes (BLAKE2b), or None if ``field`` is None or some images have no
        such entry: then they are known by their place alone.
    """
    if field is None or not len(dataset):
        return None
    instances = number_instances(dataset)
    parts = []
    for leaf, (places, _) in zip(instances.leaves, instances.firsts):
        hashes = _leaf_keys(leaf, field, places)
        if hashes is None:
            return None
        parts.append(PartNames(hashes, _label(leaf)))
    keys = np.empty(instances.num_instances, dtype=np.int64)
    keys[np.concatenate([ids for _, ids in instances.firsts])] = tell_apart(parts)
    return keys


def _leaf_keys(leaf: Any, field: str, places: np.ndarray) -> np.ndarray | None:
    if not len(places):
        return np.zeros(0, dtype=np.int64)
    if field == 'img_path' and hasattr(leaf, 'instance_identities'):
        return np.asarray(leaf.instance_identities())[places]
    if not hasattr(leaf, 'get_data_info') or field not in leaf.get_data_info(int(places[0])):
        return None
    roots = _roots(leaf)
    return hash_names(
        os.fsencode(_relative(str(leaf.get_data_info(place)[field]), roots))
        for place in places.tolist())


def _label(leaf: Any) -> str:
    if hasattr(leaf, 'instance_identities'):
        return leaf.label
    return next(iter(_roots(leaf)), '')


def match_instances(saved: np.ndarray | None, num_saved: int, current: np.ndarray | None,
                    num_current: int) -> np.ndarray | None:
    """Where the images of a saved run are in the data set now.

    Args:
        saved (np.ndarray, optional): Keys of the images of the saved run.
        num_saved (int): How many instance classes it had; more than keys, if room was left.
        current (np.ndarray, optional): Keys of the images of the data set.
        num_current (int): Instance classes of this run.

    Returns:
        np.ndarray: (num_saved,) int64 new id of each saved one, or None if all ids are the same.

    Raises:
        ValueError: If saved images are gone, or images cannot be told from each other.
    """
    if saved is None or current is None:
        if num_saved == num_current:
            return None
        raise ValueError(
            f'the data set had {num_saved} images and has {num_current}, and which of them are new '
            'cannot be told: their data infos name no file. Resume with the data set as it was, '
            'or let its data infos have an entry that names the image and set '
            "InstanceBankHook(id_key='THAT_ENTRY') from the start.")
    if num_current < num_saved:
        raise ValueError(f'the saved run had {num_saved} instances and this one has {num_current}: '
                         + _GONE)
    if np.array_equal(current[:len(saved)], saved):
        return None
    order = np.argsort(current, kind='stable')
    if len(np.unique(saved)) < len(saved) or (np.diff(current[order]) == 0).any():
        raise ValueError('the files of the data set are in another order than in the saved run, '
                         'and some are listed more than once, so that class weights cannot be '
                         'given to their images. Restore the order, or start anew from the network '
                         'with load_from and resume=False.')
    found = order[np.searchsorted(current[order], saved).clip(max=len(current) - 1)]
    gone = np.flatnonzero(current[found] != saved)
    if len(gone):
        raise ValueError(
            f'{len(gone)} of the {len(saved)} images of the saved run are not in the data set now '
            f'(by their number then: {", ".join(map(str, gone[:NUM_NAMED]))}'
            f'{", ..." if len(gone) > NUM_NAMED else ""}): {_GONE}')
    # Classes that were left room for and had no image take the places that are left.
    spare = np.setdiff1d(np.arange(num_current), found)
    return np.concatenate([found, spare[:num_saved - len(saved)]]).astype(np.int64)


_GONE = ('check that the whole folder is there. Images may be added to a run, but not removed: '
         'restore them, or start anew from the network with load_from and resume=False.')


def _roots(dataset: Any) -> list:
    prefixes = getattr(dataset, 'data_prefix', None)
    roots = list(prefixes.values()) if isinstance(prefixes, dict) else [prefixes]
    roots += [getattr(dataset, 'img_prefix', None), getattr(dataset, 'data_root', None)]
    # The longest first: names within the images' own folder stay when folders above it change.
    return sorted((os.path.join(root, '') for root in roots if isinstance(root, str) and root),
                  key=len, reverse=True)


def _relative(name: str, roots: list) -> str:
    for root in roots:
        if name.startswith(root):
            return name[len(root):]
    return name
