# SPDX-License-Identifier: Apache-2.0
"""Make the pictures in ``pic_plugin/data`` from the folder that prepare_cifar10 writes.

    python -m pic_plugin.tools.make_demo_data data/cifar10

Each picture is a grid of tiles, sorted by class: ``pic_plugin/data/README.md`` has the format.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pic_plugin.command_line import explained_errors
from pic_plugin.datasets.cifar10_archive import CLASSES
from pic_plugin.datasets.image_grid import DATA_DIR
from pic_plugin.datasets.make_demo_data import PER_CLASS, make_grid, write_webp


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        prog='make_demo_data', description='Make the demo pictures from prepared CIFAR-10.')
    parser.add_argument('cifar10', type=Path, help='folder that prepare_cifar10 wrote')
    parser.add_argument('--out', type=Path, default=DATA_DIR, help='default: %(default)s')
    args = parser.parse_args(argv)
    for split, per_class in PER_CLASS.items():
        file = args.out / f'cifar10_{split}_{per_class * len(CLASSES)}.webp'
        with explained_errors('make_demo_data'):
            write_webp(make_grid(args.cifar10 / split, per_class), file)
        print(f'{file}: {file.stat().st_size} bytes')


if __name__ == '__main__':
    main()
