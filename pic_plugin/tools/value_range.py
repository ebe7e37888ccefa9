# SPDX-License-Identifier: Apache-2.0
"""Measure which pixel values of a folder's images count as black and white.

    python -m pic_plugin.tools.value_range data/scans --channels 1

prints what to write into the config for images of 16 bits or of floating point.
"""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from pic_plugin.datasets.endings import readable_endings
from pic_plugin.datasets.value_range import measure_value_range
from pic_plugin.datasets.walk import walk


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog='value_range', description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, help='with images, in it or in folders below')
    parser.add_argument('--channels', type=int, default=3, help='of the images (default: 3)')
    parser.add_argument('--num-images', type=int, default=64,
                        help='that are read, spread evenly (default: 64)')
    parser.add_argument('--share', type=float, default=0.001,
                        help='of the pixels that may be cut off at each end (default: 0.001)')
    args = parser.parse_args(argv)
    try:
        files = [args.folder / os.fsdecode(name)
                 for name in walk(args.folder, [*readable_endings(), '.npy']).names]
        found = measure_value_range(files, args.channels, args.num_images, args.share)
    except (OSError, ValueError) as error:
        parser.exit(1, f'value_range: {args.folder}: {error}\n')
    for text in found.unreadable:
        print(f'not read: {text}')
    black, white = found.value_range
    print(f'{found.num_images} of {len(files)} images, {" and ".join(found.depths)}: values from '
          f'{found.extremes[0]:g} to {found.extremes[1]:g}')
    if found.depths == ['uint8']:
        print('8 bits: no value_range is needed.')
        return
    print(f'value_range=({black:g}, {white:g})  # of DecodeRandomCrop, or with depth=\'own\' of '
          'AugmentPreprocessor')


if __name__ == '__main__':
    main()
