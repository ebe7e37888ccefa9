# SPDX-License-Identifier: Apache-2.0
"""Turn a checkpoint of the PIC authors' code into one of pic_plugin.

    mim run pic_plugin convert_official ckpt_epoch_200.pth pic_official.pth
    python -m pic_plugin.tools.convert_official ckpt_epoch_200.pth pic_official.pth

The result is a checkpoint as training writes it, without optimizer: for ``extract_backbone``, for
``init_cfg``, or for ``load_from`` with a softmax over all instances. No code in the file is run.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from pic_plugin.command_line import explained_errors
from pic_plugin.engine.checkpoint.foreign_checkpoint import read_checkpoint, state_dict_of
from pic_plugin.files import replacing
from pic_plugin.transfer.official import convert_official, file_content


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        prog='convert_official', description="Turn a checkpoint of the authors' code into ours.")
    parser.add_argument('checkpoint', help="file of the authors' code")
    parser.add_argument('out', help='file to write')
    parser.add_argument('--without-class-weights', action='store_true',
                        help='leave out the class weights, which only a training that goes on '
                        'needs')
    args = parser.parse_args(argv)
    with explained_errors('convert_official'):
        out = Path(args.out).expanduser()
        if out.exists():
            raise ValueError(f'{out} exists: remove it or give another name.')
        content = read_checkpoint(args.checkpoint)
        state = state_dict_of(content, args.checkpoint)
        try:
            conversion = convert_official(state, not args.without_class_weights)
        except ValueError as error:
            raise ValueError(f'{args.checkpoint}: {error}') from error
        with replacing(out) as partial:
            torch.save(file_content(conversion, Path(args.checkpoint).name, content.get('epoch')),
                       partial)
    print(f'loaded {conversion.num_loaded} of {conversion.num_loaded}, projected features equal to '
          f'{conversion.difference:.1e} of the largest')
    print(f'{out}: {out.stat().st_size} bytes')


if __name__ == '__main__':
    main()
