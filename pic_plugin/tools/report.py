# SPDX-License-Identifier: Apache-2.0
"""One HTML file about a run: health, where it looks, neighbours, and a map of its features.

    mim run pic_plugin report work_dirs/pic_demo
    python -m pic_plugin.tools.report work_dirs/pic_demo --images DIR --against supervised.pth
    python -m pic_plugin.tools.report work_dirs/pic_demo --serve

The file needs no network and no other file. What cannot be drawn is left out, and the page says
why. The figures are in ``--out`` too, as PNG and SVG. Checkpoint, config and pictures are the
run's own, the newest, unless given. How the salient regions changed over training takes several
checkpoints of the run: ``default_hooks.checkpoint.max_keep_ckpts=-1`` keeps them.

``--serve`` shows curves, verdicts and how the configs of several runs differ in a page that renews
itself while they train. It is served to this machine alone (127.0.0.1) until Ctrl-C.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pic_plugin.analysis.live_server import serve
from pic_plugin.analysis.report import Options, write_report
from pic_plugin.analysis.style import require
from pic_plugin.command_line import add_picture_arguments, explained_errors

TOOL = 'report'


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        prog=TOOL, description='One HTML file about a run.', allow_abbrev=False)
    parser.add_argument('work_dir', type=Path, help='work folder of a training')
    parser.add_argument('--compare', nargs='+', type=Path, default=[], metavar='WORK_DIR',
                        help='further runs to draw the curves of')
    parser.add_argument('--config', help="default: the work folder's")
    parser.add_argument('--checkpoint', help='default: the newest of the work folder')
    parser.add_argument('--against', help='checkpoint of a network to compare saliency with; '
                        'default: `random`, the same network without training')
    parser.add_argument('--saliency-images', type=int, default=24, help='default: %(default)s')
    add_picture_arguments(parser, out=None)
    parser.set_defaults(num_images=1000)
    parser.add_argument('--serve', action='store_true',
                        help='serve a page that refreshes itself, instead of a file')
    parser.add_argument('--port', type=int, help='of --serve; default: one that is free')
    args = vars(parser.parse_args(argv))
    live, port = args.pop('serve'), args.pop('port')
    options = Options(**args)
    with explained_errors(TOOL):
        require('matplotlib')
        require('jinja2')
        if live:
            serve([options.work_dir, *options.compare], port)
            return
        file, notes = write_report(options, lambda line: print(f'{TOOL}: {line}', file=sys.stderr))
    for note in notes:
        print(f'{TOOL}: {note}', file=sys.stderr)
    print(f'{file}: {file.stat().st_size} bytes')


if __name__ == '__main__':
    main()
