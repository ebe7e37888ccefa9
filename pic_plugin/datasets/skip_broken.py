# SPDX-License-Identifier: Apache-2.0
"""Evaluation data with broken pictures in it: marked and left out, not the end of a training."""
from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log

from pic_plugin.datasets.file_names import printable

BROKEN = 'broken'  # metainfo of the sample that stands for one that cannot be loaded
NUM_TRIES = 100


class SkipBroken:
    """Loads a batch of an evaluation; in the place of a broken sample another one, marked as such.

    Metrics that know of the mark leave it out. A pipeline that fails for one sample after the other
    is taken to be wrong itself, and its error is raised.

    Args:
        dataset: One of mmengine's, or several in a ConcatDataset.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __call__(self, indices: Sequence[int]) -> list[Any]:
        """The samples of a batch, by torch's ``__getitems__`` protocol."""
        return [self._load(*_part(self.dataset, int(index))) for index in indices]

    def _load(self, dataset: Any, place: int) -> Any:
        try:
            sample = dataset[place]
        except MemoryError:
            raise
        except Exception as error:  # decoders raise anything
            return self._stand_in(dataset, place, error)
        if sample is None or _place_of(sample) not in (None, place):
            # A data set in training mode has taken another image, at random.
            return self._stand_in(dataset, place, ValueError('it cannot be loaded'))
        return sample

    def _stand_in(self, dataset: Any, place: int, error: Exception) -> Any:
        for step in range(1, min(NUM_TRIES, len(dataset))):
            try:
                sample = dataset[(place + step) % len(dataset)]
            except MemoryError:
                raise
            except Exception:
                continue
            if isinstance(sample, dict) and 'data_samples' in sample:
                sample['data_samples'].set_metainfo({BROKEN: True, 'sample_idx': place})
                path = dataset.get_data_info(place).get('img_path', f'image {place}')
                print_log(f'Evaluation leaves out {printable(path)}: {type(error).__name__}: '
                          f'{str(error).strip()}', logger='current', level=logging.WARNING)
                return sample
        raise error


def _part(dataset: Any, index: int) -> tuple[Any, int]:
    """The innermost data set that a sample is of, and its place there."""
    ends = getattr(dataset, 'cumulative_sizes', None)  # of a ConcatDataset
    if ends is None:
        return dataset, index
    number = bisect_right(ends, index)
    return _part(dataset.datasets[number], index - (ends[number - 1] if number else 0))


def _place_of(sample: Any) -> Any:
    element = sample.get('data_samples') if isinstance(sample, dict) else None
    return getattr(element, 'sample_idx', None)


def skip_broken(dataset: Any) -> None:
    """Let a loader of this data set mark broken samples; ``dataset[index]`` is what it was."""
    if hasattr(dataset, 'get_data_info'):
        dataset.__getitems__ = SkipBroken(dataset)
