# SPDX-License-Identifier: Apache-2.0
"""Lists of paths in TXT, CSV and JSONL files, with labels and other columns."""
from __future__ import annotations

import csv
import io
import json
import os
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from pic_plugin.datasets.endings import ending_of
from pic_plugin.datasets.file_index import FileIndex
from pic_plugin.datasets.file_names import NameList, hash_names, printable
from pic_plugin.datasets.file_report import FileReport

PATH_COLUMNS = ('img_path', 'path', 'file', 'filename', 'file_name', 'image', 'filepath')
LABEL_COLUMNS = ('gt_label', 'label', 'class')
NO_KEY = 0  # in place of the hash, of an image that has none
ENDINGS = ('.txt', '.lst', '.csv', '.tsv', '.jsonl', '.ndjson')

Row = dict[str, Any]


def read_list(content: bytes, file: str, path_column: str | None = None,
              label_column: str | None = None, key_column: str | None = None,
              with_label: bool = False) -> FileIndex:
    """Read a list of images.

    - ``.txt``: a path a line; with ``with_label`` a label behind it, after a space, as in
      mmpretrain's lists.
    - ``.csv``, ``.tsv``: with a line of column names.
    - ``.jsonl``: a line is a path or an object.

    Any bytes may be in a path. Empty lines are passed over.

    Args:
        content (bytes): Of the file.
        file (str): Its name, for its ending and for errors.
        path_column (str, optional): Defaults to None: the first of :data:`PATH_COLUMNS`.
        label_column (str, optional): Defaults to None: with ``with_label`` the first of
            :data:`LABEL_COLUMNS`.
        key_column (str, optional): Of what images share that are one class.
        with_label (bool): Whether labels are wanted.

    Returns:
        FileIndex: With the arrays ``label`` (int32) and ``key`` (int64 hashes, :data:`NO_KEY` for
        an image without a key), where wanted.

    Raises:
        ValueError: If the ending or a column is unknown, or a line is not what it should be.
    """
    ending = ending_of(os.fsencode(file))
    if ending not in ENDINGS:
        raise ValueError(f'{printable(file)} is not a list of images: its name must end in one of '
                         f'{", ".join(ENDINGS)}.')
    content = content[len(BOM_UTF8):] if content.startswith(BOM_UTF8) else content
    named = ending not in ('.txt', '.lst')
    if key_column is not None and not named:
        raise ValueError(f'{printable(file)} has no columns, and instance_key names the column '
                         f'{key_column!r}: write a CSV or JSONL file.')
    if not named and not with_label:
        return _index(_lines(content), {}, None)
    with_label = with_label or label_column is not None
    rows = _labelled_lines(content, file) if not named else (
        _json_rows(content, file) if ending in ('.jsonl', '.ndjson') else
        _csv_rows(content, file, '\t' if ending == '.tsv' else ','))
    columns = ['path', 'label'][:1 + with_label]
    names: list[bytes] = []
    labels: list[Any] = []
    keys: list[Any] = []
    for number, row in enumerate(rows, 1):
        if number == 1 and named:
            columns = [_column(row, path_column, PATH_COLUMNS, 'path_column', file)]
            if with_label:
                columns.append(_column(row, label_column, LABEL_COLUMNS, 'label_column', file))
            if key_column is not None:
                _column(row, key_column, (), 'instance_key', file)
        for column in columns:
            if row.get(column) in (None, ''):
                raise ValueError(f'{printable(file)}: entry {number} has no {column!r}.')
        names.append(os.fsencode(str(row[columns[0]])))
        if with_label:
            labels.append(row[columns[1]])
        if key_column is not None:
            keys.append(row.get(key_column))
    arrays: dict[str, np.ndarray] = {}
    classes = None
    if with_label:
        arrays['label'], classes = number_labels(labels)
    if key_column is not None:
        arrays['key'] = hash_keys(keys)
    return _index(NameList.of(names), arrays, classes)


def _index(names: NameList, arrays: dict[str, np.ndarray],
           classes: list[str] | None) -> FileIndex:
    report = FileReport()
    report.read.update(map(ending_of, names))
    return FileIndex(names, arrays, dict(classes=classes), report)


def number_labels(labels: Sequence[Any]) -> tuple[np.ndarray, list[str] | None]:
    """(N,) int32: whole numbers as they are; names by their order, and the names."""
    try:
        if all(not isinstance(label, float) or label.is_integer() for label in labels):
            numbers = np.array([int(label) for label in labels], dtype=np.int64)
            # int() takes names such as '1_0' and '10', or '01' and '1', for the same number.
            names = {label if isinstance(label, str) else str(int(label)) for label in labels}
            if len(names) == len(np.unique(numbers)) and (
                    numbers == numbers.astype(np.int32)).all():
                return numbers.astype(np.int32), None
    except (TypeError, ValueError, OverflowError):
        pass
    classes, numbers = np.unique([str(label) for label in labels], return_inverse=True)
    return numbers.astype(np.int32), classes.tolist()


def hash_keys(keys: Iterable[Any]) -> np.ndarray:
    """(N,) int64 hash of each image's key; :data:`NO_KEY` where it is None or empty."""
    texts = ['' if key is None else str(key) for key in keys]
    return np.where([text != '' for text in texts], hash_names(map(os.fsencode, texts)), NO_KEY)


def _lines(content: bytes) -> NameList:
    """Lines without their ends, no line copied."""
    buffer = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(buffer == ord('\n'))
    if len(buffer) and buffer[-1] != ord('\n'):
        ends = np.append(ends, len(buffer))
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    returns = buffer[np.maximum(ends - 1, 0)] == ord('\r') if len(ends) else np.zeros(0, bool)
    ends = ends - (returns & (ends > starts))
    kept = ends > starts
    return NameList(buffer, starts[kept].astype(np.int64), ends[kept].astype(np.int64))


def _labelled_lines(content: bytes, file: str) -> Iterator[Row]:
    for number, line in enumerate(_lines(content), 1):
        path, space, label = line.rstrip().rpartition(b' ')
        if not space:
            raise ValueError(f'{printable(file)}: line {number} has no label behind its path: '
                             f'{printable(line)!r}. Set with_label=False for a list of paths '
                             'alone.')
        yield dict(path=os.fsdecode(path), label=os.fsdecode(label))


def _csv_rows(content: bytes, file: str, delimiter: str) -> Iterator[Row]:
    text = io.TextIOWrapper(io.BytesIO(content), 'utf-8', errors='surrogateescape', newline='')
    for number, row in enumerate(csv.DictReader(text, delimiter=delimiter), 1):
        if any(row.pop(None, ())):
            raise ValueError(f'{printable(file)}: entry {number} has more cells than there are '
                             f'columns: put cells that hold a {delimiter!r} in double quotes.')
        yield row


def _json_rows(content: bytes, file: str) -> Iterator[Row]:
    for number, line in enumerate(_lines(content), 1):
        try:
            row = json.loads(os.fsdecode(line))
        except ValueError as error:
            raise ValueError(f'{printable(file)}: line {number} is not JSON: {error}.') from error
        if isinstance(row, str):
            row = dict(path=row)
        if not isinstance(row, dict):
            raise ValueError(f'{printable(file)}: line {number} is neither a path nor an object.')
        yield row


def _column(row: Row, wanted: str | None, usual: Sequence[str], option: str, file: str) -> str:
    choices = [wanted] if wanted is not None else usual
    found = next((name for name in choices if name in row), None)
    if found is None:
        raise ValueError(f'{printable(file)} has the columns {list(row)}, and none is '
                         f'{" or ".join(map(repr, choices))}: say which with {option}.')
    return found
