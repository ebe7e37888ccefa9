# SPDX-License-Identifier: Apache-2.0
"""Pictures in LMDB and in Hugging Face data sets on disk, by packages that are optional."""
from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from pic_plugin.datasets.file_index import FileIndex, file_state
from pic_plugin.datasets.file_names import NameList, printable
from pic_plugin.datasets.file_report import FileReport
from pic_plugin.datasets.image_lists import hash_keys, number_labels
from pic_plugin.datasets.open_archives import opened


def is_lmdb(path: str) -> bool:
    """Whether a path is a folder with an LMDB, or such a file."""
    return os.path.isfile(os.path.join(path, 'data.mdb')) or (
        path.lower().endswith(('.lmdb', '.mdb')) and os.path.isfile(path))


def lmdb_file(path: str) -> str:
    """The file of an LMDB, which is a folder or the file itself."""
    return os.path.join(path, 'data.mdb') if os.path.isdir(path) else path


def is_rows(path: str) -> bool:
    """Whether a folder is a Hugging Face data set that ``save_to_disk`` wrote."""
    return any(all(os.path.isfile(os.path.join(path, name)) for name in names) for names in (
        ('state.json', 'dataset_info.json'), ('dataset_dict.json', )))


def open_lmdb(path: str) -> Any:
    """A read-only environment.

    Raises:
        ImportError: If the package is missing.
    """
    try:
        import lmdb
    except ImportError as error:
        raise ImportError(f'{printable(path)} is an LMDB: run `pip install lmdb`.') from error
    return lmdb.open(path, readonly=True, lock=False, readahead=False, meminit=False,
                     subdir=os.path.isdir(path))


def index_lmdb(path: str) -> FileIndex:
    """The keys of an LMDB whose values are encoded pictures, in their order.

    Keys that begin with two underscores (``__len__``) are somebody's notes and left out.
    """
    report = FileReport()
    state = file_state(lmdb_file(path))

    def keys() -> Iterator[bytes]:
        with environment.begin() as transaction:
            for key in transaction.cursor().iternext(keys=True, values=False):
                if key.startswith(b'__'):
                    report.leave_out('keys of an LMDB with "__" in front', key)
                else:
                    yield bytes(key)

    # LMDB lets a process open an environment once.
    environment = opened(os.path.abspath(path), open_lmdb, lambda handle: handle.close())
    names = NameList.of(keys())
    report.read['in LMDB'] += len(names)
    return FileIndex(names, {}, dict(state=state), report)


def open_rows(path: str) -> Any:
    """A data set that ``datasets.Dataset.save_to_disk`` wrote.

    Raises:
        ImportError: If the package is missing.
        ValueError: If it is several splits.
    """
    try:
        import datasets
        from datasets import load_from_disk  # a folder `datasets` is an empty package to Python
    except ImportError as error:
        raise ImportError(f'{printable(path)} is a Hugging Face data set: run '
                          '`pip install datasets`.') from error
    rows = load_from_disk(path)
    if isinstance(rows, datasets.DatasetDict):
        raise ValueError(f'{printable(path)} has the splits {sorted(rows)}: name the folder of one '
                         f'of them, such as {os.path.join(path, sorted(rows)[0])}.')
    return rows


def index_rows(path: str, label_column: str | None, key_column: str | None) -> FileIndex:
    """The rows of a Hugging Face data set; an image is named by its column and row.

    Raises:
        ValueError: If it has no column of images, or lacks one that is asked for.
    """
    rows = open_rows(path)
    import datasets
    columns = [name for name in rows.column_names
               if isinstance(rows.features[name], datasets.Image)]
    if len(columns) != 1:
        raise ValueError(f'{printable(path)} has {len(columns)} columns of images among '
                         f'{rows.column_names}: it must have one.')
    for wanted in (label_column, key_column):
        if wanted is not None and wanted not in rows.column_names:
            raise ValueError(f'{printable(path)} has the columns {rows.column_names}, and none is '
                             f'{wanted!r}.')
    arrays: dict[str, np.ndarray] = {}
    classes = None
    if label_column is not None:
        labels = rows.data.column(label_column).to_pylist()
        if None in labels:
            raise ValueError(f'{printable(path)}: row {labels.index(None)} has no '
                             f'{label_column!r}.')
        arrays['label'], classes = number_labels(labels)
        classes = getattr(rows.features[label_column], 'names', classes)
    if key_column is not None:
        arrays['key'] = hash_keys(rows.data.column(key_column).to_pylist())
    report = FileReport()
    report.read['in a Hugging Face data set'] += len(rows)
    names = NameList.of(f'{columns[0]}/{row}'.encode() for row in range(len(rows)))
    return FileIndex(names, arrays, dict(
        classes=classes, state=file_state(os.path.join(path, 'state.json'))), report)


def row_bytes(rows: Any, column: str, row: int) -> bytes:
    """The encoded picture of a row, from the row itself or from the file that it names."""
    # From the table: rows[row] would decode all of its images.
    value = rows.data.column(column)[row].as_py()
    if value is None:
        raise OSError(f'row {row} has no picture')
    if value.get('bytes') is not None:
        return value['bytes']
    with open(value['path'], 'rb') as file:
        return file.read()
