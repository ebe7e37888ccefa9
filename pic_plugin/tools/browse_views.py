# SPDX-License-Identifier: Apache-2.0
"""Draw the augmented views of some training images, as the network gets them.

    mim run pic_plugin browse_views pic_folder.py --out views.png --cfg-options data_root=/my/images
    python -m pic_plugin.tools.browse_views CONFIG --num-images 6 --num-draws 8 --out views.png

Each row is an image: first as the file has it, then one draw of its augmentation after the other.
They come out of the config's data loader and data preprocessor, so what is done on the device is
seen too; the normalisation is taken back for the eye.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pic_plugin.analysis.style import styled
from pic_plugin.analysis.views import draw_views, views_figure
from pic_plugin.command_line import add_runner_arguments, explained_errors, read_runner_config
from pic_plugin.engine.config_file import build_runner, complete_dataloaders
from pic_plugin.files import check_file
from pic_plugin.wording import counted


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        prog='browse_views', description='Draw augmented views as the network gets them.',
        allow_abbrev=False)
    parser.add_argument('config', help='path, or name of a config of pic_plugin')
    parser.add_argument('--num-images', type=int, default=6, help='rows; default: %(default)s')
    parser.add_argument('--num-draws', type=int, default=6,
                        help='draws of each image; default: %(default)s')
    parser.add_argument('--out', type=Path, default=Path('views.png'),
                        help='picture to write: .png, .pdf, .svg; default: %(default)s')
    add_runner_arguments(parser)
    args = parser.parse_args(argv)
    if args.num_images < 1 or args.num_draws < 1:
        parser.error('--num-images and --num-draws must be at least 1.')
    with explained_errors('browse_views'):
        check_file(args.out)
        cfg = read_runner_config(args)
        if cfg.get('train_dataloader') is None:
            raise ValueError(f'{cfg.filename} has no train_dataloader.')
        complete_dataloaders(cfg, pin_memory=False, persistent_workers=False)
        cfg.train_dataloader.num_workers = 0
        cfg.train_dataloader.persistent_workers = False
        rows = draw_views(build_runner(cfg), args.num_images, args.num_draws)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with styled():
            views_figure(rows).savefig(args.out, dpi=100)
    sizes = ', '.join(f'{view.shape[1]}x{view.shape[0]}' for view in rows[0].draws[0])
    print(f'{args.out}: {counted(len(rows), "image")}, {counted(args.num_draws, "draw")} each; '
          f'views of {sizes} pixels')


if __name__ == '__main__':
    main()
