# SPDX-License-Identifier: Apache-2.0
"""Write files so that a reader sees the old file or the whole new one, never a part."""
from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Name to write to; it takes the place of ``file`` if the block ends without an error.

    Args:
        file (Path): File to write or replace. Its folder is made if it is not there.

    Yields:
        Path: ``NAME.partial`` in the same folder, so that the rename cannot cross file systems.
            It is removed if the block raises.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f'{file.name}.partial')
    try:
        yield partial
        os.replace(partial, file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def check_file(file: Path) -> None:
    """Refuse before long work a file that could not be written after it.

    Raises:
        OSError: If it is a folder, or its folder could not be made or written to.
    """
    if file.is_dir():
        raise IsADirectoryError(f'{file} is a folder: give the name of a file.')
    check_folder(file.parent)


def check_folder(folder: Path) -> None:
    """Likewise for a folder of files; it is not made.

    Raises:
        OSError: If it could not be made or written to.
    """
    there = next((one for one in (folder, *folder.parents) if os.path.exists(one)), folder)
    try:
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OSError(f'{folder} cannot be written to ({there}: {error.strerror}): choose another '
                      'place.') from error


def write_atomically(file: Path, content: str | bytes) -> None:
    """Write text as UTF-8 (names of files as the bytes that they are) or bytes."""
    if isinstance(content, str):
        content = content.encode('utf-8', 'surrogateescape')
    with replacing(file) as partial:
        partial.write_bytes(content)


def write_json(file: Path, content: Any) -> None:
    """Write plain values, indented for people to read.

    Raises:
        ValueError: If a number is NaN or infinite, which JSON does not have.
    """
    write_atomically(file, json.dumps(content, indent=2, allow_nan=False) + '\n')


def csv_text(rows: Sequence[Mapping[str, Any] | Sequence[Any]],
             header: Sequence[str] | None = None) -> str:
    """CSV of rows.

    Args:
        rows (Sequence): Each a dict, or a sequence in the order of ``header``.
        header (Sequence[str], optional): Names of the columns. Defaults to None: all keys of the
            rows, in the order in which they first occur.
    """
    if header is None:
        header = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(header)
    for row in rows:
        writer.writerow([row.get(key, '') for key in header] if isinstance(row, Mapping) else row)
    return text.getvalue()


def write_csv(file: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write rows; None and NaN as an empty cell.

    Floats have six digits after the point, those nearer to zero than 0.001 six in all.
    """
    write_atomically(file, csv_text([[_cell(value) for value in row] for row in rows], header))


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, float) and math.isnan(value):
        return ''
    if not isinstance(value, float):
        return value
    return f'{value:.6g}' if 0 < abs(value) < 1e-3 else f'{value:.6f}'
