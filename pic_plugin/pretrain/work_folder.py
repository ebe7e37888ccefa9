# SPDX-License-Identifier: Apache-2.0
"""The work folder of ``pretrain``: whose data it is of, what is in it, and what must stay."""
from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from mmengine.config import Config

from pic_plugin.files import write_atomically, write_json

CONFIG, STATE, START = 'pretrain.py', 'pretrain.json', 'start.pth'
PICTURES, REFERENCES, QUERIES, FINDINGS = (
    'pictures.txt', 'references.txt', 'queries.txt', 'findings.txt')
# What is written before a run is planned, and may be left of one that was killed meanwhile.
PREPARED = PICTURES, REFERENCES, QUERIES, FINDINGS, START


class WorkFolder:
    """Files of one run.

    Args:
        path (str | Path): It need not exist.
    """

    def __init__(self, path: Any) -> None:
        self.path = Path(path).expanduser().absolute()
        self.config = self.path / CONFIG
        self.state = self.path / STATE
        self.pictures = self.path / PICTURES

    def read_state(self) -> dict[str, Any]:
        """What an earlier ``pretrain`` wrote about its data; empty if there was none."""
        if not self.state.is_file():
            return {}
        try:
            content = json.loads(self.state.read_text(encoding='utf-8'))
        except ValueError as error:
            raise ValueError(f'{self.state} is damaged ({error}): choose another --out.') from error
        return content if isinstance(content, dict) else {}

    @property
    def checkpoints(self) -> list[Path]:
        """Those of a training, and what was made of them; not the one that it begins with."""
        return [file for file in self.path.glob('*.pth') if file.name != START]

    @property
    def has_training(self) -> bool:
        """Whether a training has begun in it."""
        return bool(self.checkpoints) or any(self.path.glob('*/vis_data'))

    def check(self, folders: Sequence[str], resume: bool) -> None:
        """Refuse a folder in which something would be overwritten or mixed.

        Args:
            folders (Sequence[str]): Absolute folders of the pictures. Those of a run that goes on
                may have moved: :meth:`follow`.
            resume (bool): Whether to go on with what is there.

        Raises:
            ValueError: If it holds something else, there is nothing to resume, or its name is not
                UTF-8.
        """
        if _readable(str(self.path)) != str(self.path):
            raise ValueError(f'{self.path} is not UTF-8, and mmengine could not write the names of '
                             'checkpoints there: choose another --out.')
        state = self.read_state()
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f'--out {self.path} is a file: name a folder.')
        if resume:
            if not (state and self.config.is_file()):
                raise ValueError(f'{self.path} holds no run of pretrain to go on with: leave '
                                 '--resume out, or give the --out of that run.')
            return
        if not state:
            ours = {*PREPARED, *(f'{name}.partial' for name in (*PREPARED, CONFIG, STATE))}
            if self.path.is_dir() and any(file.name not in ours for file in self.path.iterdir()):
                raise ValueError(f'{self.path} is not empty and holds no run of pretrain: choose '
                                 'another --out.')
            return
        if sorted(state.get('folders', [])) != sorted(folders):
            raise ValueError(f'{self.path} is the work folder of {", ".join(state["folders"])}, '
                             f'not of {", ".join(folders)}: choose another --out, or add '
                             '--resume if these are the same pictures, moved.')
        if self.has_training:
            raise ValueError(f'{self.path} holds a training of these pictures: add --resume to go '
                             'on with it, or choose another --out.')
        if self.config.is_file() and (
                state.get('digest') not in (None, _digest(self.config.read_bytes()))):
            raise ValueError(
                f'{self.config} was changed by hand, and this would overwrite it: train it with '
                f'`python -m pic_plugin.tools.train {quote(str(self.config))} --work-dir '
                f'{quote(str(self.path))}`, or remove it.')

    def write(self, config: str, state: dict[str, Any]) -> None:
        """Write state and config, each whole or not at all."""
        content = config.encode('utf-8', 'surrogateescape')
        # The state first: a config without one would be taken for somebody else's.
        write_json(self.state, {**state, 'digest': _digest(content)})
        write_atomically(self.config, content)

    def read_list(self, name: str) -> list[str]:
        """Lines that :meth:`write_list` wrote."""
        # Not splitlines(): file names may have what it takes for the end of a line.
        text = (self.path / name).read_text(encoding='utf-8', errors='surrogateescape')
        return text.split('\n')[:-1]

    def follow(self, root: str, folders: Sequence[str]) -> None:
        """Have config, lists and state name the places where pictures and work folder are now.

        Labelled pictures that lie in the pictures' folder have moved with it.

        Args:
            root (str): Folder that paths of pictures are relative to.
            folders (Sequence[str]): Absolute folders of the pictures.

        Raises:
            ValueError: If the config gets its pictures in another way than it was written.
        """
        state = self.read_state()
        dataset = Config.fromfile(self.config).train_dataloader.dataset
        before, listed = dataset.get('data_root'), dataset.get('ann_file')
        if (before, listed) == (root, str(self.pictures)) and state['folders'] == list(folders):
            return
        text = self.config.read_text(encoding='utf-8')
        if before is not None and listed is not None:
            text = text.replace(repr(before), repr(root))
            for name in (PICTURES, REFERENCES, QUERIES, START):
                text = text.replace(repr(os.path.join(os.path.dirname(listed), name)),
                                    repr(str(self.path / name)))
        dataset = Config.fromstring(text, '.py').train_dataloader.dataset
        if (dataset.get('data_root'), dataset.get('ann_file')) != (root, str(self.pictures)):
            raise ValueError(f'{self.config} was changed by hand, and its pictures have moved: '
                             f'set data_root={root!r} and ann_file={str(self.pictures)!r} there.')
        for name in (REFERENCES, QUERIES):
            if (self.path / name).is_file():
                rows = [line.rpartition(' ') for line in self.read_list(name)]
                self.write_list(name, [f'{_moved(path, before, root)} {label}'
                                       for path, _, label in rows])
        labels = state.get('labels')
        self.write(text, {**state, 'folders': list(folders),
                          'labels': labels and _moved(labels, before, root)})

    @contextmanager
    def lists_kept_for_a_run(self) -> Iterator[None]:
        """Remove what was written meanwhile if the block raises and there is no run."""
        try:
            yield
        except BaseException:
            if not self.state.exists():
                for name in PREPARED:
                    (self.path / name).unlink(missing_ok=True)
            raise

    def write_list(self, name: str, lines: Sequence[str]) -> Path:
        """Write a list of files; names keep bytes that are not UTF-8."""
        file = self.path / name
        write_atomically(file, ''.join(f'{line}\n' for line in lines))
        return file


def _digest(config: bytes) -> str:
    """Of a config, by which one is told that was changed by hand."""
    return hashlib.sha256(config).hexdigest()


def _moved(path: str, before: str, root: str) -> str:
    """Where a path is now: below ``root`` if it lay below ``before`` and is there."""
    inside = os.path.join(before, '')
    there = os.path.join(root, path[len(inside):])
    return there if f'{path}/'.startswith(inside) and os.path.exists(there) else path


def default_out(folders: tuple[str, ...]) -> Path:
    """Work folder where none is given: named after the pictures' folder."""
    first = os.path.basename(os.path.abspath(os.path.expanduser(folders[0]))) or 'pictures'
    more = f'_and_{len(folders) - 1}' if len(folders) > 1 else ''
    return Path('work_dirs') / f'pretrain_{_readable(first)}{more}'


def _readable(name: str) -> str:
    """A name with an underscore for each byte that is not UTF-8."""
    return re.sub('[\ud800-\udfff]', '_', name)
