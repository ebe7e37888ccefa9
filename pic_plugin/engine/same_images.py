# SPDX-License-Identifier: Apache-2.0
"""Whether all processes see the same images: an id has to be one image in all of them."""
from __future__ import annotations

import hashlib
from typing import Any

import mmengine.dist as dist
import numpy as np

from pic_plugin.datasets.file_names import printable
from pic_plugin.datasets.instance_numbers import number_instances


def check_same_images(dataset: Any, keys: np.ndarray | None, field: str | None) -> None:
    """Make sure that all processes, which find the images each for itself, find the same ones.

    Args:
        dataset: The training data set of this process.
        keys (np.ndarray, optional): (N,) int64, of :func:`instance_keys`. None: images are known
            by their place alone, and only how many there are is compared.
        field (str, optional): Entry of a data info that names an image.

    Raises:
        ValueError: In all processes, if they do not.
    """
    seen = dist.all_gather_object((len(dataset), _digest(keys)))
    if seen.count(seen[0]) == len(seen):
        return
    counts = [count for count, _ in seen]
    first = ''
    if keys is not None and all(digest is not None for _, digest in seen):
        number = _first_difference(keys, max(counts))
        images = dist.all_gather_object((_digest(keys[number:number + 1]),
                                         _name(dataset, number, field)))
        other = next(rank for rank, image in enumerate(images) if image[0] != images[0][0])
        first = (f' The first that differs is image {number}: {images[0][1]} in process 0, '
                 f'{images[other][1]} in process {other}.')
    raise ValueError(
        'the processes see different images: '
        + ', '.join(f'{count} in process {rank}' for rank, count in enumerate(counts))
        + f'.{first} Images of one id would be trained as one class. Let all processes read the '
        'same files (complete copies, or one folder that nothing is written to), then start '
        'again. Copies in folders of different names are the same below data_root alone; '
        'InstanceBankHook(id_key=None) compares numbers of images only.')


def _digest(keys: np.ndarray | None) -> bytes | None:
    return None if keys is None else hashlib.blake2b(keys.tobytes(), digest_size=16).digest()


def _first_difference(keys: Any, most: int) -> int:
    """The first id whose key is not the same in all processes, which look for it together."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        digests = dist.all_gather_object(_digest(keys[:middle + 1]))
        low, high = (middle + 1, high) if len(set(digests)) == 1 else (low, middle)
    return low


def _name(dataset: Any, number: int, field: str | None) -> str:
    instances = number_instances(dataset)
    for leaf, (places, ids) in zip(instances.leaves, instances.firsts):
        for place in places[ids == number].tolist():
            return printable(str(leaf.get_data_info(place)[field]))
    return 'none'
