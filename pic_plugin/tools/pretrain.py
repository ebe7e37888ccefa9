# SPDX-License-Identifier: Apache-2.0
"""Pre-train on a folder of pictures with one command: it looks, chooses, explains and trains.

    mim run pic_plugin pretrain DATA
    python -m pic_plugin.tools.pretrain DATA [DATA ...] --out work_dirs/mine
    torchrun --nproc_per_node 8 -m pic_plugin.tools.pretrain DATA

See docs/pretrain.md for the rules and options.
"""
from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pic_plugin.bank import BankFileError
from pic_plugin.command_line import explained_unpickling, is_of_the_input
from pic_plugin.datasets.file_names import printable
from pic_plugin.output import tell
from pic_plugin.pretrain.config_text import LOGGERS
from pic_plugin.pretrain.finish import hand_over
from pic_plugin.pretrain.prepare import Options, Prepared, prepare
from pic_plugin.pretrain.progress import Interrupted
from pic_plugin.pretrain.rules import Wishes
from pic_plugin.pretrain.run import command_line, is_disk_full, train_in_memory
from pic_plugin.pretrain.work_folder import WorkFolder, default_out

TOOL = 'pretrain'
# Processes wait for the first one's look at the folders.
PATIENCE = timedelta(hours=6)


def seconds_of(text: str) -> float:
    """'2h', '90min', '1.5d', '45s' or hours as a bare number -> seconds."""
    match = re.fullmatch(r'(\d+(?:\.\d+)?)\s*(s|min|m|h|d|)', text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(f'{text!r} is not a time: write 2h, 90min or 1.5d')
    unit = {'s': 1, 'm': 60, 'min': 60, 'h': 3600, '': 3600, 'd': 86400}[match[2]]
    return float(match[1]) * unit


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=TOOL, allow_abbrev=False,
        description='Pre-train on folders of pictures, without labels.')
    parser.add_argument('data', nargs='+', help='folders of pictures, together one data set')
    parser.add_argument('--out', metavar='DIR', help='work folder; default: '
                        'work_dirs/pretrain_NAME_OF_THE_FOLDER')
    parser.add_argument('--backbone', metavar='NAME', help="one of mmpretrain's: resnet50, "
                        'convnext-tiny, vit-small, swin-tiny ...')
    parser.add_argument('--from', dest='start', metavar='CHECKPOINT', help='go on from a network '
                        'that was trained before: a checkpoint, a work folder, or the name of a '
                        'model of mmpretrain')
    parser.add_argument('--image-size', type=int, metavar='PIXELS', help='side of the crops')
    parser.add_argument('--batch-size', type=int, metavar='N', help='images of a step on each '
                        'process')
    parser.add_argument('--epochs', type=int, metavar='N', help='length, in passes over the '
                        'pictures')
    parser.add_argument('--images-seen', type=int, metavar='N', help='length, in images')
    parser.add_argument('--budget', type=seconds_of, metavar='TIME', help='length: 2h, 30min, '
                        '1.5d; a bare number is hours')
    parser.add_argument('--labels', metavar='CSV_OR_FOLDER', help='labelled pictures, for the '
                        "nearest neighbours' accuracy during training; path,label lines or a "
                        'folder for each class')
    parser.add_argument('--log', nargs='+', choices=sorted(LOGGERS), default=[], metavar='WHERE',
                        help=f'log there too: {", ".join(sorted(LOGGERS))}')
    parser.add_argument('--device', help='cuda, mps or cpu; default: the best there is')
    parser.add_argument('--seed', type=int, metavar='N', help='of the random numbers; default: 0')
    parser.add_argument('--dry-run', action='store_true', help='print the plan and write the '
                        'config, without training')
    parser.add_argument('--resume', action='store_true', help='go on with the run in --out, '
                        'which was stopped')
    parser.add_argument('--no-report', action='store_true', help='make no report at the end')
    # torch.distributed.launch gives one spelling or the other, as its version has it.
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.seed is not None and not 0 <= args.seed < 2**32:
        parser.error('--seed must be from 0 to 4,294,967,295.')
    return args


def options_of(args: argparse.Namespace) -> Options:
    """The command line in plain values."""
    return Options(
        tuple(args.data),
        Wishes(args.backbone, args.image_size, args.epochs, args.images_seen, args.budget,
               args.batch_size, args.start),
        args.out, args.labels, tuple(args.log), args.device, args.resume, args.dry_run,
        not args.no_report, args.seed)


def say(line: str) -> None:
    """Print, on the main process alone."""
    if os.environ.get('RANK', '0') == '0':
        tell(printable(line))


def failure(message: str) -> SystemExit:
    """The end of the command, with what is wrong."""
    return SystemExit(f'{TOOL}: {printable(message)}')


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    args = parse_args(argv)
    # mmcv, mmengine and torchvision warn of each other.
    warnings.filterwarnings('ignore', module='mmcv|mmengine|mmpretrain|torchvision')
    options = options_of(args)
    launcher = 'pytorch' if int(os.environ.get('WORLD_SIZE', '1')) > 1 else 'none'
    prepared: Prepared | None = None
    try:
        prepared = prepare_together(options, launcher)
        if options.dry_run:
            folder = shlex.quote(prepared.work)
            say('Nothing was trained (--dry-run); the same command without it trains, or `python '
                f'-m pic_plugin.tools.train {folder}/pretrain.py --work-dir {folder}`.')
            return
        with explained_unpickling(TOOL):
            runner = train_in_memory(prepared, say, launcher)
        if os.environ.get('RANK', '0') == '0':
            hand_over(runner, prepared, options, say)
    except Interrupted as interrupted:
        say(f'{TOOL}: {interrupted}; saved {interrupted.checkpoint}. Go on with:\n'
            f'    {command_line(args.data, interrupted.checkpoint.parent)}')
        raise SystemExit(128 + interrupted.signal_number) from None
    except KeyboardInterrupt:
        where = '' if prepared is None else (
            f' Go on with:\n    {command_line(args.data, prepared.work)}')
        raise failure(f'stopped.{where}') from None
    except (ModuleNotFoundError, ValueError, BankFileError) as error:
        if not is_of_the_input(error):
            raise
        raise failure(str(error)) from error
    except (OSError, RuntimeError) as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)):
            # The system's have a number and a file; our own say what to do.
            if error.filename is None:
                raise failure(str(error)) from error
            work, file = WorkFolder(options.out or default_out(options.folders)).path, Path(
                os.fsdecode(error.filename))
            # A folder above it that is there was to be read: that of the pictures.
            to_write = file.is_relative_to(work) or (
                work.is_relative_to(file) and not os.path.isdir(file))
            what = (f'written ({error.strerror}): give another --out.' if to_write else
                    f'read ({error.strerror}).')
            raise failure(f'{file} cannot be {what}') from error
        if not is_disk_full(error):
            raise
        where = '' if prepared is None else (
            f' What was saved before is whole: make room, then\n    '
            f'{command_line(args.data, prepared.work)}')
        raise failure(f'the disk of the work folder is full.{where}') from error


def prepare_together(options: Options, launcher: str) -> Prepared:
    """Prepare on the first process, and let the others know.

    Raises:
        SystemExit: On the other processes, if the first one failed.
    """
    if launcher == 'none':
        return prepare(options, say)
    world = int(os.environ['WORLD_SIZE'])
    on_gpu = torch.cuda.is_available() and options.device != 'cpu'
    if on_gpu:
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']) % torch.cuda.device_count())
    dist.init_process_group('nccl' if on_gpu else 'gloo', timeout=PATIENCE)
    outcome: list[Any] = [None]
    error: BaseException | None = None
    if dist.get_rank() == 0:
        try:
            outcome = [prepare(options, say, world)]
        # The others wait: they are told, then it goes on its way.
        except BaseException as caught:
            error = caught
    dist.broadcast_object_list(outcome)
    if error is not None:
        raise error
    if outcome[0] is None:
        raise SystemExit(1)
    return outcome[0]


if __name__ == '__main__':
    # The default, that of a shell's background jobs excepted, which ignore it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
