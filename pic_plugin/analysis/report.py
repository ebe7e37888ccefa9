# SPDX-License-Identifier: Apache-2.0
"""The sections of a page about a run: health, saliency, neighbours, class weights, a map."""
from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor

from pic_plugin.analysis.feature_map import make_map
from pic_plugin.analysis.features import Features, extract, knn_accuracy
from pic_plugin.analysis.health_figure import charts_of, curves_of, draw_health
from pic_plugin.analysis.images import Images, choose, skipped_lines
from pic_plugin.analysis.inputs import network_name, open_inputs
from pic_plugin.analysis.neighbour_figure import draw_neighbours, make_cells
from pic_plugin.analysis.neighbour_study import training_images
from pic_plugin.analysis.neighbours import duplicates, find_queries, nearest
from pic_plugin.analysis.network import RANDOM, Network, check_device, open_network
from pic_plugin.analysis.page import (
    Section,
    build_page,
    figure,
    missing,
    paragraph,
    table,
    verdict,
)
from pic_plugin.analysis.saliency_comparison import Compared, compare_networks
from pic_plugin.analysis.saliency_figure import draw_histogram, draw_maps, draw_series
from pic_plugin.analysis.saliency_study import occlusion
from pic_plugin.analysis.scalars import read_run, read_runs
from pic_plugin.analysis.style import write_figure
from pic_plugin.analysis.verdict_help import explanation
from pic_plugin.analysis.verdicts import context_of, verdicts_of
from pic_plugin.analysis.work_folder import earlier_checkpoints, find_run_config
from pic_plugin.bank import BankFileError
from pic_plugin.engine.checkpoint.foreign_checkpoint import find_checkpoint, read_checkpoint
from pic_plugin.engine.config_file import find_config
from pic_plugin.files import check_folder, write_atomically
from pic_plugin.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUERIES, NEIGHBOURS = 6, 7
DUPLICATE_SIMILARITY, MOST_DUPLICATES = 0.98, 20
SHOWN = 12  # saliency maps
SERIES = 5  # checkpoints
# Errors whose message says what is missing: mmengine raises ImportError for custom_imports, and
# KeyError for a type that nobody registered.
MISSING = (OSError, ImportError, KeyError, ValueError, BankFileError, torch.cuda.OutOfMemoryError)

Parts = Sequence[dict]
Say = Callable[[str], Any]


class Options(NamedTuple):
    """Of the command line ``report``, which explains them."""

    work_dir: Path
    compare: Sequence[Path]
    config: str | None
    checkpoint: str | None
    against: str | None
    saliency_images: int
    images: str | None
    side: int | None
    num_images: int | None
    batch_size: int
    device: str
    out: Path | None


class _Run(NamedTuple):
    """What all sections but the first two need."""

    cfg: Config
    side: int
    images: Images
    checkpoint: Path
    network: Network
    features: Features


def write_report(options: Options, say: Say = lambda line: None) -> tuple[Path, list[str]]:
    """Make the page, and the figures beside it.

    Args:
        options (Options): Of the command line.
        say (Callable): Takes a line before each section is drawn, and the traceback of an error
            that its message does not explain. Defaults to nothing.

    Returns:
        tuple[Path, list[str]]: The page, and a line about each section that is missing and each
        picture that was left out.

    Raises:
        FileNotFoundError: If there is no work folder.
        ModuleNotFoundError: If a library that the page itself needs is not installed.
        OSError: If the folder of the page cannot be written to.
        ValueError: If the device is not there.
    """
    work_dir = options.work_dir
    if not work_dir.is_dir():
        raise FileNotFoundError(f'there is no folder {work_dir}.')
    check_device(options.device)
    report = _Report(options, work_dir / 'report' if options.out is None else options.out, say)
    check_folder(report.out)
    report.add('verdicts', 'What the numbers say', report.verdicts)
    report.add('health', 'Training health', report.health)
    say('features of the pictures ...')
    try:
        run, fault = _open(options), ''
    except Exception as error:
        run, fault = None, report.reason(error)
    for name, title, make in (('saliency', 'Where the network looks', report.saliency),
                              ('neighbours', 'Nearest pictures', report.neighbours),
                              ('class_weights', 'Nearest class weights', report.class_weights),
                              ('embedding', 'Map of the features', report.embedding)):

        def parts(make: Callable[[_Run], Parts] = make) -> Parts:
            if run is None:
                raise ValueError(fault)
            return make(run)

        report.add(name, title, parts)
    if run is not None:
        report.notes += skipped_lines(run.images)
        if run.images.skipped:
            report.sections.append(Section('skipped', 'Pictures left out', [table(
                ['picture', 'reason'], run.images.skipped,
                f'left out: {len(run.images.skipped)}')]))
    file = report.out / 'report.html'
    note = f' {run.images.note}' if run is not None and run.images.note else ''
    write_atomically(file, build_page(
        f'PIC run {work_dir.resolve().name}', f'What the network learned, in pictures.{note}',
        report.sections))
    return file, report.notes


def _open(options: Options) -> _Run:
    config = options.config or str(find_run_config(options.work_dir))
    cfg, side, images, indices = open_inputs(config, options.images, options.side,
                                             options.num_images)
    checkpoint = find_checkpoint(options.checkpoint or options.work_dir)
    network = open_network(checkpoint, cfg, device=options.device)
    features = extract(network, images, indices, side, options.batch_size)
    return _Run(cfg, side, images, checkpoint, network, features)


def _untrained(work_dir: Path) -> dict[str, float]:
    """Accuracies before the first step, which CompareWithUntrainedHook leaves in checkpoints."""
    try:
        content = read_checkpoint(find_checkpoint(work_dir))
    except MISSING:
        return {}
    hub = content.get('message_hub') or {}
    return (hub.get('runtime_info') or {}).get('untrained_metrics') or {}


class _Report:
    """Sections of a page, and the figures beside it."""

    def __init__(self, options: Options, out: Path, say: Say) -> None:
        self.options = options
        self.out = out
        self.say = say
        self.sections: list[Section] = []
        self.notes: list[str] = []

    def add(self, name: str, title: str, make: Callable[[], Parts]) -> None:
        """Add a section or, if it cannot be made, the reason: the others are worth having."""
        self.say(f'{title.lower()} ...')
        try:
            parts = make()
        except Exception as error:
            reason = self.reason(error)
            self.notes.append(f'no {title.lower()}: {reason}')
            parts = [missing(reason)]
        self.sections.append(Section(name, title, parts))

    def reason(self, error: Exception) -> str:
        """What the page says of an error that was just caught."""
        if isinstance(error, MISSING):
            return str(error)
        self.say(traceback.format_exc())
        return f'{type(error).__name__}: {error}'

    def figure(self, name: str, draw: Callable[[], Figure], description: str,
               caption: str) -> dict[str, Any]:
        """A figure of the page, which is written as PNG and SVG too."""
        return figure(draw, description, caption, write_figure(draw, self.out / name))

    def verdicts(self) -> Parts:
        """What the logged numbers mean."""
        work_dir = self.options.work_dir
        try:
            file = find_config(self.options.config or str(find_run_config(work_dir)))
            cfg: Any = Config.fromfile(file, import_custom_modules=False)
        except MISSING:
            cfg = {}
        found = verdicts_of(read_run(work_dir), context_of(cfg), _untrained(work_dir))
        return [verdict(one.level, one.name, one.text, explanation(one.page))
                for one in found] or [
            paragraph('Too few numbers were logged to say anything.')]

    def health(self) -> Parts:
        """Curves."""
        runs = read_runs([self.options.work_dir, *self.options.compare])
        rows = [[run.name, key, int(curve[-1][0]), curve[0][1], curve[-1][1]]
                for run in runs for chart in charts_of(runs)
                for key, curve in curves_of(run, chart).items()]
        ends = '; '.join(f'{row[1]} from {row[3]:.4g} to {row[4]:.4g}' for row in rows[:8])
        return [self.figure('health', lambda: draw_health(runs),
                            f'Curves over images seen: {ends}.',
                            'What the run logged, over images seen.'),
                table(['run', 'scalar', 'images seen', 'first', 'last'], rows,
                      'First and last values')]

    def saliency(self, run: _Run) -> Parts:
        """Maps, beside those of another network, and how their overlap changed in training."""
        options, against = self.options, self.options.against or RANDOM
        earlier = earlier_checkpoints(run.checkpoint, SERIES - 1)
        networks = [*(open_network(file, run.cfg, device=options.device)
                      for file in earlier), run.network,
                    open_network(against, like=run.network.settings, device=options.device)]
        names = [*(file.stem for file in [*earlier, run.checkpoint]), network_name(against)]
        compared = compare_networks(
            networks, names, run.images, choose(len(run.images), options.saliency_images),
            occlusion(run.side, batch_size=options.batch_size))
        panels, summary, other = compared.panels(SHOWN), compared.overlaps[-1], names[-1]
        rows = [[run.images.names[index], float(overlap)] for index, overlap in zip(
            compared.measured.indices, compared.comparisons[-1].overlaps)]
        mean = 'unknown' if summary['mean'] is None else f'{summary["mean"]:.3f}'
        return [
            self.figure(
                'saliency', lambda: draw_maps(panels, ['this run', other]),
                f'{counted(len(panels), "picture")}, each with the saliency map of both networks.',
                'Occlusion saliency: bright where covering moves the feature, outlined above the '
                f'mean; pictures on which the networks differ most come first. {other} is the '
                'network that is compared with.'),
            self.figure(
                'overlap', lambda: draw_histogram(summary, ['this run', other]),
                f'Histogram of overlaps; their mean is {mean}.',
                f'Overlap of the salient regions in {counted(summary["images"], "picture")}.'),
            table(['picture', 'overlap (IoU)'], rows, 'Overlap in each picture'),
            *self.series(run, compared)]

    def series(self, run: _Run, compared: Compared) -> Parts:
        """Overlap over accuracy in the course of training."""
        if len(compared.overlaps) < 2:
            return [paragraph(
                f'Only one checkpoint, {run.checkpoint.name}: how the overlap changed in training '
                'takes several (default_hooks.checkpoint.max_keep_ckpts=-1 keeps them).')]
        points, other = compared.series(run.features.indices), compared.names[-1]
        return [
            self.figure(
                'series', lambda: draw_series(points, other),
                f'Mean overlap of {len(points)} checkpoints with {other}, over their accuracy.',
                'Mean overlap of the salient regions in the course of training; bars are standard '
                'errors.'),
            table(['checkpoint', 'kNN accuracy, %', 'mean overlap', 'standard error'], points,
                  'Overlap of each checkpoint')]

    def _nearest(self, name: str, run: _Run, images: Images, indices: Sequence[int],
                 values: Tensor, description: str, caption: str) -> dict[str, Any]:
        queries = find_queries(images, None, indices, QUERIES)
        rows, cosines = nearest(values, queries, NEIGHBOURS)
        cells = make_cells(images, indices, queries, rows, cosines, run.side)
        return self.figure(name, lambda: draw_neighbours(cells), f'{len(queries)} {description}',
                           caption)

    def neighbours(self, run: _Run) -> Parts:
        """Nearest pictures and duplicates."""
        indices, values = run.features
        if len(indices) < 2:
            raise ValueError('one picture has no neighbours.')
        caption = f'Each row: a picture, and the nearest of {len(indices)} by feature.'
        accuracy = knn_accuracy(run.features, run.images)
        if accuracy is not None:
            caption += (' Solid frames have the same label. Neighbours among one half of the '
                        f'pictures give {accuracy:.1f} % of the other half their label.')
        pairs = duplicates(values, indices, run.images, DUPLICATE_SIMILARITY, MOST_DUPLICATES)
        names = run.images.names
        return [
            self._nearest('neighbours', run, run.images, indices, values,
                          'pictures with their nearest neighbours.', caption),
            table(['first', 'second', 'kind', 'similarity', 'pixel difference'],
                  [[names[pair.first], names[pair.second], pair.kind, pair.similarity,
                    pair.pixel_difference] for pair in pairs],
                  f'{len(pairs)} possible duplicates (similarity of {DUPLICATE_SIMILARITY} and '
                  f'above{", the first of them" if len(pairs) == MOST_DUPLICATES else ""})')]

    def class_weights(self, run: _Run) -> Parts:
        """Training images with the nearest class weights."""
        images, values = training_images(run.cfg, run.checkpoint)
        return [self._nearest(
            'class_weights', run, images, range(len(images)), values,
            'training pictures with those of the nearest class weights.',
            f'Each row: a training picture, and those of the {len(images)} whose class weights '
            'are nearest to its own.')]

    def embedding(self, run: _Run) -> Parts:
        """Map with pictures."""
        by = 'label' if run.images.labels is not None else 'cluster (there are no labels)'
        return [
            paragraph(f't-SNE of the features of {counted(len(run.features.indices), "picture")}, '
                      f'coloured by {by}.'),
            make_map(run.features, run.images, self.out)]
