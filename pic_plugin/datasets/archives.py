# SPDX-License-Identifier: Apache-2.0
"""Indices of tar and zip archives: which pictures are in them, and where; nothing is unpacked."""
from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Iterable, Iterator

import numpy as np

from pic_plugin.datasets.file_index import FileIndex, file_state
from pic_plugin.datasets.file_names import NameList, printable
from pic_plugin.datasets.file_report import FileReport
from pic_plugin.datasets.walk import hidden_folder, sort_out

ENDINGS = ('.tar', '.zip')
COMPRESSED = ('.tar.gz', '.tgz', '.tar.bz2', '.tbz2', '.tar.xz', '.txz', '.tar.zst')

Entry = tuple[bytes, tuple[int, ...]]


def is_archive(path: str) -> bool:
    """By its name; one that is compressed as a whole, too, which :func:`index_archive` refuses."""
    return path.lower().endswith((*ENDINGS, *COMPRESSED))


def index_archive(path: str, endings: Iterable[str]) -> FileIndex:
    """Find the pictures of an archive.

    Returns:
        FileIndex: With arrays ``start``, ``size`` and ``length``, bytes that a picture takes in the
        archive and by itself, and for a zip ``deflated``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no archive, or one that has no random access.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f'there is no archive {printable(path)}.')
    if path.lower().endswith(COMPRESSED):
        raise ValueError(f'{printable(path)} is compressed as a whole, so that no picture in it '
                         'can be read without those before it: decompress it to a .tar. '
                         'With JPEG and PNG it is hardly larger.')
    is_zip = path.lower().endswith('.zip')
    state, report = file_state(path), FileReport()
    names: list[bytes] = []
    places: list[tuple[int, ...]] = []
    try:
        for name, place in (_zip_entries if is_zip else _tar_entries)(path, report):
            if sort_out(name, endings, report, hidden_folder(name)):
                names.append(name)
                places.append(place)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f'{printable(path)} is not a complete archive ({error}): copy it again.'
                         ) from error
    columns = ('start', 'size', 'length', 'deflated')[:4 if is_zip else 3]
    table = np.array(places, dtype=np.int64).reshape(-1, len(columns))
    # By name, so that an archive that was packed anew is read in the same order.
    order = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)
    arrays: dict[str, np.ndarray] = {
        column: table[order, i] for i, column in enumerate(columns)}
    return FileIndex(NameList.of(names[i] for i in order), arrays,
                     dict(state=state, kind='zip' if is_zip else 'tar'), report)


def _plain(name: bytes) -> bytes:
    while name.startswith(b'./'):
        name = name[2:]
    return name


def _tar_entries(path: str, report: FileReport) -> Iterator[Entry]:
    with tarfile.open(path, 'r:', errors='surrogateescape') as tar:
        for member in tar:
            # Else the library keeps an object for each.
            tar.members = []  # type: ignore[attr-defined]
            name = _plain(os.fsencode(member.name))
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                link = member.islnk() or member.issym()
                report.leave_out(f'{"links" if link else "special files"} in archives', name)
            else:
                yield name, (member.offset_data, member.size, member.size)
        # The library takes a header that it cannot read for the end, which is a block of zeros.
        tar.fileobj.seek(tar.offset)
        end = tar.fileobj.read(tarfile.BLOCKSIZE)
        if end and end != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f'there is no member at byte {tar.offset:,}')


def _zip_entries(path: str, report: FileReport) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = _plain(os.fsencode(info.filename))
            if info.is_dir():
                continue
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED,
                                                                zipfile.ZIP_DEFLATED):
                report.leave_out('members of zips that are encrypted or not deflated', name)
            else:
                yield name, (info.header_offset, info.compress_size, info.file_size,
                             int(info.compress_type == zipfile.ZIP_DEFLATED))
