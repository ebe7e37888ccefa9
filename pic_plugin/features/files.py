# SPDX-License-Identifier: Apache-2.0
"""Files of features, by their ending: NPY, NPZ, CSV or Parquet."""
from __future__ import annotations

import csv
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pic_plugin.files import check_file, replacing, write_atomically

ENDINGS = ('.npy', '.npz', '.csv', '.parquet')


def check_writable(out: str | Path) -> None:
    """Refuse before an hour of computing what cannot be written after it.

    Raises:
        ModuleNotFoundError: If Parquet is asked for without pyarrow.
        OSError: If it is a folder, or its folder cannot be written to.
        ValueError: If the ending is another one.
    """
    ending = Path(out).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f'{out} must end in {", ".join(ENDINGS)}: that says what to write.')
    if ending == '.parquet' and importlib.util.find_spec('pyarrow') is None:
        raise ModuleNotFoundError('Parquet needs pyarrow: run `pip install pyarrow`, or write .npy '
                                  'or .csv.', name='pyarrow')
    check_file(Path(out).expanduser())


def write_features(features: np.ndarray, names: Sequence[str], out: str | Path) -> None:
    """Write a file, whole or not at all.

    Args:
        features (np.ndarray): (n, C) float32.
        names (Sequence[str]): n.
        out (str | Path): ``.npy`` gets its names in a ``.txt`` beside it, a line for each; a line
            break in a name is written as ``\\n`` there.

    Raises:
        ModuleNotFoundError, OSError, ValueError: See :func:`check_writable`.
    """
    check_writable(out)
    file = Path(out).expanduser()
    ending = file.suffix.lower()
    with replacing(file) as partial:
        if ending == '.csv':
            _write_csv(features, names, partial)
        elif ending == '.parquet':
            _write_parquet(features, names, partial)
        else:
            # NumPy would add an ending to a name.
            with open(partial, 'wb') as stream:
                if ending == '.npy':
                    np.save(stream, features)
                else:
                    np.savez(stream, features=features, names=np.array(names))
    if ending == '.npy':
        lines = (name.replace('\r', '\\r').replace('\n', '\\n') for name in names)
        write_atomically(file.with_suffix('.txt'), ''.join(f'{line}\n' for line in lines))


def _write_csv(features: np.ndarray, names: Sequence[str], file: Path) -> None:
    with open(file, 'w', newline='', encoding='utf-8', errors='surrogateescape') as stream:
        writer = csv.writer(stream, lineterminator='\n')
        writer.writerow(['name', *(f'f{column}' for column in range(features.shape[1]))])
        # 9 digits give a float32 back exactly.
        writer.writerows([name, *(f'{value:.9g}' for value in row)]
                         for name, row in zip(names, features.tolist()))


def _write_parquet(features: np.ndarray, names: Sequence[str], file: Path) -> None:
    import pyarrow
    import pyarrow.parquet
    flat = pyarrow.array(np.ascontiguousarray(features).reshape(-1))
    lists = pyarrow.FixedSizeListArray.from_arrays(flat, features.shape[1])
    table = pyarrow.table({'name': pyarrow.array([
        name.encode('utf-8', 'replace').decode() for name in names]), 'feature': lists})
    pyarrow.parquet.write_table(table, str(file))
