# SPDX-License-Identifier: Apache-2.0
"""One pre-training from folders of pictures, from the first look to the finished backbone."""
from __future__ import annotations

import errno
import gc
import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple, Union

import mmengine.device.utils as device_utils
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from pic_plugin.engine.cpu_runner import CPURunner
from pic_plugin.engine.hooks.save_on_interrupt_hook import FILE as SAVED
from pic_plugin.engine.hooks.save_on_interrupt_hook import HINT
from pic_plugin.engine.ranks import images_of_a_step
from pic_plugin.pretrain import finish, rules
from pic_plugin.pretrain.config_text import Sources, config_text
from pic_plugin.pretrain.labels import read_labels
from pic_plugin.pretrain.machine import Machine, find_machine
from pic_plugin.pretrain.measure import Speed, measure_speed
from pic_plugin.pretrain.networks import look_at
from pic_plugin.pretrain.plan import Plan, make_plan
from pic_plugin.pretrain.progress import Interrupted, ProgressHook, duration
from pic_plugin.pretrain.rules import Choice, Facts, Wishes
from pic_plugin.pretrain.survey import Survey, survey_folders
from pic_plugin.pretrain.walk import find_pictures
from pic_plugin.pretrain.work_folder import PICTURES, WorkFolder, default_out, fingerprint
from pic_plugin.version import __version__

Say = Callable[[str], Any]


class Options(NamedTuple):
    """What the command line says.

    Attributes:
        folders (tuple[str, ...]): Of pictures.
        wishes (Wishes): Values that the rules do not choose.
        out (str | None): Work folder.
        labels (str | None): CSV or folder of labelled pictures.
        logs (tuple[str, ...]): Where else to log.
        device (str | None): 'cuda', 'mps' or 'cpu'.
        resume (bool): Go on with what is in the work folder.
        dry_run (bool): Plan and config, no training.
        report (bool): Make a report at the end.
    """

    folders: Tuple[str, ...]
    wishes: Wishes = Wishes()
    out: Optional[str] = None
    labels: Optional[str] = None
    logs: Tuple[str, ...] = ()
    device: Optional[str] = None
    resume: bool = False
    dry_run: bool = False
    report: bool = True


class QuietRunner(CPURunner):
    """mmengine's Runner, whose log goes to its file; of it only warnings are printed."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """See mmengine."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.setLevel(logging.WARNING)
                # mmengine's own CheckpointHook uses what mmengine is about to drop.
                handler.addFilter(lambda record: 'will be deprecated' not in record.getMessage())
                # `pretrain` has no --work-dir, and says by itself how to go on.
                handler.addFilter(lambda record: not record.getMessage().startswith(HINT))
        return logger


class Prepared(NamedTuple):
    """What has to be known to train.

    Attributes:
        work (str): The work folder.
        device (str): Where.
        resume (bool): Whether to go on from a checkpoint.
    """

    work: str
    device: str
    resume: bool


def prepare(options: Options, say: Say, num_processes: int = 1) -> Prepared:
    """Look, choose, measure, and write the config; or check what is to be resumed.

    Raises:
        FileNotFoundError: If a folder or file is not there.
        OSError: If the disk is full.
        ValueError: If an input cannot be trained on, or an option not be met.
    """
    wishes = options.wishes
    rules.check_wishes(wishes)
    work = WorkFolder(options.out or default_out(options.folders))
    if options.resume:
        return _prepare_resume(options, work, say, num_processes)
    machine = find_machine(work.path, options.device, num_processes)
    # Before minutes are spent on a large folder.
    if wishes.backbone is not None:
        look_at(wishes.backbone, wishes.image_size or 224)
    survey = survey_folders(options.folders)
    work.check(survey.folders, resume=False)
    say(describe(survey, machine))
    sources = _write_lists(options, survey, work, say)
    # A pass is what a sampler and a loader are asked for, whatever the length.
    facts = Facts(len(survey.files), survey.sides[1], machine)
    plan, speed = settle(facts, wishes, sources, machine.device, say)
    say('Plan:\n' + rules.explain(plan.choices))
    say(speed.explain(plan))
    rate = speed.overall(plan.num_workers, num_processes)
    seen = plan.num_steps * plan.global_batch
    say(f'Expected: {plan.num_steps:,} steps, {seen:,} images in windows of {plan.window:,}; about '
        f'{duration(seen / rate)} at {rate:,.0f} images/s.')
    work.write(config_text(plan, sources, options.logs), dict(
        folders=list(survey.folders), num_images=plan.num_images,
        fingerprint=fingerprint(survey.files), window=plan.window, stride=plan.stride,
        batch_size=plan.batch_size, num_processes=num_processes, images_seen=plan.images_seen,
        backbone=plan.backbone.name, image_size=plan.image_size, wishes=wishes._asdict(),
        labels=options.labels, logs=list(options.logs), pic_plugin_version=__version__))
    say(f'config: {work.config}')
    return Prepared(str(work.path), machine.device, False)


def settle(facts: Facts, wishes: Wishes, sources: Sources, device: str,
           say: Say) -> Tuple[Plan, Speed]:
    """Choose and measure, with half the batch as long as the memory does not suffice.

    Returns:
        tuple[Plan, Speed]: The plan, with its length settled, and what was measured.

    Raises:
        ValueError: If not even two images fit.
    """
    size = rules.choose_image_size(facts, wishes)
    network = rules.choose_backbone(facts, wishes, size.value)
    backbone = look_at(network.value, size.value)
    while True:
        plan = make_plan(facts, wishes, backbone, size, network)
        try:
            speed = measure_speed(_parsed(plan, sources), plan, device)
            break
        except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            wishes = halved(wishes, plan, say)
    rate = speed.overall(plan.num_workers, plan.num_processes)
    return make_plan(facts, wishes, backbone, size, network, rate), speed


def halved(wishes: Wishes, plan: Plan, say: Say) -> Wishes:
    """Wish for half the batch, after one that did not fit.

    Raises:
        ValueError: If there is nothing to halve.
    """
    if plan.batch_size < 4:
        raise ValueError(f'the memory does not suffice for {plan.batch_size} images of '
                         f'{plan.image_size} pixels: choose a smaller --backbone or --image-size.')
    smaller = plan.batch_size // 2
    say(f'Out of memory with {plan.batch_size} images a step: trying {smaller}; learning rate and '
        'window follow.')
    return wishes._replace(batch_size=smaller)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory, of the device or the host, ran out."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(
        words in str(error) for words in ('out of memory', "can't allocate memory"))


def _parsed(plan: Plan, sources: Sources) -> Config:
    return Config.fromstring(
        config_text(plan if plan.images_seen else plan._replace(images_seen=plan.num_images),
                    sources), '.py')


def _write_lists(options: Options, survey: Survey, work: WorkFolder, say: Say) -> Sources:
    listed = work.write_list(PICTURES, survey.files)
    sources = Sources(survey.root, str(listed), value_range=None if survey.pixels is None else
                      survey.pixels.value_range)
    if options.labels is None:
        return sources
    labelled = read_labels(options.labels)
    say(f'Labels: {len(labelled.references):,} pictures of {len(labelled.classes)} classes to look '
        f'among, {len(labelled.queries):,} to classify by their neighbours'
        + (f'; {labelled.num_broken} cannot be read' if labelled.num_broken else '') + '.')
    files = [work.write_list(f'{name}.txt', [f'{path} {label}' for path, label in rows])
             for name, rows in (('references', labelled.references), ('queries', labelled.queries))]
    return sources._replace(references=str(files[0]), queries=str(files[1]),
                            num_references=len(labelled.references))


def describe(survey: Survey, machine: Machine) -> str:
    """What was found, for people."""
    endings = ', '.join(f'{number:,} {ending}' for ending, number in survey.by_ending.items())
    least, median, largest = survey.sides
    lines = [f'Pictures: {len(survey.files):,} images in {", ".join(survey.folders)} ({endings}); '
             f'shorter sides {least} to {largest} pixels, {median} in the middle (of '
             f'{survey.num_sampled} opened).']
    lines += survey.notices
    if survey.left_out:
        lines.append('Left out: ' + '; '.join(
            f'{number:,} {reason}' for reason, number in survey.left_out.items()) + '.')
    if survey.broken:
        name, reason = next(iter(survey.broken.items()))
        lines.append(f'Broken: {len(survey.broken)} of {survey.num_sampled} opened cannot be read '
                     f'({name}: {reason}); training skips them and says so.')
    if survey.copies:
        lines.append(f'Copies: {survey.copies:,} pictures have the very bytes of another one; each '
                     'is trained as a class of its own, away from its twin. Remove them if they '
                     'are many.')
    if survey.near:
        lines.append(f'Near copies: {survey.near} of {survey.num_sampled} opened look like another '
                     'one (`neighbours` shows them after training).')
    if survey.pixels is not None:
        black, white = survey.pixels.value_range
        lines.append(
            f'Pixels: {" and ".join(survey.pixels.depths)} from {survey.pixels.extremes[0]:g} to '
            f'{survey.pixels.extremes[1]:g} (of {survey.pixels.num_images} read). {black:g} is '
            f'taken for black and {white:g} for white, with a thousandth of the pixels beyond '
            'each; value_range in the config changes that.')
    memory = (f', {machine.device_bytes / rules.GIB:.0f} GiB free'
              if machine.device_bytes else '')
    processes = (f'{machine.num_processes} processes with {machine.num_cores} cores each'
                 if machine.num_processes > 1 else f'{machine.num_cores} cores')
    lines.append(f'Machine: {machine.device_name}{memory}, {processes}, '
                 f'{machine.host_bytes / rules.GIB:.0f} GiB of memory and '
                 f'{machine.disk_bytes / rules.GIB:.0f} GiB of disk free.')
    if machine.num_devices > machine.num_processes and machine.device == 'cuda':
        lines.append(f'{machine.num_devices} GPUs are here; this trains on '
                     f'{machine.num_processes}. For all: torchrun --nproc_per_node '
                     f'{machine.num_devices} -m pic_plugin.tools.pretrain ...')
    return '\n'.join(lines)


def _prepare_resume(options: Options, work: WorkFolder, say: Say, num_processes: int) -> Prepared:
    found = find_pictures(options.folders)
    work.check(found.folders, resume=True)
    state = work.read_state()
    _check_same(options, state, work)
    machine = find_machine(work.path, options.device, num_processes)
    if fingerprint(found.files) != state.get('fingerprint'):
        say(f'The folders hold {len(found.files):,} pictures now and held '
            f'{state.get("num_images", 0):,}: the training goes on with those it began with.')
    say(f'Going on with {work.path}: {state.get("num_images", 0):,} images, window '
        f'{state.get("window", 0):,}.')
    return Prepared(str(work.path), machine.device, True)


def _check_same(options: Options, state: Dict[str, Any], work: WorkFolder) -> None:
    """The options that a run began with may be given again, and no others."""
    began = {**state.get('wishes', {}), 'labels': state.get('labels'), 'log': state.get('logs', [])}
    given = {**options.wishes._asdict(), 'labels': options.labels, 'log': list(options.logs)}
    for name, value in given.items():
        if value and value != began.get(name):
            raise ValueError(f'--resume goes on with {work.config} as it is, which did not begin '
                             f'with --{name.replace("_", "-")} {value}: leave that out, or change '
                             'the file.')


def train(prepared: Prepared, options: Options, say: Say, launcher: str = 'none') -> QuietRunner:
    """Train with the config of the work folder.

    Raises:
        Interrupted: If a signal ended it; it has saved.
    """
    work = WorkFolder(prepared.work)
    # mmengine takes the best device that it sees; this is what was asked for.
    device_utils.DEVICE = prepared.device
    cfg = Config.fromfile(work.config)
    cfg.work_dir = prepared.work
    cfg.launcher = launcher
    cfg.resume = prepared.resume
    runner: Optional[QuietRunner] = None
    try:
        runner = QuietRunner.from_cfg(cfg)
        runner.register_hook(ProgressHook(say))
        runner.train()
    except SystemExit as ended:
        # SaveOnInterruptHook: with a checkpoint, and 128 + the signal's number.
        saved = work.path / SAVED
        if runner is None or not isinstance(ended.code, int) or not saved.is_file():
            raise
        batch = images_of_a_step(runner.train_dataloader)
        raise Interrupted(saved, ended.code - 128, (runner.iter + 1) * batch) from ended
    return runner


def train_in_memory(prepared: Prepared, options: Options, say: Say,
                    launcher: str = 'none') -> QuietRunner:
    """Train; if the memory runs out, begin again with half the batch.

    Raises:
        Interrupted: If a signal ended it; it has saved.
        ValueError: If several processes ran out of memory, or nothing is left to halve.
    """
    while True:
        try:
            return train(prepared, options, say, launcher)
        except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            state = WorkFolder(prepared.work).read_state()
            batch = int(state['batch_size'])
            if launcher != 'none' or any(Path(prepared.work).glob('*.pth')):
                # The processes have parted, or a schedule in steps has begun.
                raise ValueError(
                    f'out of memory with {batch} images a step on each process: run again with '
                    f'--batch-size {max(2, batch // 2)} and another --out.') from error
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _plan_smaller(prepared, options, state, say)


def _plan_smaller(prepared: Prepared, options: Options, state: Dict[str, Any], say: Say) -> None:
    """Write the config again, for half the batch."""
    work = WorkFolder(prepared.work)
    batch = int(state['batch_size'])
    if batch < 4:
        raise ValueError(f'the memory does not suffice for {batch} images a step: choose a smaller '
                         '--backbone or --image-size.')
    say(f'Out of memory with {batch} images a step: beginning again with {batch // 2}; learning '
        'rate and window follow.')
    machine = find_machine(work.path, prepared.device)
    files = work.pictures.read_text(encoding='utf-8', errors='surrogateescape').splitlines()
    cfg = Config.fromfile(work.config)
    root = cfg.train_dataloader.dataset.data_root
    facts = Facts(len(files), int(state['image_size']), machine)
    wishes = Wishes(backbone=state['backbone'], image_size=state['image_size'],
                    images_seen=state['images_seen'], batch_size=batch // 2)
    size = Choice(wishes.image_size, 'as before')
    network = Choice(wishes.backbone, 'as before')
    plan = make_plan(facts, wishes, look_at(state['backbone'], size.value), size, network)
    references = work.path / 'references.txt'
    sources = Sources(root, str(work.pictures), value_range=(
        cfg.train_dataloader.dataset.pipeline[0].get('value_range')))
    if references.is_file():
        count = len(references.read_text(encoding='utf-8', errors='surrogateescape').splitlines())
        sources = sources._replace(references=str(references), num_references=count,
                                   queries=str(work.path / 'queries.txt'))
    say('Plan:\n' + rules.explain(plan.choices))
    state.update(batch_size=plan.batch_size, window=plan.window, stride=plan.stride)
    work.write(config_text(plan, sources, options.logs), state)


def hand_over(runner: QuietRunner, prepared: Prepared, options: Options, say: Say) -> None:
    """Say what was gained; write backbone and report."""
    checkpoint = Path(runner.message_hub.get_info('last_ckpt'))
    say(f'checkpoint: {checkpoint}')
    untrained = runner.message_hub.get_info('untrained_metrics') if (
        'untrained_metrics' in runner.message_hub.runtime_info) else {}
    for name, before in (untrained or {}).items():
        key = f'val/{name}'
        if key in runner.message_hub.log_scalars:
            after = runner.message_hub.get_scalar(key).current()
            say(f'{name}: {before:.1f} % with random weights, {after:.1f} % after training')
    finish.verdicts(Path(prepared.work), runner.cfg, untrained or {}, say)
    finish.export(checkpoint, Path(prepared.work), say)
    if options.report:
        finish.report(Path(prepared.work), options.labels if options.labels and os.path.isdir(
            options.labels) else options.folders[0], prepared.device, say)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that nothing more can be written; torch's writer has its own words."""
    return (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            or 'PytorchStreamWriter failed' in str(error) or 'No space left' in str(error))


def command_line(folders: Sequence[str], work: Union[str, Path]) -> str:
    """How to go on with a run."""
    return 'python -m pic_plugin.tools.pretrain ' + ' '.join(
        map(shlex.quote, [*map(str, folders), '--out', str(work), '--resume']))


__all__ = ['Interrupted', 'Options', 'Prepared', 'command_line', 'hand_over', 'is_disk_full',
           'prepare', 'train_in_memory']
