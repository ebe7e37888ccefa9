# SPDX-License-Identifier: Apache-2.0
"""Labelled pictures for the nearest-neighbour accuracy during training, out of a CSV or folders."""
from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from pic_plugin.analysis.inputs import progress
from pic_plugin.analysis.picture_reader import PictureReader
from pic_plugin.datasets.pillow_formats import pillow_as_in_training
from pic_plugin.pretrain.walk import find_pictures
from pic_plugin.wording import counted

MOST = 20_000  # labelled pictures: more would take longer than they are worth
SPLITS = frozenset(('train', 'training', 'val', 'valid', 'validation', 'dev', 'test', 'testing'))


class Labelled(NamedTuple):
    """Two lists of labelled pictures.

    Attributes:
        classes (list[str]): Names; a label is a place among them.
        references (list[tuple[str, int]]): Absolute paths and labels of every second picture.
        queries (list[tuple[str, int]]): Of the others.
        num_broken (int): Pictures that were left out because they cannot be read.
    """

    classes: list[str]
    references: list[tuple[str, int]]
    queries: list[tuple[str, int]]
    num_broken: int


def read_labels(source: str | Path, most: int | None = MOST,
                reader: PictureReader | None = None) -> Labelled:
    """Read labels.

    Args:
        source (str | Path): A folder with a folder of pictures for each class, or a CSV file whose
            lines are ``path,label``; paths are relative to the CSV. A first line whose file is not
            there is a header. A picture that is named several times is taken once.
        most (int, optional): Pictures to take, of each class alike; None for all. Defaults to
            20,000.
        reader (PictureReader, optional): Of the network that will look at them. Defaults to None:
            pictures of any depth count as readable.

    Raises:
        FileNotFoundError: If the source, or a picture that a CSV names, is not there.
        ValueError: If there are fewer than two classes, no class has two pictures, a picture has
            two labels, a row of a CSV lacks one, or the folders are parts of a data set (train,
            val, test), with classes in them.
    """
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(f'there are no labels {source}.')
    by_class: dict[str, list[str]] = {}
    for file, label in _from_folder(path, reader) if path.is_dir() else _from_csv(path):
        by_class.setdefault(label, []).append(file)
    if len(by_class) < 2:
        raise ValueError(f'{source} has fewer than two classes: give a folder with a folder of '
                         'pictures for each class, or a CSV of path,label.')
    share = None if most is None else max(2, most // len(by_class))
    references: list[tuple[str, int]] = []
    queries: list[tuple[str, int]] = []
    broken: list[str] = []
    with progress(sum(len(files[:share]) for files in by_class.values())) as advance:
        for number, name in enumerate(sorted(by_class)):
            readable = []
            for file in by_class[name][:share]:
                fault = _why_unreadable(file, reader)
                if fault is None:
                    readable.append(file)
                else:
                    broken.append(f'{file} because {fault}')
                advance(1)
            references += [(file, number) for file in readable[::2]]
            queries += [(file, number) for file in readable[1::2]]
    if not queries:
        first = f' (not {broken[0]})' if broken else ''
        raise ValueError(f'no class of {source} has two readable pictures{first}: one is needed as '
                         'a reference, and one to classify.')
    return Labelled(sorted(by_class), references, queries, len(broken))


def _from_folder(path: Path, reader: PictureReader | None) -> list[tuple[str, str]]:
    found = find_pictures([path], None if reader is None else reader.extensions)
    loose = [name for name in found.files if os.sep not in name]
    if loose:
        raise ValueError(f'{path} has {counted(len(loose), "picture")} outside of class folders '
                         f'({loose[0]}): put each into the folder of its class.')
    parts = [name.split(os.sep) for name in found.files]
    tops = sorted({part[0] for part in parts})
    if tops and {top.lower() for top in tops} <= SPLITS and all(len(part) > 2 for part in parts):
        raise ValueError(f'{path} holds {", ".join(tops)}, which are parts of a data set and not '
                         f'classes: give one of them, such as {path / tops[0]}.')
    return [(os.path.join(found.root, name), part[0]) for name, part in zip(found.files, parts)]


def _from_csv(path: Path) -> list[tuple[str, str]]:
    with open(path, newline='', encoding='utf-8-sig', errors='surrogateescape') as stream:
        rows = [row for row in csv.reader(stream) if row]
    for number, row in enumerate(rows, 1):
        if len(row) < 2 or not (row[0].strip() and row[1].strip()):
            raise ValueError(f'{path}, row {number}: there must be a path and a label, separated '
                             'by a comma.')
    pairs = [(os.path.abspath(path.parent / row[0].strip()), row[1].strip()) for row in rows]
    if pairs and not os.path.exists(pairs[0][0]):
        pairs = pairs[1:]
    for file, _ in pairs:
        if not os.path.isfile(file):
            raise FileNotFoundError(f'{path} names {file}, which is not there: paths are relative '
                                    'to the CSV.')
    return _once(pairs, path)


def _once(pairs: list[tuple[str, str]], path: Path) -> list[tuple[str, str]]:
    """No picture twice: its copy in the other half would be found there."""
    label_of: dict[str, str] = {}
    kept = []
    for file, label in pairs:
        real = os.path.realpath(file)
        if real not in label_of:
            label_of[real] = label
            kept.append((file, label))
        elif label_of[real] != label:
            raise ValueError(f'{path} gives {file} the labels {label_of[real]!r} and {label!r}: '
                             'give each picture one, or leave out those of several classes.')
    return kept


def _why_unreadable(file: str, reader: PictureReader | None) -> str | None:
    """Why no decoder takes it: the numbers of pictures are said before a long training."""
    try:
        if reader is not None:
            reader.read(dict(img_path=file))
            return None
        with pillow_as_in_training(), Image.open(file) as picture:
            picture.load()
    except Exception as error:  # decoders meet arbitrary bytes with arbitrary exceptions
        return str(error)
    return None
