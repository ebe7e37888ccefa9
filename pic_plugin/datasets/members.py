# SPDX-License-Identifier: Apache-2.0
"""Bytes of a picture, be it a file, a member of an archive, or what a storage back-end gets.

A member has a path that says where its bytes are, so that any loader that reads through mmengine
gets them without an index:
``picmember:///data/cats.tar!/cat/1.jpg?tar+14+1536+20480`` (kind, length of the archive's path, and
what its reader needs: here the place and the number of the bytes).
"""
from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from typing import Any

from mmengine import fileio
from mmengine.fileio import BaseStorageBackend, register_backend

from pic_plugin.datasets.open_archives import opened
from pic_plugin.datasets.stores import open_lmdb, open_rows, row_bytes

PREFIX = 'picmember'


def member_path(kind: str, archive: str, name: str, *numbers: int) -> str:
    """The path of a member.

    Args:
        kind (str): A key of :data:`READERS`.
        archive (str): Path of the archive.
        name (str): Of the member in it.
        *numbers (int): What the reader needs to find it.
    """
    tail = '+'.join([kind, *map(str, (len(archive), *numbers))])
    return f'{PREFIX}://{archive}!/{name}?{tail}'


def split_member_path(path: str) -> tuple[str, str, str, tuple[int, ...]]:
    """Kind, archive, name and numbers of a member's path."""
    body, _, tail = path[len(PREFIX) + 3:].rpartition('?')
    kind, length, *numbers = tail.split('+')
    archive = body[:int(length)]
    return kind, archive, body[int(length) + 2:], tuple(map(int, numbers))


def is_member(path: Any) -> bool:
    """Whether a path is one of a member."""
    return isinstance(path, str) and path.startswith(f'{PREFIX}://')


def _read_at(archive: str, start: int, size: int) -> bytes:
    handle = opened(archive, lambda path: os.open(path, os.O_RDONLY), os.close)
    # Not seek and read: threads share the handle.
    content = os.pread(handle, size, start)
    while len(content) < size:
        more = os.pread(handle, size - len(content), start + len(content))
        if not more:
            raise OSError(f'{archive} ends before byte {start + size}, where its index says that a '
                          'picture ends: was it cut off or replaced during the run?')
        content += more
    return content


def _read_tar(archive: str, name: str, start: int, size: int) -> bytes:
    return _read_at(archive, start, size)


def _read_zip(archive: str, name: str, start: int, size: int, deflated: int) -> bytes:
    # The local header repeats the name, and may have another extra field than the directory.
    header = _read_at(archive, start, 30)
    if header[:4] != b'PK\x03\x04':
        raise OSError(f'{archive} has no member at byte {start}: was it replaced during the run?')
    name_length, extra_length = struct.unpack('<HH', header[26:30])
    content = _read_at(archive, start + 30 + name_length + extra_length, size)
    try:
        return zlib.decompress(content, -zlib.MAX_WBITS) if deflated else content
    except zlib.error as error:
        raise OSError(f'{name} in {archive} does not inflate: {error}') from error


def _read_lmdb(archive: str, name: str) -> bytes:
    environment = opened(archive, open_lmdb, lambda handle: handle.close())
    with environment.begin() as transaction:
        content = transaction.get(os.fsencode(name))
    if content is None:
        raise OSError(f'{archive} has no key {name!r} any more.')
    return content


def _read_rows(archive: str, name: str, row: int) -> bytes:
    column = name.split('/')[0]
    return row_bytes(opened(archive, open_rows), column, row)


READERS: dict[str, Callable[..., bytes]] = dict(
    tar=_read_tar, zip=_read_zip, lmdb=_read_lmdb, rows=_read_rows)


@register_backend('picmember', prefixes=PREFIX)
class MemberBackend(BaseStorageBackend):
    """mmengine's way to the members: ``fileio.get(path)`` reads them."""

    def get(self, filepath: Any) -> bytes:
        """Content of a member.

        Raises:
            OSError: If it is not there any more.
        """
        kind, archive, name, numbers = split_member_path(str(filepath))
        return READERS[kind](archive, name, *numbers)

    def get_text(self, filepath: Any, encoding: str = 'utf-8') -> str:
        """Content of a member that is text."""
        return self.get(filepath).decode(encoding)


def read_bytes(results: dict, backend_args: dict | None = None) -> bytes:
    """The encoded picture of a data info.

    Args:
        results (dict): With ``img_bytes``, or else ``img_path``: a file, a member of an archive,
            or what a storage back-end of mmengine knows.
        backend_args (dict, optional): Of the back-end. Defaults to None: the entry
            ``backend_args`` of ``results``, if any, else by the path's prefix.

    Raises:
        OSError: If there is no such file, or no right to read it.
    """
    if results.get('img_bytes') is not None:
        return results['img_bytes']
    path = results['img_path']
    if is_member(path):
        return fileio.get(path)
    return fileio.get(path, backend_args=backend_args or results.get('backend_args'))
