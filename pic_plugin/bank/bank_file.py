# SPDX-License-Identifier: Apache-2.0
"""The format of bank files, which a checkpoint keeps beside its ``.pth``.

A file holds the stored rows of one process and the state of the correction, in sections. A section
is a JSON header in one line, the raw little-endian arrays that it announces, and a CRC-32 over
both; the last one says how many there are. Nothing in it can run code, and nothing is trusted
before its checksum was right. A format of our own, since rows are written as a stream of unknown
length: npz and safetensors want all of an array at once, which for a billion rows is no option.
"""
from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pic_plugin.files import replacing

from .row_codec import RowCodec

MAGIC = b'PICBANK1\n'
MAX_HEADER_BYTES = 2**16
MAX_SECTION_BYTES = 2**33
SECTION_STEPS = 2**20  # optimizer steps in a section: 32 MB of SGD's transitions

Arrays = dict[str, np.ndarray]


class BankFileError(RuntimeError):
    """A bank file that is missing, damaged or of another run; the message says what to do."""


def write_bank(path: str | Path, header: dict[str, Any], correction: Arrays,
               rows: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]],
               dtype: str = 'float32',
               squares: Sequence[int] = (),
               head: Iterable[tuple[np.ndarray, np.ndarray]] = ()) -> None:
    """Write a bank file, whole or not at all.

    Args:
        path (str | Path): File to make. It appears under this name when it is complete and on disk.
        header (dict): Plain values that identify the bank.
        correction (dict): Arrays (n, ...), of :meth:`Correction.state_dict`.
        rows (Iterator): Chunks of ids (R,) int64, steps (R,) int64 and values (R, P, d) float32.
        dtype (str): What the values are rounded to, see :class:`RowCodec`. Defaults to 'float32'.
        squares (Sequence[int]): Which of the P hold squares, likewise. Defaults to none.
        head (Iterable): Chunks of slots (R,) int64 and values (R, P, d) float32 or float64: rows in
            the softmax, where no process has all of them. Defaults to none.

    Raises:
        OSError: If the file cannot be written. Nothing is left behind then.
    """
    with replacing(Path(path)) as partial, open(partial, 'wb') as file:
        file.write(MAGIC)
        num_sections = 0
        for section in _sections(header, correction, rows, RowCodec(dtype, squares), head):
            _write_section(file, *section)
            num_sections += 1
        _write_section(file, 'end', dict(num_sections=num_sections), {})
        file.flush()
        os.fsync(file.fileno())


def read_bank(path: str | Path) -> Iterator[tuple[str, dict[str, Any], Arrays]]:
    """Read a bank file section by section, each one checked.

    Args:
        path (str | Path): A file that :func:`write_bank` wrote.

    Yields:
        tuple: Kind, plain values and arrays. First 'header', without arrays; then 'transitions',
            parts of the correction's arrays; 'rows', with ids (R,) int64, steps (R,) int64 and
            values (R, P, d) float32; 'head', with slots (R,) int64 and values (R, P, d).

    Raises:
        BankFileError: If the file is missing, truncated, damaged or no bank file.
    """
    path = Path(path)
    try:
        file = open(path, 'rb')
    except OSError as error:
        raise BankFileError(
            f'{path} cannot be read ({error.strerror}). It holds the class weights and momenta '
            'outside the active set: copy it beside the checkpoint, or resume from another '
            'checkpoint that has its bank file.') from error
    with file:
        try:
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError('it does not begin as a bank file does')
            num_sections = 0
            kind, values, arrays = _read_section(file)
            while kind != 'end':
                if kind == 'rows':
                    arrays['values'] = RowCodec(
                        values['dtype'], values.get('squares', ())).decode(arrays)
                yield kind, values, arrays
                num_sections += 1
                kind, values, arrays = _read_section(file)
            if values['num_sections'] != num_sections:
                raise ValueError(f'{num_sections} of its sections are there, and it was written '
                                 f'with {values["num_sections"]}')
            if file.read(1):
                raise ValueError('there is something after its end')
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BankFileError(
                f'{path} is truncated or damaged ({error}). Copy it again, or resume from an '
                'earlier checkpoint.') from error


def _sections(header: dict[str, Any], correction: Arrays,
              rows: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]], codec: RowCodec,
              head: Iterable[tuple[np.ndarray, np.ndarray]]
              ) -> Iterator[tuple[str, dict[str, Any], Arrays]]:
    yield 'header', header, {}
    for name, array in correction.items():
        for start in range(0, max(len(array), 1), SECTION_STEPS):
            yield 'transitions', dict(name=name), dict(products=array[start:start + SECTION_STEPS])
    for ids, steps, values in rows:
        yield 'rows', dict(dtype=codec.dtype, squares=codec.squares), dict(
            ids=ids, steps=steps, **codec.encode(values))
    for slots, values in head:
        yield 'head', {}, dict(slots=slots, values=values)


def _write_section(file: BinaryIO, kind: str, values: dict[str, Any], arrays: Arrays) -> None:
    contiguous = {name: np.ascontiguousarray(array, dtype=array.dtype.newbyteorder('<'))
                  for name, array in arrays.items()}
    announced = [[name, array.dtype.str, list(array.shape)] for name, array in contiguous.items()]
    line = json.dumps(dict(kind=kind, values=values, arrays=announced)).encode() + b'\n'
    if len(line) > MAX_HEADER_BYTES:
        raise ValueError(f'a section header of {len(line)} bytes is too long.')
    file.write(line)
    checksum = zlib.crc32(line)
    for array in contiguous.values():
        content = array.reshape(-1).view(np.uint8).data
        file.write(content)
        checksum = zlib.crc32(content, checksum)
    file.write(checksum.to_bytes(4, 'little'))


def _read_section(file: BinaryIO) -> tuple[str, dict[str, Any], Arrays]:
    line = file.readline(MAX_HEADER_BYTES)
    if not line.endswith(b'\n'):
        raise ValueError('it ends within a section header')
    checksum = zlib.crc32(line)
    header = json.loads(line.decode('ascii'))
    arrays = {}
    for name, dtype, shape in header['arrays']:
        if dtype not in ('<i8', '<f4', '<f8', '<i2', '<u2', '<f2') or not all(
                isinstance(size, int) and 0 <= size < 2**40 for size in shape):
            raise ValueError('it announces an array of an unknown kind')
        num_bytes = int(np.dtype(dtype).itemsize) * math.prod(shape)
        remaining = os.fstat(file.fileno()).st_size - file.tell()
        if num_bytes > min(remaining, MAX_SECTION_BYTES):
            raise ValueError('it ends within an array')
        content = file.read(num_bytes)
        checksum = zlib.crc32(content, checksum)
        arrays[name] = np.frombuffer(content, dtype=dtype).reshape(shape)
    if file.read(4) != checksum.to_bytes(4, 'little'):
        raise ValueError('a checksum is wrong')
    return header['kind'], header['values'], arrays
