# SPDX-License-Identifier: Apache-2.0
"""What tells an image from all others for good, so that class weights follow it to a new place."""
from __future__ import annotations

import hashlib
import os
from typing import Any, Optional

import numpy as np

NUM_NAMED = 5  # places that an error names


def instance_keys(dataset: Any, field: Optional[str]) -> Optional[np.ndarray]:
    """A number for each image of a data set that stays when images are added or reordered.

    Args:
        dataset: With ``get_data_info``, as mmengine's ``BaseDataset``.
        field (str, optional): Entry of an image's data info that names it. Paths are taken relative
            to the data set's folder, so that the folder may move.

    Returns:
        np.ndarray: (N,) int64 hashes (BLAKE2b), or None if ``field`` is None or the images have no
        such entry: then they are known by their place alone.
    """
    if field is None or not hasattr(dataset, 'get_data_info') or not len(dataset):
        return None
    if field not in dataset.get_data_info(0):
        return None
    roots = _roots(dataset)
    names = (dataset.get_data_info(i)[field] for i in range(len(dataset)))
    digests = b''.join(
        hashlib.blake2b(_relative(str(name), roots).encode(), digest_size=8).digest()
        for name in names)
    return np.frombuffer(digests, dtype='<i8').astype(np.int64)


def match_instances(saved: Optional[np.ndarray], num_saved: int, current: Optional[np.ndarray],
                    num_current: int) -> Optional[np.ndarray]:
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
    if len(current) >= len(saved) and np.array_equal(current[:len(saved)], saved):
        return None
    order = np.argsort(current, kind='stable')
    if len(np.unique(saved)) < len(saved) or (np.diff(current[order]) == 0).any():
        raise ValueError('the files of the data set are in another order than in the saved run, '
                         'and some are listed more than once, so that class weights cannot be '
                         'given to their images. Restore the order, or start anew from the network '
                         'with load_from and resume=False.')
    places = np.searchsorted(current[order], saved).clip(max=max(len(current) - 1, 0))
    found = order[places] if len(current) else places
    gone = np.flatnonzero(current[found] != saved) if len(current) else np.arange(len(saved))
    if len(gone):
        raise ValueError(
            f'{len(gone)} of the {len(saved)} images of the saved run are not in the data set now '
            f'(by their place then: {", ".join(map(str, gone[:NUM_NAMED]))}'
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
