# SPDX-License-Identifier: Apache-2.0
"""A look at folders of pictures before training: how many, how large, what is broken or double."""
from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pic_plugin.analysis.images import choose
from pic_plugin.datasets.duplicate_files import first_copies
from pic_plugin.datasets.file_report import FileReport, counted_reason
from pic_plugin.datasets.pillow_formats import pillow_as_in_training
from pic_plugin.datasets.value_range import Measured
from pic_plugin.pretrain.depths import of_one_depth
from pic_plugin.pretrain.walk import Found, find_pictures
from pic_plugin.wording import counted

NUM_SAMPLED = 300  # pictures that are opened, evenly from all
NUM_COMPARED = 20000  # pictures of equal size in bytes that are compared
# Of 64 bits: pictures that differ by a re-encoding or a small crop differ in a few.
NEAR_BITS = 5


class Survey(NamedTuple):
    """What is in the folders.

    Attributes:
        folders (tuple[str, ...]): As given, the same one once.
        root (str): The folder that paths of pictures are relative to.
        files (list[str]): Paths of the pictures below ``root``.
        num_found (int): Pictures before the few of another depth were left out.
        num_bytes (int): Of all these files.
        by_ending (dict[str, int]): Pictures by file ending.
        left_out (FileReport): Files that are not trained on, by the reason.
        sides (tuple[int, int, int]): Least, median and largest shorter side of the sample, pixels.
        num_sampled (int): Pictures that were opened.
        broken (dict[str, str]): Sampled pictures that cannot be read, with the reason.
        copies (dict[str, str]): Pictures that have the bytes of another one, with its name.
        near (dict[str, str]): Of the sample, pictures that look like another one but have other
            bytes, with its name.
        transparent (dict[str, str]): Sampled pictures that have transparent pixels, with how many.
        notices (tuple[str, ...]): What should be said about the input.
        pixels (Measured | None): Values of pictures of more than 8 bits; None if all have 8.
    """

    folders: tuple[str, ...]
    root: str
    files: list[str]
    num_found: int
    num_bytes: int
    by_ending: dict[str, int]
    left_out: FileReport
    sides: tuple[int, int, int]
    num_sampled: int
    broken: dict[str, str]
    copies: dict[str, str]
    near: dict[str, str]
    transparent: dict[str, str]
    notices: tuple[str, ...]
    pixels: Measured | None = None

    @property
    def findings(self) -> list[str]:
        """A line for each picture that something is said of, with tabs between its parts."""
        lines = [f'{kind}\t{name}\t{what}' for kind, names in (
            ('broken', self.broken), ('copy of', self.copies), ('looks like', self.near),
            ('transparent', self.transparent))
            for name, what in names.items()]
        for reason, count in self.left_out.left_out.most_common():
            names = self.left_out.examples.get(reason, [])
            lines += [f'left out\t{name}\t{reason}' for name in names]
            if count > len(names):
                lines.append(f'left out\tand {count - len(names):,} more\t{reason}')
        return lines


def survey_folders(folders: Sequence[str | Path]) -> Survey:
    """Look at folders.

    Args:
        folders (Sequence[str | Path]): At least one; several are one data set.

    Raises:
        FileNotFoundError: If one of them is not there.
        ValueError: If one is no folder or may not be read, there are fewer than 8 pictures, none
            of the sample can be read, or there are many pictures of 8 bits and many of more.
    """
    found = find_pictures(folders)
    names = ', '.join(found.folders)
    if not found.files:
        seen = '; '.join(counted_reason(number, reason)
                         for reason, number in found.left_out.left_out.most_common())
        raise ValueError(f'{names} holds no pictures'
                         + (f' (left out: {seen})' if seen else ': it is empty') + '.')
    if len(found.files) < 8:
        raise ValueError(f'{names} has only {counted(len(found.files), "picture")}: every picture '
                         'is a class of its own, and so few teach nothing. Give at least 8, '
                         'better thousands.')
    num_found = len(found.files)
    found, pixels = of_one_depth(found)
    chosen = choose(len(found.files), NUM_SAMPLED)
    sides, broken, transparent, thumbnails = _open_sample(found, chosen)
    opened = [found.files[index] for index in chosen if found.files[index] not in broken]
    if not sides:
        first = next(iter(broken.items()))
        raise ValueError(f'none of {len(chosen)} pictures of {names} can be read ({first[0]}: '
                         f'{first[1]}): look at the files, or at how they were copied.')
    return Survey(
        found.folders, found.root, found.files, num_found, sum(found.sizes),
        dict(Counter(os.path.splitext(name)[1].lower() for name in found.files).most_common()),
        found.left_out, (min(sides), int(np.median(sides)), max(sides)), len(chosen), broken,
        _copies(found), _near_copies(opened, thumbnails), transparent,
        found.notices, pixels)


def _open_sample(found: Found, chosen: Iterable[int]
                 ) -> tuple[list[int], dict[str, str], dict[str, str], list[np.ndarray]]:
    """Shorter sides, broken and transparent ones by name, and (8, 9) grey thumbnails."""
    sides: list[int] = []
    broken: dict[str, str] = {}
    transparent: dict[str, str] = {}
    thumbnails: list[np.ndarray] = []
    for index in chosen:
        name = found.files[index]
        try:
            # Pillow warns of large pictures and of odd metadata; neither matters here.
            with warnings.catch_warnings(), pillow_as_in_training(), \
                    Image.open(os.path.join(found.root, name)) as picture:
                warnings.simplefilter('ignore')
                sides.append(min(picture.size))
                picture.draft('L', (64, 64))  # JPEG: decode at a fraction of the size
                grey = picture.convert('L').resize((9, 8), Image.Resampling.BOX)
                share = _transparent_share(picture)
        # Decoders meet arbitrary bytes with arbitrary exceptions.
        except Exception as error:
            broken[name] = (str(error) or type(error).__name__).splitlines()[0]
            continue
        thumbnails.append(np.asarray(grey, dtype=np.int16))
        if share:
            transparent[name] = f'{100 * share:.0f} %'
    # A truncated file has a header: its size was counted before decoding failed.
    return (sides if thumbnails else []), broken, transparent, thumbnails


def _transparent_share(picture: Image.Image) -> float:
    """Share of the pixels, 0 to 1, that are transparent or partly so."""
    if not picture.mode.endswith('A') and 'transparency' not in picture.info:
        return 0.0
    return float((np.asarray(picture.convert('RGBA').getchannel('A')) < 255).mean())


def _copies(found: Found) -> dict[str, str]:
    """Pictures with the bytes of another one."""
    sizes = np.array(found.sizes)
    _, which, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    suspects = np.flatnonzero(counts[which] > 1)[:NUM_COMPARED]
    names = [found.files[index] for index in suspects]
    first = first_copies([os.path.join(found.root, name) for name in names], sizes[suspects])
    return {name: names[place] for number, (name, place) in enumerate(zip(names, first.tolist()))
            if place != number}


def _near_copies(names: Sequence[str], thumbnails: Sequence[np.ndarray]) -> dict[str, str]:
    """Pictures that look like an earlier one and are not the same.

    Compared by 64 bits each, whether a place is brighter than the one left of it. Those of a
    picture without structure (one colour) are all alike, and say nothing.

    Args:
        names (Sequence[str]): Of the pictures.
        thumbnails (Sequence[np.ndarray]): (8, 9) grey values of each.
    """
    if len(thumbnails) < 2:
        return {}
    pixels = np.stack(thumbnails)  # (n, 8, 9)
    bits = (pixels[:, :, 1:] > pixels[:, :, :-1]).reshape(len(pixels), -1)
    structured = (bits.sum(1) > 4) & (bits.sum(1) < 60)
    pixels, bits = pixels[structured].reshape(-1, 72), bits[structured]
    alike = (bits[:, None] != bits[None]).sum(-1) <= NEAR_BITS
    same = (pixels[:, None] == pixels[None]).all(-1)
    names = [name for name, has_structure in zip(names, structured) if has_structure]
    earlier = np.tril(alike, -1) & ~same
    return {names[place]: names[int(earlier[place].argmax())]
            for place in np.flatnonzero(earlier.any(axis=1)).tolist()}
