# SPDX-License-Identifier: Apache-2.0
"""One range of pixel values for all pictures: the few of another depth than most are left out."""
from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from pic_plugin.analysis.images import choose
from pic_plugin.datasets.decoding import decode
from pic_plugin.datasets.pillow_formats import pillow_as_in_training
from pic_plugin.datasets.value_range import Measured, measure_value_range
from pic_plugin.pretrain.walk import Found
from pic_plugin.wording import counted, first_few

DEEP = ('.png', '.tif', '.tiff', '.pgm', '.ppm', '.pnm')  # may have more than 8 bits
NUM_HEADERS = 20000  # of such files that are looked at
FEW = 0.1  # share of the pictures that are left out without asking


def of_one_depth(found: Found) -> tuple[Found, Measured | None]:
    """Leave out the few pictures of 8 bits among those of more, or the other way round.

    Of more than NUM_HEADERS files that may be of either kind some of the other kind may stay.
    Training names and stops at one.

    Returns:
        tuple[Found, Measured | None]: The pictures that stay, and what values they have; None if
        those are of 8 bits.

    Raises:
        ValueError: If there are many of both kinds, or several types of deep pixels.
    """
    may_be_deep = [place for place, name in enumerate(found.files)
                   if os.path.splitext(name)[1].lower() in DEEP]
    looked_at = [may_be_deep[index] for index in choose(len(may_be_deep), NUM_HEADERS)]
    deep = {place for place in looked_at if _is_deep(os.path.join(found.root, found.files[place]))}
    if not deep:
        return found, None
    shallow = {*range(len(found.files))} - {*may_be_deep} | {*looked_at} - deep
    fewer = min(deep, shallow, key=len)
    if len(fewer) > FEW * (len(deep) + len(shallow)):
        raise ValueError(
            f'{", ".join(found.folders)} has {counted(len(deep), "picture")} of more than 8 bits '
            f'({_some(found, deep)}) and {len(shallow):,} of 8 ({_some(found, shallow)}): one '
            'range of values does not fit both. Train on files of one depth.')
    if fewer is deep:
        return _without(found, deep, 'pictures of more than 8 bits, unlike most'), None
    found = _without(found, shallow, 'pictures of 8 bits, unlike most')
    try:
        measured = measure_value_range([os.path.join(found.root, name) for name in found.files])
    except ValueError:  # none that can be read, or pictures of one colour
        return found, None
    if len(measured.depths) > 1:
        raise ValueError(f'the pictures of {", ".join(found.folders)} have pixels of '
                         f'{" and ".join(measured.depths)}: one range of values does not fit all. '
                         'Train on files of one depth.')
    return found, measured


def _is_deep(path: str) -> bool:
    """Whether a picture has more than 8 bits a channel, by its header where Pillow knows it."""
    try:
        with warnings.catch_warnings(), pillow_as_in_training(), Image.open(path) as picture:
            warnings.simplefilter('ignore')
            if picture.format != 'PPM':  # which it reads in ways of its own
                # Of colours it keeps 8 bits: how it reads them says what the file has.
                reading = str(picture.tile[0][3]) if picture.tile else ''
                return picture.mode[0] in 'IF' or ';16' in reading
    except Exception:  # decoders meet arbitrary bytes with arbitrary exceptions
        pass
    try:
        return decode(Path(path).read_bytes()).pixels.dtype != np.uint8
    except MemoryError:
        raise
    except Exception:
        return False  # broken: skipped in training


def _some(found: Found, places: set[int]) -> str:
    return first_few([found.files[place] for place in sorted(places)], 2)


def _without(found: Found, places: set[int], reason: str) -> Found:
    for place in sorted(places):
        found.left_out.leave_out(reason, os.fsencode(found.files[place]))
    stay = [place for place in range(len(found.files)) if place not in places]
    return found._replace(files=[found.files[place] for place in stay],
                          sizes=[found.sizes[place] for place in stay])
