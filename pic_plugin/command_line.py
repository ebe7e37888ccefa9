# SPDX-License-Identifier: Apache-2.0
"""Arguments and messages that the command lines in ``pic_plugin.tools`` have in common."""
from __future__ import annotations

import argparse
import os
import pickle
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.runner import Runner

from pic_plugin.bank import BankFileError
from pic_plugin.engine.config_file import build_runner, read_config
from pic_plugin.engine.config_options import apply_options
from pic_plugin.files import write_atomically

PACKAGE = Path(__file__).parent
KEYS_OF_PATHS = re.compile(r'(^|[._])(root|dir|file|prefix|from|checkpoint)$')


class ConfigOptions(DictAction):
    """``KEY=VALUE`` as mmengine reads it, but for names, which mmengine takes apart.

    What exists is a name; so is, unless it is a list, what has a space, and digits where the key is
    that of a path.
    """

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: Any, option_string: Any = None) -> None:
        names = {}
        for text in list(values):
            key, _, value = text.partition('=')
            name = _as_name(key, value)
            if name is not None:
                names[key] = name
                values.remove(text)
        super().__call__(parser, namespace, values, option_string)
        getattr(namespace, self.dest).update(names)


def _as_name(key: str, value: str) -> str | None:
    """The value if it is a name, without quotes around it; else None."""
    text = value.strip().strip('\'"')
    if text.isdecimal():
        return text if KEYS_OF_PATHS.search(key) else None
    if os.path.exists(os.path.expanduser(text)):
        return text
    is_list = ',' in text or text[:1] + text[-1:] in ('[]', '()')
    return text if ' ' in text and not is_list else None


def add_runner_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what train and test both take, named as in mmpretrain's tools."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; default: the '
                        "config's work_dir, else work_dirs/NAME_OF_THE_CONFIG")
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE',
                        help='values to change in the config: train_cfg.max_epochs=2, or a '
                        'variable at its top: batch_size=16; lists and tuples as '
                        'key="[a,b]" key="[(a,b),(c,d)]" (quotes needed, no blanks)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='how the processes were started; default: %(default)s')
    # torch.distributed.launch gives one spelling or the other, as its version has it.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=None,
                        help=argparse.SUPPRESS)
    parser.add_argument('--no-pin-memory', action='store_true',
                        help='do not pin the memory of batches')


def read_runner_config(args: argparse.Namespace) -> Config:
    """Read a config and set launcher, work_dir and ``--cfg-options``.

    The work folder is, in this order: the command line's, the config's, one named after the config
    below ``work_dirs``.

    Args:
        args (Namespace): ``config`` and the arguments of :func:`add_runner_arguments`.

    Raises:
        FileNotFoundError: If there is no such config.
        ModuleNotFoundError: If the config needs pkg_resources and there is none.
        ValueError: If the name of the config is ambiguous, or an option would have no effect.
    """
    cfg = read_config(args.config)
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.cfg_options is not None:
        cfg = apply_options(Path(cfg.filename), cfg, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(cfg.filename).stem)
    return cfg


def is_in_its_folder(cfg: Config) -> bool:
    """Whether mmengine, which keeps the config in the work folder, would write over its file."""
    file = Path(cfg.filename)
    kept = Path(cfg.work_dir) / file.name
    return kept.exists() and kept.samefile(file)


def build_runner_beside(cfg: Config, trains: bool = True) -> Runner:
    """Build the runner, and keep the config in its work folder that mmengine would write over.

    Args:
        cfg (Config): Read from a file. In its work folder it keeps its comments.
        trains (bool): False for a test, which leaves the config of the training there, too.
            Defaults to True.
    """
    kept = Path(cfg.work_dir) / Path(cfg.filename).name
    stays = is_in_its_folder(cfg) if trains else kept.exists()
    text = kept.read_bytes() if stays else None
    runner = build_runner(cfg)
    if text is not None and runner.rank == 0:
        write_atomically(kept, text)
    return runner


def analysis_parser(tool: str, description: str, checkpoint: str = 'file, work folder, or `random`',
                    several: bool = False) -> argparse.ArgumentParser:
    """A parser with config, checkpoint and :func:`add_picture_arguments`.

    Use it by :func:`parse_analysis`.
    """
    parser = argparse.ArgumentParser(prog=tool, description=description, allow_abbrev=False)
    parser.add_argument('config', help='path, or name of a config of pic_plugin; or the work '
                        'folder of a training')
    parser.add_argument('checkpoint', nargs='*' if several else '?',
                        help=f'{checkpoint}; default: the newest of the work folder')
    add_picture_arguments(parser, tool)
    return parser


def parse_analysis(parser: argparse.ArgumentParser,
                   argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of an :func:`analysis_parser`; a work folder alone stands for its newest."""
    # Not parse_args, which takes a checkpoint that may be missing for missing before an option.
    args = parser.parse_intermixed_args(argv)
    if not args.checkpoint:
        if not Path(args.config).is_dir():
            parser.error(f'{args.config} is no work folder: give the checkpoint too, or a work '
                         'folder in the place of both.')
        args.checkpoint = [args.config] if isinstance(args.checkpoint, list) else args.config
    return args


def add_picture_arguments(parser: argparse.ArgumentParser, out: str | None) -> None:
    """Add what all tools take that look at pictures.

    Args:
        parser (ArgumentParser): Of the tool.
        out (str | None): Folder for figures by default; None for ``report`` in the work folder.
    """
    parser.add_argument('--images', help='folder of pictures, which may be in folders by class; '
                        'default: what the config evaluates on')
    parser.add_argument('--side', type=int, help='pixels that the middle square of each picture is '
                        'scaled to; default: the crop that the config trains with')
    parser.add_argument('--num-images', type=int, help='take this many pictures, evenly from all')
    parser.add_argument('--batch-size', type=int, default=128,
                        help='images in one forward pass; default: %(default)s')
    parser.add_argument('--device', default=get_device(), help='default: %(default)s')
    parser.add_argument('--out', type=Path, default=None if out is None else Path(out),
                        help='folder for figures and numbers; default: '
                        + (out or '`report` in the work folder'))


def require_positive(parser: argparse.ArgumentParser, args: argparse.Namespace,
                     names: Sequence[str]) -> None:
    """End with the parser's error if one of these arguments is given and below 1."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1, not {value}.')


@contextmanager
def explained_errors(tool: str) -> Iterator[None]:
    """End a tool with one line for what its user can put right.

    What other packages raise within an iteration of a Runner is left as it is: there an error says
    less of the input than of where it came from.

    Args:
        tool (str): Name to begin the line with.

    Raises:
        SystemExit: For an input that is missing or wrong, with the message.
    """
    try:
        yield
    except (OSError, ModuleNotFoundError, ValueError, KeyError, BankFileError) as error:
        if not is_of_the_input(error):
            raise
        # mmengine's registries say first which class they were building.
        text = str(error.args[0] if isinstance(error, KeyError) else error)
        message = re.sub(r'^(class `\w+` in \S+: )+', '', text)
        raise SystemExit(f'{tool}: {message}') from error


def is_of_the_input(error: Exception) -> bool:
    """Whether an error that was caught is about what the user gave, and its traceback no help."""
    if isinstance(error, KeyError):
        return 'registry' in str(error)  # a misspelt type
    frames = traceback.extract_tb(error.__traceback__)
    if not Path(frames[-1].filename).is_relative_to(PACKAGE):
        return all(frame.name != 'run_iter' for frame in frames)
    # Our own say `raise`. What int() or numpy object to in our code is a bug of ours.
    return not isinstance(error, ValueError) or (frames[-1].line or '').startswith('raise')


@contextmanager
def explained_unpickling(tool: str) -> Iterator[None]:
    """Say what to do about a checkpoint that torch refuses to load.

    Raises:
        SystemExit: If the checkpoint holds objects whose loading could run code.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        if 'weights_only' not in str(error):
            raise
        raise SystemExit(
            f'{tool}: the checkpoint holds Python objects whose loading could run any code, and '
            'was not loaded (checkpoints written by pic_plugin hold none). If, and only if, you '
            'trust where it comes from, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 and run this '
            'again.') from error


def announce(tool: str, cfg: Config) -> None:
    """Print which file and folder are used, once for all processes."""
    if os.environ.get('RANK', '0') == '0':
        print(f'{tool}: {cfg.filename} -> {cfg.work_dir}', file=sys.stderr)
