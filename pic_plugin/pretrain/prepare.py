# SPDX-License-Identifier: Apache-2.0
"""Before a pre-training: look at the pictures, choose every value, and write the config."""
from __future__ import annotations

import os
import shlex
from typing import Any, Callable, NamedTuple

import torch
from mmengine.config import Config

from pic_plugin.datasets.file_names import printable
from pic_plugin.pretrain import rules
from pic_plugin.pretrain.config_text import Sources, config_text
from pic_plugin.pretrain.describe import describe
from pic_plugin.pretrain.labels import read_labels
from pic_plugin.pretrain.machine import Machine, find_machine
from pic_plugin.pretrain.measure import Speed, measure_speed
from pic_plugin.pretrain.networks import look_at, usual_name
from pic_plugin.pretrain.plan import Plan, make_plan
from pic_plugin.pretrain.rules import Choice, Facts, Wishes
from pic_plugin.pretrain.start import Start, read_start, write_start
from pic_plugin.pretrain.survey import Survey, survey_folders
from pic_plugin.pretrain.walk import Found, find_pictures
from pic_plugin.pretrain.work_folder import (
    FINDINGS,
    PICTURES,
    QUERIES,
    REFERENCES,
    WorkFolder,
    default_out,
)
from pic_plugin.version import __version__
from pic_plugin.wording import counted, duration

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
        seed (int | None): Of the training's random numbers; None for 0, and for that of a run
            that goes on.
    """

    folders: tuple[str, ...]
    wishes: Wishes = Wishes()
    out: str | None = None
    labels: str | None = None
    logs: tuple[str, ...] = ()
    device: str | None = None
    resume: bool = False
    dry_run: bool = False
    report: bool = True
    seed: int | None = None


class Prepared(NamedTuple):
    """What has to be known to train.

    Attributes:
        work (str): The work folder.
        device (str): Where.
        resume (bool): Whether to go on from a checkpoint.
        smaller (Callable | None): Plans and writes again for half the batch; None where a run has
            begun, and for several processes, which could not do so together.
    """

    work: str
    device: str
    resume: bool
    smaller: Callable[[], Prepared] | None = None


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
    start = None if wishes.start is None else read_start(wishes.start)
    if start is not None and int(start.cfg.get('in_channels', 3)) != 3:
        raise ValueError(f'{start.source} takes pictures of {start.cfg["in_channels"]} channels, '
                         'and here they are read in colour: write a config (docs/continue.md).')
    survey = survey_folders(options.folders)
    work.check(survey.folders, resume=False)
    say(describe(survey, machine, str(work.path / FINDINGS)))
    with work.lists_kept_for_a_run():
        return _plan_and_write(options, survey, start, machine, work, say)


def _plan_and_write(options: Options, survey: Survey, start: Start | None, machine: Machine,
                    work: WorkFolder, say: Say) -> Prepared:
    facts = Facts(len(survey.files), survey.sides[1], machine)
    sources = _write_lists(options, survey, work, say)
    size = rules.choose_image_size(facts, options.wishes)
    if start is None:
        network = rules.choose_backbone(facts, options.wishes, size.value)
        backbone = look_at(network.value, size.value)
    else:
        network = Choice(usual_name(start.cfg), f'with the weights of {printable(start.source)}')
        backbone = look_at(network.value, size.value, start.cfg)
        file = write_start(start, backbone.cfg, work.path)
        say(f'The backbone begins with the {len(start.weights)} weights of {start.source}, all of '
            'them.')
        sources = sources._replace(start=start._replace(weights={}), start_file=str(file))
    state = dict(
        folders=list(survey.folders), num_images=facts.num_images, num_found=survey.num_found,
        num_bytes=survey.num_bytes, num_processes=machine.num_processes, backbone=backbone.name,
        image_size=size.value, wishes=options.wishes._asdict(), labels=_place(options.labels),
        logs=list(options.logs), seed=options.seed or 0, pic_plugin_version=__version__)

    def choose(wishes: Wishes, images_per_second: float | None = None) -> Plan:
        return make_plan(facts, wishes, backbone, size, network, images_per_second)

    def write(wishes: Wishes) -> Prepared:
        plan, speed = settle(choose, wishes, sources, machine.device, say)
        say('Plan:\n' + rules.explain(plan.choices))
        say(speed.explain(plan))
        rate = speed.overall(plan.num_workers, machine.num_processes)
        say(f'Expected: {plan.num_steps:,} steps, {plan.images_seen:,} images in windows of '
            f'{plan.window:,}; about {duration(plan.images_seen / rate)} at {rate:,.0f} images/s.')
        work.write(config_text(plan, sources, options.logs), {
            **state, 'window': plan.window, 'stride': plan.stride, 'batch_size': plan.batch_size,
            'images_seen': plan.images_seen})
        say(f'config: {work.config}')
        return Prepared(str(work.path), machine.device, False, None if machine.num_processes > 1
                        else lambda: write(halved(wishes, plan, say, 'beginning again with')))

    return write(options.wishes)


def settle(choose: Callable[..., Plan], wishes: Wishes, sources: Sources, device: str,
           say: Say) -> tuple[Plan, Speed]:
    """Choose and measure, with half the batch as long as the memory does not suffice.

    Args:
        choose (Callable): :func:`make_plan` of the wishes and, perhaps, images a second.
        wishes (Wishes): To begin with.
        sources (Sources): Files.
        device (str): Where the network computes.
        say (Callable): Takes a line.

    Returns:
        tuple[Plan, Speed]: The plan, with its length settled, and what was measured.

    Raises:
        ValueError: If not even two images fit.
    """
    while True:
        plan = choose(wishes)
        try:
            cfg = Config.fromstring(config_text(plan, sources), '.py')
            speed = measure_speed(cfg, plan, device)
            break
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            wishes = halved(wishes, plan, say, 'trying')
    return choose(wishes, speed.overall(plan.num_workers, plan.num_processes)), speed


def halved(wishes: Wishes, plan: Plan, say: Say, then: str) -> Wishes:
    """Wish for half the batch, after one that did not fit.

    Raises:
        ValueError: If there is nothing to halve.
    """
    if plan.batch_size < 4:
        raise ValueError(f'there is not enough memory for {plan.batch_size} images of '
                         f'{plan.image_size} pixels: choose a smaller --backbone or --image-size.')
    smaller = plan.batch_size // 2
    say(f'Out of memory with {plan.batch_size} images a step: {then} {smaller}; learning rate and '
        'window follow.')
    return wishes._replace(batch_size=smaller)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory, of the device or the host, ran out."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(
        words in str(error) for words in (
            'out of memory', "can't allocate memory",
            # cuBLAS and cuDNN, where torch has left them nothing
            'STATUS_ALLOC_FAILED', 'ALLOCATION_FAILED'))


def _write_lists(options: Options, survey: Survey, work: WorkFolder, say: Say) -> Sources:
    listed = work.write_list(PICTURES, survey.files)
    work.write_list(FINDINGS, survey.findings)
    sources = Sources(survey.root, str(listed), seed=options.seed or 0, value_range=(
        None if survey.pixels is None else survey.pixels.value_range))
    if options.labels is None:
        return sources
    labelled = read_labels(options.labels)
    say(f'Labels: {counted(len(labelled.references), "picture")} of '
        f'{counted(len(labelled.classes), "class", "classes")} to look among, '
        f'{len(labelled.queries):,} to classify by their neighbours'
        + (f'; {labelled.num_broken} cannot be read' if labelled.num_broken else '') + '.')
    files = [work.write_list(name, [f'{path} {label}' for path, label in rows])
             for name, rows in ((REFERENCES, labelled.references), (QUERIES, labelled.queries))]
    return sources._replace(references=str(files[0]), queries=str(files[1]),
                            num_references=len(labelled.references))


def _prepare_resume(options: Options, work: WorkFolder, say: Say, num_processes: int) -> Prepared:
    found = find_pictures(options.folders)
    work.check(found.folders, resume=True)
    machine = find_machine(work.path, options.device, num_processes)
    _look_for_pictures(found, work.read_state(), work, say)
    state = work.read_state()
    _check_same(options, state, work)
    say(f'Going on with {work.path}: {state.get("num_images", 0):,} images, window '
        f'{state.get("window", 0):,}.')
    return Prepared(str(work.path), machine.device, True)


def _look_for_pictures(found: Found, state: dict[str, Any], work: WorkFolder, say: Say) -> None:
    """A run goes on with the pictures that it began with, wherever their folder is now."""
    sizes = dict(zip(found.files, found.sizes))
    listed = work.read_list(PICTURES)
    gone = [name for name in listed if name not in sizes]
    some = f'{len(gone):,} of its {len(listed):,} pictures, such as {gone[0]},' if gone else ''
    if sorted(state['folders']) != sorted(found.folders):
        same = not gone and state.get('num_bytes') in (None, sum(map(sizes.__getitem__, listed)))
        if not same:
            raise ValueError(
                f'{work.path} is the work folder of {", ".join(state["folders"])}, and '
                f'{some or "files of these sizes"} are not in {", ".join(found.folders)}: give the '
                'folder that they are in, or choose another --out.')
    work.follow(found.root, found.folders)
    if gone:
        say(f'Gone: {some.rstrip(",")}. Missing pictures are skipped, like broken files.')
    new = len(sizes) + len(gone) - state.get('num_found', len(listed))
    if new > 0:
        say(f'New since the run began: {counted(new, "picture")}. This run goes on without '
            'them; a new one can begin with its network: '
            f'--from {shlex.quote(str(work.path))} --out NEW.')


def _place(path: str | None) -> str | None:
    return None if path is None else os.path.abspath(os.path.expanduser(path))


def _check_same(options: Options, state: dict[str, Any], work: WorkFolder) -> None:
    """The options that a run began with may be given again, and no others."""
    began = {**state.get('wishes', {}), 'labels': _place(state.get('labels')),
             'log': state.get('logs', []), 'seed': state.get('seed', options.seed)}
    given = {**options.wishes._asdict(), 'labels': _place(options.labels),
             'log': list(options.logs), 'seed': options.seed}
    for wishes in (began, given):
        wishes['from'] = wishes.pop('start', None)
    for name, value in given.items():
        if value not in (None, []) and value != began.get(name):
            further = (f' To train further, begin with its network: pretrain '
                       f'{shlex.join(options.folders)} --from {shlex.quote(str(work.path))} --out '
                       'NEW.' if name in rules.LENGTHS else '')
            value = duration(value) if name == 'budget' else value
            raise ValueError(f'--resume goes on with {work.config} as it is, and the run did not '
                             f'begin with --{name.replace("_", "-")} {value}: leave that '
                             f'out.{further}')
