# SPDX-License-Identifier: Apache-2.0
"""Scalars of runs that were resumed, cut off or logged little."""
import csv
import json

import cv2
import pytest

from pic_plugin.analysis.health_figure import CHARTS, charts_of, curves_of, draw_health
from pic_plugin.analysis.scalars import Run, read_run
from pic_plugin.analysis.style import write_figure
from pic_plugin.tools.training_health import main


def write(work_dir, start, lines, batch_size=8, processes=2):
    folder = work_dir / start / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('\n'.join(
        line if isinstance(line, str) else json.dumps(line) for line in lines))
    (folder / 'config.py').write_text(f'train_dataloader = dict(batch_size={batch_size})\n')
    (folder.parent / f'{start}.log').write_text(f'...\n    GPU number: {processes}\n')


def test_resumed_and_cut_off(tmp_path):
    write(tmp_path, '20250101_000000', [
        dict(loss=3.0, lr=0.1, iter=10, epoch=1, step=10), {'knn/top1_k20': 30.0, 'step': 1},
        dict(loss=2.0, lr=0.1, iter=20, epoch=2, step=20), dict(loss=9.0, iter=25, step=25),
        '{"loss": 1.'])
    write(tmp_path, '20250102_000000', [
        dict(loss=1.5, lr=0.05, iter=20, epoch=2, step=20), {'knn/top1_k20': 40.0, 'step': 2}])
    run = read_run(tmp_path)
    # 16 images an iteration; the resumed start replaces iterations 20 and later.
    assert run.curves['loss'] == [(160, 3.0), (320, 1.5)]
    assert run.curves['knn/top1_k20'] == [(160, 30.0), (320, 40.0)]
    assert run.curves['lr'] == [(160, 0.1), (320, 0.05)]
    assert run.damaged == 1 and run.name == tmp_path.name
    assert 'step' not in run.curves and 'epoch' not in run.curves


def test_resumed_with_other_numbers_of_processes(tmp_path):
    write(tmp_path, '20250101_000000', [
        dict(loss=3.0, iter=10), dict(loss=2.0, iter=20), {'knn/top1_k20': 30.0}])
    write(tmp_path, '20250102_000000', [
        dict(loss=1.0, iter=30), {'knn/top1_k20': 40.0}, dict(loss=0.5, iter=40)], processes=1)
    write(tmp_path, '20250103_000000', [dict(loss=0.4, iter=40)], processes=4)
    curves = read_run(tmp_path).curves
    # 16 images in an iteration, then 8, then 32.
    assert curves['loss'] == [(160, 3.0), (320, 2.0), (400, 1.0), (720, 0.4)]
    assert curves['knn/top1_k20'] == [(320, 30.0), (400, 40.0)]


def test_what_only_a_start_that_is_replaced_logged_has_no_curve(tmp_path):
    write(tmp_path, '20250101_000000', [dict(loss=3.0, grad_norm=1.0, iter=10)])
    write(tmp_path, '20250102_000000', [dict(loss=2.0, iter=10)])
    assert read_run(tmp_path).curves == {'loss': [(160, 2.0)]}


def test_the_times_of_an_evaluation_are_not_those_of_a_step(tmp_path):
    write(tmp_path, '20250101_000000', [
        dict(loss=3.0, time=0.5, data_time=0.1, iter=10),
        {'knn/top1_k20': 30.0, 'time': 9.0, 'data_time': 8.0, 'step': 1}])
    curves = read_run(tmp_path).curves
    assert curves['time'] == [(160, 0.5)] and curves['data_time'] == [(160, 0.1)]
    assert curves['knn/top1_k20'] == [(160, 30.0)]


def test_small_values_keep_their_digits(tmp_path):
    write(tmp_path / 'a', '20250101_000000', [dict(loss=3.0, lr=1.2345e-7, iter=10)])
    main([str(tmp_path / 'a'), '--out', str(tmp_path / 'out')])
    assert 'a,lr,160,1.2345e-07\n' in (tmp_path / 'out' / 'health.csv').read_text()


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    folders = [tmp_path / 'a' / 'run', tmp_path / 'b' / 'run', tmp_path / 'b' / 'other']
    for folder in folders:
        write(folder, '20250101_000000', [dict(loss=3.0, iter=10)])
    main([*map(str, folders), '--out', str(tmp_path / 'out')])
    rows = (tmp_path / 'out' / 'health.csv').read_text().splitlines()[1:]
    assert [row.split(',')[0] for row in rows] == [str(folders[0]), str(folders[1]), 'other']


def test_charts_take_what_belongs_to_them():
    run = Run('a', {'knn/top1_k20': [], 'knn/top1_k200': [], 'loss': [], 'other': []}, 0)
    assert [sorted(curves_of(run, chart)) for chart in CHARTS] == [
        ['loss'], [], ['knn/top1_k20', 'knn/top1_k200'], [], [], []]


def test_learning_rates_of_several_optimizers_are_one_chart():
    run = Run('a', {name: [(16, 0.1)] for name in (
        'network.lr', 'class_weights.lr', 'network.momentum', 'base_lr')}, 0)
    chart = next(chart for chart in CHARTS if chart.title == 'learning rate')
    assert sorted(curves_of(run, chart)) == ['class_weights.lr', 'network.lr']


def test_names_of_runs_are_shown_as_they_are(tmp_path):
    runs = [Run(name, {'loss': [(16, 3.0)]}, 0) for name in ('_old', 'at $5$')]
    write_figure(lambda: draw_health(runs), tmp_path / 'health')
    svg = (tmp_path / 'health.svg').read_text()
    assert '>_old<' in svg and '>at $5$<' in svg


def test_online_measures_are_drawn_where_they_are_logged(tmp_path):
    plain = Run('a', {'loss': [(16, 3.0)]}, 0)
    online = Run('b', {'loss': [(16, 3.0)], 'effective_rank': [(16, 40.0)],
                       'uniformity': [(16, -2.0)], 'alignment': [(16, 1.0)]}, 0)
    assert charts_of([plain]) == CHARTS
    titles = [axes.get_title() for axes in draw_health([plain, online]).axes]
    assert titles == [chart.title for chart in CHARTS] + [
        'effective rank of features', 'alignment and uniformity', '']


def test_figure_of_two_runs(tmp_path, capsys):
    for name in 'ab':
        write(tmp_path / name, '20250101_000000', [
            dict(loss=3.0, lr=0.1, iter=10), dict(loss=float('nan'), lr=0.1, iter=20),
            dict(loss=1.0, lr=0.1, iter=30), {'knn/top1_k20': 30.0, 'knn/top1_k200': 31.0}])
    main([str(tmp_path / 'a'), str(tmp_path / 'b'), '--out', str(tmp_path / 'out')])
    assert cv2.imread(str(tmp_path / 'out' / 'health.png')).std() > 10
    svg = (tmp_path / 'out' / 'health.svg').read_text()
    assert 'kNN accuracy, %' in svg and 'not logged' in svg and 'knn/top1_k200' in svg
    with open(tmp_path / 'out' / 'health.csv', newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert dict(run='b', scalar='loss', images_seen='480', value='1.000000') in rows


def test_no_scalars_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match='LocalVisBackend'):
        main([str(tmp_path)])
    with pytest.raises(SystemExit, match='no folder'):
        main([str(tmp_path / 'missing')])
