# SPDX-License-Identifier: Apache-2.0
"""One HTML file about a run: health, where it looks, neighbours, and a map of its features.

    mim run pic_plugin report work_dirs/pic_demo
    python -m pic_plugin.tools.report work_dirs/pic_demo --images DIR --against supervised.pth

The file needs no network and no other file. What cannot be drawn is left out, and the page says
why. The figures are in ``--out`` too, as PNG and SVG. Checkpoint, config and pictures are the
run's own, the newest, unless given. How the salient regions changed over training takes several
checkpoints of the run: ``default_hooks.checkpoint.max_keep_ckpts=-1`` keeps them.
"""
from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, List, NamedTuple, Optional, Tuple

from mmengine.config import Config

from pic_plugin.analysis.embedding import draw_embedding, embed
from pic_plugin.analysis.features import Features, extract, knn_accuracy
from pic_plugin.analysis.health_figure import CHARTS, curves_of, draw_health
from pic_plugin.analysis.images import Images, evaluated_dataset
from pic_plugin.analysis.neighbour_figure import draw_neighbours
from pic_plugin.analysis.neighbours import duplicates, find_queries, nearest
from pic_plugin.analysis.network import Network, open_network
from pic_plugin.analysis.overlap import summarise_overlap
from pic_plugin.analysis.page import (
    Section,
    build_page,
    figure_html,
    map_html,
    missing_html,
    paragraph_html,
    table_html,
)
from pic_plugin.analysis.saliency_figure import (
    SeriesPoint,
    draw_histogram,
    draw_maps,
    draw_series,
)
from pic_plugin.analysis.saliency_study import (
    Comparison,
    Occlusion,
    compare,
    measure,
    most_different,
    occlusion,
)
from pic_plugin.analysis.scalars import read_run
from pic_plugin.analysis.style import require, write_figure
from pic_plugin.bank import BankFileError
from pic_plugin.tools import analysis_inputs
from pic_plugin.tools.config_file import explained_errors
from pic_plugin.tools.embedding import groups_of, read_thumbnails
from pic_plugin.tools.neighbours import make_cells, training_images
from pic_plugin.tools.saliency import accuracy, make_panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOOL = 'report'
QUERIES, NEIGHBOURS = 6, 7
DUPLICATE_SIMILARITY, MOST_DUPLICATES = 0.98, 20
SHOWN = 12  # saliency maps
SERIES = 5  # checkpoints


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=TOOL, description='One HTML file about a run.', allow_abbrev=False)
    parser.add_argument('work_dir', type=Path, help='work folder of a training')
    parser.add_argument('--compare', nargs='+', type=Path, default=[], metavar='WORK_DIR',
                        help='further runs to draw the curves of')
    parser.add_argument('--config', help="default: the work folder's")
    parser.add_argument('--checkpoint', help='default: the newest of the work folder')
    parser.add_argument('--images', help='folder of pictures; default: what the config evaluates '
                        'on')
    parser.add_argument('--against', help='checkpoint of a network to compare saliency with; '
                        'default: `random`, the same network without training')
    parser.add_argument('--saliency-images', type=int, default=24, help='default: %(default)s')
    analysis_inputs.add_picture_arguments(parser, out='')
    parser.set_defaults(num_images=1000, out=None)
    return parser.parse_args(argv)


class _Network(NamedTuple):
    """What all sections but the first need."""

    cfg: Config
    checkpoint: Path
    network: Network
    images: Images
    side: int
    features: Features


class _Report:
    """Sections of a page, and the figures beside it."""

    def __init__(self, args: argparse.Namespace, out: Path) -> None:
        self.args = args
        self.out = out
        self.sections: List[Section] = []

    def add(self, name: str, title: str, make: Callable[[], str]) -> None:
        """Add a section or, if what it needs is missing, the reason."""
        try:
            body = make()
        except (OSError, ModuleNotFoundError, ValueError) as error:
            print(f'{TOOL}: no {title.lower()}: {error}')
            body = missing_html(str(error))
        self.sections.append(Section(name, title, body))

    def figure(self, name: str, draw: Callable[[], Figure], description: str,
               caption: str) -> str:
        """HTML of a figure, which is written as PNG and SVG too."""
        write_figure(draw, self.out / name)
        return figure_html(draw, description, caption)

    def health(self) -> str:
        """Curves."""
        runs = [read_run(folder) for folder in [self.args.work_dir, *self.args.compare]]
        rows = [[run.name, key, int(curve[-1][0]), curve[0][1], curve[-1][1]]
                for run in runs for chart in CHARTS for key, curve in curves_of(run, chart).items()]
        ends = '; '.join(f'{row[1]} from {row[3]:.4g} to {row[4]:.4g}' for row in rows[:8])
        return self.figure(
            'health', lambda: draw_health(runs), f'Curves over images seen: {ends}.',
            'What the run logged, over images seen.') + table_html(
                ['run', 'scalar', 'images seen', 'first', 'last'], rows, 'First and last values')

    def saliency(self, given: _Network) -> str:
        """Maps, beside those of another network, and how their overlap changed in training."""
        args, against = self.args, self.args.against or 'random'
        settings = occlusion(given.side, batch_size=args.batch_size)
        earlier = earlier_checkpoints(given.checkpoint, SERIES - 1)
        networks = [*(open_network(file, given.cfg, device=args.device) for file in earlier),
                    given.network,
                    open_network(against, like=given.network.settings, device=args.device)]
        chosen = analysis_inputs.choose(len(given.images), args.saliency_images)
        measured = measure(networks, given.images, chosen, settings)
        comparisons = [compare(one, measured.distances[-1], settings)
                       for one in measured.distances[:-1]]
        found = comparisons[-1]
        summary = summarise_overlap(found.overlaps, found.other_images)
        shown = most_different(found.overlaps, SHOWN)
        titles = [f'IoU {float(found.overlaps[place]):.2f}' for place in shown]
        panels = make_panels(given.images, measured, settings, shown, titles, [-2, -1])
        names = ['this run', analysis_inputs.network_name(against)]
        rows = [[given.images.names[index], float(overlap)]
                for index, overlap in zip(measured.indices, found.overlaps)]
        mean = 'unknown' if summary['mean'] is None else f'{summary["mean"]:.3f}'
        return self.figure(
            'saliency', lambda: draw_maps(panels, names),
            f'{len(panels)} pictures, each with the saliency map of both networks.',
            f'Occlusion saliency: bright where covering moves the feature, outlined above the '
            f'mean; pictures on which the networks differ most come first. {names[1]} is the '
            'network that is compared with.') + self.figure(
                'overlap', lambda: draw_histogram(summary, names),
                f'Histogram of overlaps; their mean is {mean}.',
                f'Overlap of the salient regions in {summary["images"]} pictures.') + table_html(
                    ['picture', 'overlap (IoU)'], rows, 'Overlap in each picture') + (
                        self.series(given, earlier, networks, comparisons, settings, names[1]))

    def series(self, given: _Network, earlier: Sequence[Path], networks: Sequence[Network],
               comparisons: Sequence[Comparison], settings: Occlusion, against: str) -> str:
        """Overlap over accuracy in the course of training."""
        if not earlier:
            return paragraph_html(
                f'Only one checkpoint, {given.checkpoint.name}: how the overlap changed in '
                'training takes several (default_hooks.checkpoint.max_keep_ckpts=-1 keeps them).')
        points = []
        for file, network, found in zip([*earlier, given.checkpoint], networks, comparisons):
            summary = summarise_overlap(found.overlaps, found.other_images)
            points.append(SeriesPoint(
                file.stem, accuracy(network, given.images, given.features.indices, settings),
                summary['mean'], summary['standard_error']))
        return self.figure(
            'series', lambda: draw_series(points, against),
            f'Mean overlap of {len(points)} checkpoints with {against}, over their accuracy.',
            'Mean overlap of the salient regions in the course of training; bars are standard '
            'errors.') + table_html(
                ['checkpoint', 'kNN accuracy, %', 'mean overlap', 'standard error'], points,
                'Overlap of each checkpoint')

    def neighbours(self, given: _Network) -> str:
        """Nearest pictures and duplicates."""
        indices, values = given.features
        if len(indices) < 2:
            raise ValueError('one picture has no neighbours.')
        queries = find_queries(given.images, None, indices, QUERIES)
        rows, cosines = nearest(values, queries, NEIGHBOURS)
        cells = make_cells(given.images, indices, queries, rows, cosines, given.side)
        pairs = duplicates(values, indices, given.images, DUPLICATE_SIMILARITY, MOST_DUPLICATES)
        accuracy = knn_accuracy(given.features, given.images)
        caption = f'Each row: a picture, and the nearest of {len(indices)} by feature.'
        if accuracy is not None:
            caption += (' Solid frames have the same label. Neighbours among one half of the '
                        f'pictures give {accuracy:.1f} % of the other half their label.')
        return self.figure('neighbours', lambda: draw_neighbours(cells),
                           f'{len(queries)} pictures with their nearest neighbours.',
                           caption) + table_html(
            ['first', 'second', 'kind', 'similarity', 'pixel difference'],
            [[given.images.names[pair.first], given.images.names[pair.second], *pair[4:],
              *pair[2:4]] for pair in pairs],
            f'{len(pairs)} possible duplicates (similarity of {DUPLICATE_SIMILARITY} and above'
            f'{", the first of them" if len(pairs) == MOST_DUPLICATES else ""})')

    def class_weights(self, given: _Network) -> str:
        """Training images with the nearest class weights."""
        try:
            images, values = training_images(given.cfg, given.checkpoint)
        except BankFileError as error:
            raise ValueError(str(error)) from error
        indices = list(range(len(images)))
        queries = find_queries(images, None, indices, QUERIES)
        rows, cosines = nearest(values, queries, NEIGHBOURS)
        cells = make_cells(images, indices, queries, rows, cosines, given.side)
        return self.figure(
            'class_weights', lambda: draw_neighbours(cells),
            f'{len(queries)} training pictures with those of the nearest class weights.',
            f'Each row: a training picture, and those of the {len(images)} whose class weights '
            'are nearest to its own.')

    def embedding(self, given: _Network) -> str:
        """Map with pictures."""
        points = embed(given.features.values.numpy())
        groups = groups_of(given.features, given.images)
        write_figure(lambda: draw_embedding(points, groups), self.out / 'embedding')
        by = 'label' if given.images.labels is not None else 'cluster (there are no labels)'
        names = [given.images.names[index] for index in given.features.indices]
        return paragraph_html(f't-SNE of the features of {len(names)} pictures, coloured by {by}.'
                              ) + map_html(points, groups, names, read_thumbnails(
                                  given.images, given.features.indices, given.side))


def newest_checkpoint(work_dir: Path) -> Path:
    """The checkpoint with the largest number, by epochs or iterations.

    Raises:
        FileNotFoundError: If there is none.
    """
    numbered = numbered_checkpoints(work_dir)
    if not numbered:
        raise FileNotFoundError(f'{work_dir} holds no epoch_N.pth or iter_N.pth: give '
                                '--checkpoint.')
    return numbered[-1][1]


def numbered_checkpoints(work_dir: Path) -> List[Tuple[int, Path]]:
    """Checkpoints by epochs or iterations, in the order of their numbers."""
    return sorted((int(match[1]), file) for file in work_dir.glob('*.pth')
                  for match in [re.fullmatch(r'(?:epoch|iter)_(\d+)', file.stem)] if match)


def earlier_checkpoints(checkpoint: Path, most: int) -> List[Path]:
    """Checkpoints of the same run before this one, evenly from all, in their order.

    Args:
        checkpoint (Path): ``epoch_N.pth`` or ``iter_N.pth``; another name has none before it.
        most (int): How many.
    """
    numbered = numbered_checkpoints(checkpoint.parent)
    files = [file for _, file in numbered]
    before = files[:files.index(checkpoint)] if checkpoint in files else []
    return [before[place] for place in analysis_inputs.choose(len(before), most)]


def find_run_config(work_dir: Path) -> Path:
    """The config that mmengine wrote into a work folder.

    Raises:
        FileNotFoundError: If there is none.
    """
    files = sorted(work_dir.glob('*/vis_data/config.py')) or sorted(work_dir.glob('*.py'))
    if not files:
        raise FileNotFoundError(f'{work_dir} holds no config: give --config.')
    return files[-1]


def _open(args: argparse.Namespace) -> _Network:
    cfg: Config = analysis_inputs.read_config_file(
        args.config or str(find_run_config(args.work_dir)))
    side = analysis_inputs.choose_side(args.side, cfg)
    checkpoint = Path(args.checkpoint or newest_checkpoint(args.work_dir))
    network = open_network(checkpoint, cfg, device=args.device)
    images = analysis_inputs.open_images(args.images, evaluated_dataset(cfg))
    chosen = analysis_inputs.choose(len(images), args.num_images)
    features = extract(network, images, chosen, side, args.batch_size)
    return _Network(cfg, checkpoint, network, images, side, features)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Command line entry."""
    args = parse_args(argv)
    with explained_errors(TOOL):
        require('matplotlib')
        if not args.work_dir.is_dir():
            raise FileNotFoundError(f'there is no folder {args.work_dir}.')
        file = run(args)
    print(f'{file}: {file.stat().st_size} bytes')


def run(args: argparse.Namespace) -> Path:
    """Make the page and the figures beside it.

    Returns:
        Path: The page.
    """
    out = args.work_dir / 'report' if args.out is None else args.out
    out.mkdir(parents=True, exist_ok=True)
    report = _Report(args, out)
    report.add('health', 'Training health', report.health)
    given: Any = None
    reason = ''
    try:
        given = _open(args)
    except (OSError, ModuleNotFoundError, ValueError) as error:
        reason = str(error)
    for name, title, make in (('saliency', 'Where the network looks', report.saliency),
                              ('neighbours', 'Nearest pictures', report.neighbours),
                              ('class_weights', 'Nearest class weights',
                               report.class_weights),
                              ('embedding', 'Map of the features', report.embedding)):

        def body(make: Callable[[_Network], str] = make) -> str:
            if given is None:
                raise ValueError(reason)
            return make(given)

        report.add(name, title, body)
    if given is not None and given.images.skipped:
        analysis_inputs.report_skipped(TOOL, given.images)
        report.sections.append(Section('skipped', 'Pictures left out', table_html(
            ['picture', 'reason'], given.images.skipped, f'{len(given.images.skipped)} pictures')))
    name = args.work_dir.resolve().name
    page = build_page(f'PIC run {name}', 'What the network learned, in pictures.', report.sections)
    file = out / 'report.html'
    analysis_inputs.write_text(file, page)
    return file


if __name__ == '__main__':
    main()
