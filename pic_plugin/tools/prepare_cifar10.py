# SPDX-License-Identifier: Apache-2.0
"""Turn a CIFAR-10 package into folders of PNGs by class, as any OpenMMLab data set reads them.

    python -m pic_plugin.tools.prepare_cifar10 cifar-10-python.tar.gz data/cifar10
    mim run pic_plugin prepare_cifar10 cifar-10-python.tar.gz data/cifar10

writes ``data/cifar10/train/<class>/<index>.png`` and ``data/cifar10/test/<class>/<index>.png``,
``index`` being the image's place in the training (00000 to 49999) or test split of the package.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence

from pic_plugin.command_line import explained_errors
from pic_plugin.datasets.cifar10_archive import WHERE_TO_GET
from pic_plugin.datasets.prepare_cifar10 import prepare_cifar10


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        prog='prepare_cifar10', description='Write CIFAR-10 as folders of PNGs by class.')
    parser.add_argument('source', help=WHERE_TO_GET)
    parser.add_argument('out', help='folder to make')
    args = parser.parse_args(argv)
    with explained_errors('prepare_cifar10'):
        written = prepare_cifar10(args.source, args.out)
    print(f'{args.out}: 50000 training and 10000 test images, '
          f'{"written" if written else "already prepared: nothing to do"}.')


if __name__ == '__main__':
    main()
