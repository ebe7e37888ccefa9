# SPDX-License-Identifier: Apache-2.0
"""Data set of image files in folders, lists, archives and stores, of millions if need be."""
from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

from pic_plugin.datasets.endings import as_endings, readable_endings
from pic_plugin.datasets.file_index import IndexStore
from pic_plugin.datasets.file_report import FileReport
from pic_plugin.datasets.image_table import ImageTable
from pic_plugin.datasets.instance_classes import InstanceKey
from pic_plugin.datasets.instance_grouping import SEARCHES, group_images
from pic_plugin.datasets.sources import (
    Part,
    ReadOptions,
    Roots,
    join_path,
    named_roots,
    nested,
    open_list,
    open_place,
)


@DATASETS.register_module()
class ImageFiles(BaseDataset):
    """Images of folders, lists, archives and stores, each an instance class or one with others.

    :attr:`report`, which the plan of a training prints, says what is read, what is left out and
    what is one class. Names are kept in one array, and the index of a large data set is kept on
    disk and mapped into memory at the next start.

    A data info holds ``img_path`` (for a member of an archive a path that mmengine's file
    functions read, see :mod:`pic_plugin.datasets.members`), ``sample_idx`` and, where labels are
    known, ``gt_label``.

    Args:
        data_root (str | list[str] | dict[str, str]): One place or several: a folder, a ``.tar`` or
            ``.zip``, an LMDB, a Hugging Face data set on disk, or a pattern such as
            ``'shards/*.tar'``. Keys of a dict are lasting names of the places: see
            :func:`pic_plugin.datasets.identities.tell_apart`. With ``ann_file``: the folder that
            listed paths are relative to.
        ann_file (str | list[str]): Lists of paths: ``.txt``, ``.csv``, ``.tsv`` or ``.jsonl``. A
            relative one is looked up under ``data_root`` if it is not there. Defaults to ''.
        data_prefix (str): Folder below ``data_root``. Defaults to ''.
        with_label (bool): Whether images have labels: of a list from its column, else the first
            folder below the place. Defaults to False.
        extensions (Sequence[str], optional): Endings of images. Defaults to None: all that can be
            read. Lists are taken as they are.
        path_column (str, optional): Of CSV and JSONL. Defaults to None: a usual name.
        label_column (str, optional): Of CSV, JSONL and tables. Defaults to None: a usual name.
        instance_key (dict, optional): What images of one class share: ``dict(column=...)``,
            ``dict(pattern=...)`` or ``dict(duplicates=..., similarity=...)``; see
            :class:`pic_plugin.datasets.instance_classes.InstanceKey`. The data set is then as long
            as there are keys, and each visit draws one image of its class. Defaults to None.
        duplicates (str, optional): What to do about files with the same bytes: 'report', 'merge'
            them into one class, or 'ignore'. Defaults to None: 'report' up to 100,000 images, else
            'ignore'.
        backend_args (dict, optional): Of mmengine's storage back-end that lists and reads the
            files. Defaults to None: by the prefix of paths.
        cache_dir (str, optional): Where indices are kept. Defaults to None: see
            :class:`pic_plugin.datasets.file_index.IndexStore`.
        pipeline (Sequence): Transforms, from one that loads ``img_path``.
        metainfo (dict, optional): Meta information. Defaults to None.
        **kwargs: ``classes``, ``indices``, ``test_mode``, ``lazy_init`` and ``max_refetch`` of
            mmpretrain's data sets.

    Attributes:
        report (FileReport): What was found and left out.

    Raises:
        FileNotFoundError: If a place or list is not there.
        ValueError: If there are no images, or an option is not understood.
    """

    def __init__(self,
                 data_root: Roots = '',
                 ann_file: str | Sequence[str] = '',
                 data_prefix: str | dict = '',
                 with_label: bool = False,
                 extensions: Sequence[str] | None = None,
                 path_column: str | None = None,
                 label_column: str | None = None,
                 instance_key: dict | None = None,
                 duplicates: str | None = None,
                 backend_args: dict | None = None,
                 cache_dir: str | None = None,
                 pipeline: Sequence[Any] = (),
                 metainfo: dict | None = None,
                 **kwargs: Any) -> None:
        if duplicates is not None and duplicates not in SEARCHES:
            raise ValueError(f'duplicates={duplicates!r} is unknown: choose one of {SEARCHES}.')
        self.roots = data_root
        self.lists = [ann_file] if isinstance(ann_file, (str, Path)) else list(ann_file)
        self.prefix = data_prefix.get('img_path', '') if isinstance(data_prefix, dict) else (
            data_prefix)
        self.with_label = with_label
        self.instance_key = InstanceKey.of(instance_key)
        self.duplicates = duplicates
        self.backend_args = None if backend_args is None else dict(backend_args)
        self._options = ReadOptions(
            as_endings(extensions or readable_endings()), with_label, path_column, label_column,
            self.instance_key.column if self.instance_key else None, self.backend_args)
        self._store = IndexStore(cache_dir)
        self.report = FileReport()
        kwargs.pop('serialize_data', None)  # names are in one array anyway
        super().__init__(ann_file='', metainfo=metainfo, data_root='', pipeline=pipeline, **kwargs)

    def full_init(self) -> None:
        """Find the images and number their classes."""
        if self._fully_initialized:  # type: ignore[has-type]
            return
        self.table = ImageTable(self._open_parts())
        self.report = FileReport()
        for part in self.table.parts:
            self.report.add(part.files.report)
        if not self.table.num_images:
            raise ValueError(f'there are no images in {self.table}: check data_root and the '
                             f"endings of the images' names. {self.report}")
        self._labels, classes = self.table.labels(self.with_label, self.CLASSES)
        if classes is not None:
            self._metainfo['classes'] = tuple(classes)
        self._classes, self._identities, notes = group_images(
            self.table, self.instance_key, self.duplicates, self._store)
        self.report.notes += notes
        # Which class each item is of; None for all of them, in their order.
        self._items: np.ndarray | None = None
        self._fully_initialized = True
        if self._indices is not None:
            self.get_subset_(self._indices)

    def _open_parts(self) -> list[Part]:
        lists = [file for file in self.lists if file]
        if lists:
            if not isinstance(self.roots, (str, os.PathLike)):
                raise ValueError('with ann_file, data_root is the one folder that listed paths are '
                                 f'relative to, not {self.roots!r}: join a data set for each '
                                 'folder by ConcatDataset.')
            root = os.path.join(os.path.expanduser(str(self.roots or '')), self.prefix)
            return [open_list(_find_list(str(file), root), root, self._options, self._store)
                    for file in lists]
        if self._options.key_column and not self.roots:
            raise ValueError('instance_key names a column, and there is no ann_file that has one.')
        roots = [(name, os.path.join(place, self.prefix) if self.prefix else place)
                 for name, place in named_roots(self.roots)]
        if not roots:
            raise ValueError('neither data_root nor ann_file is given: say where the images are.')
        pair = nested([place for _, place in roots if '://' not in place])
        if pair is not None:
            raise ValueError(f'data_root names {pair[0]} and {pair[1]}, which is the same folder '
                             'or lies in it, so that its images would be listed '
                             'twice: leave one of them out.')
        return [open_place(place, name, self._options, self._store) for name, place in roots]

    @property
    def places(self) -> str:
        """Where the images are, for people to read."""
        self.full_init()
        return str(self.table)

    @property
    def label(self) -> str:
        """What tells these places from those of other data sets."""
        self.full_init()
        return os.pathsep.join(part.name or part.label for part in self.table.parts)

    def __len__(self) -> int:
        """Number of classes: of images, where each is one."""
        self.full_init()
        if self._items is not None:
            return len(self._items)
        return len(self._identities)

    def get_data_info(self, idx: int) -> dict:
        """The first image of class ``idx``; a visit draws any of them."""
        self.full_init()
        idx = range(len(self))[idx]
        number = self._class_of_item(idx)
        return self._info(number if self._classes is None else
                          int(self._classes.images_of(number)[0]), idx)

    def prepare_data(self, idx: int) -> Any:
        """Visit class ``idx``: one of its images, through the pipeline."""
        idx = range(len(self))[idx]
        number = self._class_of_item(idx)
        # An evaluation looks at the same image each time.
        if self._classes is None or self.test_mode:
            return self.pipeline(self.get_data_info(idx))
        return self.pipeline(self._info(self._classes.draw(number), idx))

    def _class_of_item(self, idx: int) -> int:
        return idx if self._items is None else int(self._items[idx])

    def _info(self, image: int, idx: int) -> dict:
        info: dict[str, Any] = dict(img_path=self.table.path(image), sample_idx=idx)
        if self._labels is not None:
            info['gt_label'] = int(self._labels[image])
        if self.backend_args is not None:
            info['backend_args'] = self.backend_args
        return info

    def get_gt_labels(self) -> np.ndarray:
        """(len,) labels."""
        return np.array([self.get_data_info(i)['gt_label'] for i in range(len(self))])

    def instance_of_items(self) -> np.ndarray | None:
        """(len,) int64: equal for items of one class; None if all differ."""
        self.full_init()
        return self._items

    def instance_identities(self) -> np.ndarray:
        """(len,) int64 by which the class of each item is known when the data set has grown."""
        self.full_init()
        return self._identities if self._items is None else self._identities[self._items]

    def get_subset_(self, indices: Sequence[int] | int) -> None:
        """Keep some items: the first (or, negative, last) ones, or those at ``indices``."""
        length = len(self)
        if isinstance(indices, (int, np.integer)):
            if abs(int(indices)) > length:
                raise IndexError(f'{indices} images are asked for, and there are {length}.')
            chosen = np.arange(length)[:indices] if indices >= 0 else np.arange(length)[indices:]
        else:
            chosen = np.arange(length)[np.asarray(indices, dtype=np.int64)]
        self._items = chosen if self._items is None else self._items[chosen]

    def get_subset(self, indices: Sequence[int] | int) -> ImageFiles:
        """A data set of some of the items; names are shared with this one."""
        subset = copy.copy(self)
        subset.pipeline = copy.deepcopy(self.pipeline)
        subset.__dict__.pop('__getitems__', None)  # a sampler's, for this data set
        subset.get_subset_(indices)
        return subset

    def extra_repr(self) -> list[str]:
        """The extra lines of ``repr``."""
        return str(self.report).splitlines()


def _find_list(file: str, root: str) -> str:
    path = os.path.expanduser(file)
    if '://' in path or os.path.isabs(path) or os.path.exists(path):
        return path
    return join_path(root, path)
