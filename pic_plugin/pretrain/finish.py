# SPDX-License-Identifier: Apache-2.0
"""The end of a pre-training: backbone files for other libraries, the report, how to use them."""
from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.runner import Runner

from pic_plugin.analysis import report as pages
from pic_plugin.analysis.plain_lines import torchvision_lines
from pic_plugin.analysis.scalars import read_run
from pic_plugin.analysis.style import require
from pic_plugin.analysis.verdicts import context_of, verdicts_of
from pic_plugin.engine.checkpoint.foreign_checkpoint import (
    backbone_of,
    check_finite,
    read_checkpoint,
    weights_of,
)
from pic_plugin.engine.runner_private import last_checkpoint
from pic_plugin.pretrain.prepare import Options, Prepared, Say
from pic_plugin.transfer.export import (
    backbone_config,
    export_backbone,
    file_content,
    read_training,
    write_with_hash,
)

# In this order: the first that takes every weight is the one to hand over.
FORMATS = ('torchvision', 'openmmlab')


def hand_over(runner: Runner, prepared: Prepared, options: Options, say: Say) -> None:
    """Say what was gained; write backbone and report."""
    saved = last_checkpoint(runner)
    assert saved is not None, 'the end of a training is saved'
    checkpoint = Path(saved)
    say(f'checkpoint: {checkpoint}')
    untrained = runner.message_hub.get_info('untrained_metrics') or {}
    begin = 'the weights it began with' if context_of(runner.cfg).goes_on else 'random weights'
    for name, before in untrained.items():
        key = f'val/{name}'
        if key in runner.message_hub.log_scalars:
            after = runner.message_hub.get_scalar(key).current()
            say(f'{name}: {before:.1f} % with {begin}, {after:.1f} % after training')
    verdicts(Path(prepared.work), runner.cfg, untrained, say)
    export(checkpoint, Path(prepared.work), say)
    if options.report:
        report(Path(prepared.work), options.labels if options.labels and os.path.isdir(
            options.labels) else options.folders[0], prepared.device, say)


def export(checkpoint: Path, out: Path, say: Say) -> Path:
    """Write the backbone in the most widely usable form its architecture allows.

    Args:
        checkpoint (Path): The last of the training.
        out (Path): Folder to write into.
        say (Callable): Takes a line.

    Returns:
        Path: The file.

    Raises:
        ValueError: If the checkpoint's weights are not finite, or do not fit its own network.
    """
    content = read_checkpoint(checkpoint)
    weights = backbone_of(weights_of(content, checkpoint), checkpoint)
    check_finite(weights, checkpoint)
    training = read_training(content)
    cfg = backbone_config(training, weights)
    for form in FORMATS:
        try:
            made = export_backbone(weights, cfg, form)
        except ValueError:
            if form == FORMATS[-1]:
                raise
            continue
        # `backbone.pth` with digits of its hash; an earlier one of the same run stays.
        file = write_with_hash(file_content(made, training, cfg, checkpoint, form),
                               out / 'backbone.pth')
        say(f'backbone: {file} (loaded {made.num_loaded} of {len(weights)} into {made.target})')
        break
    for line in usage(file, made.code, content):
        say(line)
    return file


def usage(file: Path, code: Sequence[str] = (), content: dict | None = None) -> list[str]:
    """The lines of Python that use the backbone.

    Args:
        file (Path): The exported backbone.
        code (Sequence[str]): Makes torchvision's ``network``; nothing if it has none.
        content (dict, optional): The checkpoint. Defaults to None: nothing is known of it.
    """
    lines = ['use it, with or without a config:',
             '    import pic_plugin',
             f"    backbone = pic_plugin.load_backbone({str(file)!r})   # (B, 3, H, W) -> (B, C)",
             f"    features, names = pic_plugin.embed('FOLDER', {str(file)!r})"]
    if code:
        plain = torchvision_lines(file, code, content or {})
        lines += ['without pic_plugin:', *(f'    {line}' for line in plain)]
    return lines


def verdicts(work_dir: Path, cfg: Any, untrained: dict[str, float],
             say: Say) -> None:
    """Say what the logged numbers mean, and which page of the documentation helps."""
    try:
        run = read_run(work_dir)
    except FileNotFoundError:  # a config that was changed to log elsewhere
        return
    for one in verdicts_of(run, context_of(cfg), untrained):
        say(f'{one.name} ({one.level}): {one.text} See docs/{one.page}')


def report(work_dir: Path, pictures: str | None, device: str, say: Say) -> None:
    """Make the page about the run; what prevents it is said, and ends nothing."""
    again = f'`python -m pic_plugin.tools.report {shlex.quote(str(work_dir))}`'
    try:
        for library in ('matplotlib', 'jinja2'):
            require(library)
    except ModuleNotFoundError as error:
        say(f'no report: {error} Then: {again}')
        return
    say('report: a minute or two; the backbone is there already')
    try:
        file, notes = pages.write_report(pages.Options(
            work_dir, compare=(), config=None, checkpoint=None, against=None,
            saliency_images=6, images=pictures, side=None, num_images=400, batch_size=64,
            device=device, out=None), say=lambda line: say(f'report: {line}'))
        for note in notes:
            say(f'report: {note}')
        say(f'report: {file}')
    # A report is looks; a trained network must not be lost to it.
    except Exception as error:
        say(f'no report ({type(error).__name__}: {error}); make it with {again}')
