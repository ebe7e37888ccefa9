# SPDX-License-Identifier: Apache-2.0
"""Mean, deviation, table, CSV, figure and page, of results written by hand."""
import csv
import json
import shutil
from pathlib import Path
from unittest import mock

import pytest

from pic_plugin.studies.ablation.figure import draw
from pic_plugin.studies.ablation.grid import read_grid
from pic_plugin.studies.tables import summarise
from pic_plugin.tools import ablation

TOY = str(Path(__file__).with_name('toy_grid.py'))


def put(folder, values, seeds=(0, 1)):
    """{rate: [knn of each seed]}"""
    for training in read_grid(TOY, seeds=seeds).trainings:
        if training.labels['rate'] in values:
            target = folder / training.name
            target.mkdir(parents=True)
            knn = values[training.labels['rate']][seeds.index(training.seed)]
            (target / 'result.json').write_text(json.dumps(dict(knn20=knn, linear=2 * knn)))


def report(tmp_path, *options):
    ablation.main(['report', TOY, '--work-dir', str(tmp_path / 'work'), '--out',
                   str(tmp_path / 'out'), *options])
    return tmp_path / 'out'


def test_summary_by_hand():
    # (30 + 32 + 37) / 3 = 33; squares of the differences 9 + 1 + 16 = 26; 26 / 2 = 13.
    summary = summarise([30.0, 32.0, 37.0])
    assert summary.mean == 33 and summary.std == pytest.approx(13**0.5) and summary.seeds == 3
    assert summarise([5.0]) == (5.0, None, 1)
    assert summarise([]) is None


def test_table_csv_and_figure(tmp_path):
    put(tmp_path / 'work', dict(low=[30.0, 34.0], high=[41.25, 41.25]))
    out = report(tmp_path)
    # Standard deviation of 30 and 34: the root of 8; of 60 and 68: of 32.
    assert (out / 'toy_grid.md').read_text().splitlines() == [
        '| rate | kNN | linear | seeds |',
        '| --- | --- | --- | --- |',
        '| low | 32.0 ± 2.8 | 64.0 ± 5.7 | 2 |',
        '| high | 41.2 ± 0.0 | 82.5 ± 0.0 | 2 |',
        '',
        '*Learning rates. Forty images.*']
    with open(out / 'toy_grid.csv') as file:
        rows = list(csv.DictReader(file))
    assert [(row['rate'], row['seed'], float(row['knn20'])) for row in rows] == [
        ('low', '0', 30), ('high', '0', 41.25), ('low', '1', 34), ('high', '1', 41.25)]
    figure = (out / 'toy_grid.svg').read_text()
    assert '<svg' in figure and len(figure) < 100_000
    report(tmp_path)
    assert (out / 'toy_grid.svg').read_text() == figure, 'no date, no random ids'


def test_levels_without_an_order_are_rows(tmp_path):
    grid = read_grid(TOY)
    rows = [{'rate': rate, 'seed': seed, 'knn20': 40.0 + seed, 'linear': 50.0}
            for rate in ('low', 'high') for seed in (0, 1)]
    for line in (True, False):
        drawn = grid._replace(figure=dict(x='rate', y='knn20', line=line))
        with mock.patch('matplotlib.figure.Figure.savefig', autospec=True) as savefig:
            draw(drawn, rows, tmp_path / 'figure.svg')
        axes = savefig.call_args.args[0].axes[0]
        labels = axes.get_xticklabels() if line else axes.get_yticklabels()
        assert [label.get_text() for label in labels] == ['low', 'high']
        (points, *_), = axes.containers
        assert points.get_linestyle() == ('-' if line else 'None')
        assert (points.get_ydata() if line else points.get_xdata()).tolist() == [40.5, 40.5]


def test_what_is_not_done_is_said(tmp_path):
    out = report(tmp_path)
    assert '| low | not run | not run | 0 |' in (out / 'toy_grid.md').read_text()
    assert not (out / 'toy_grid.svg').exists()
    put(tmp_path / 'work', dict(high=[40.0]), seeds=(0, ))
    assert '| high | 40.0 | 80.0 | 1 |' in (report(tmp_path) / 'toy_grid.md').read_text()


def test_page_is_filled_in_between_its_marks(tmp_path):
    put(tmp_path / 'work', dict(low=[30.0, 34.0]))
    page = tmp_path / 'README.md'
    before = 'Text\n<!-- table: toy_grid -->\n'
    after = '<!-- end of table: toy_grid -->\nmore \\1\n'
    page.write_text(f'{before}old\n{after}')
    for _ in range(2):
        report(tmp_path, '--page', str(page))
        text = page.read_text()
        assert text.startswith(f'{before}| rate |') and text.endswith(after)
        assert 'old' not in text and text.count('| low | 32.0 ± 2.8 |') == 1
        assert text.count('![Learning rates](out/toy_grid.svg)') == 1
    page.write_text(before)
    with pytest.raises(SystemExit, match='must have one line'):
        report(tmp_path, '--page', str(page))


def test_what_a_table_has_is_neither_lost_nor_trained_again(tmp_path, capsys):
    put(tmp_path / 'work', dict(low=[30.0, 34.0], high=[41.25, 41.0]))
    out = report(tmp_path)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    shutil.rmtree(tmp_path / 'work')  # another machine
    report(tmp_path)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    capsys.readouterr()
    run = ['run', TOY, '--work-dir', str(tmp_path / 'new'), '--results']
    ablation.main([*run, str(out)])
    assert '4 of 4 trainings are done' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='has no tables'):
        ablation.main([*run, str(tmp_path)])
    # What is trained anew comes first.
    put(tmp_path / 'work', dict(low=[50.0, 54.0]))
    lines = (report(tmp_path) / 'toy_grid.md').read_text().splitlines()
    assert lines[2:4] == ['| low | 52.0 ± 2.8 | 104.0 ± 5.7 | 2 |',
                          '| high | 41.1 ± 0.2 | 82.2 ± 0.4 | 2 |']


def test_a_training_in_the_table_of_another_grid_counts(tmp_path, capsys):
    put(tmp_path / 'work', dict(low=[30.0, 34.0], high=[41.25, 41.25]))
    out = report(tmp_path)
    other = tmp_path / 'other.py'
    other.write_text(Path(TOY).read_text().replace('rate', 'speed').replace(
        "config='toy_training.py'", f"config={str(Path(TOY).with_name('toy_training.py'))!r}"))
    ablation.main(['run', str(other), '--work-dir', str(tmp_path / 'new'), '--results', str(out)])
    assert '4 of 4 trainings are done' in capsys.readouterr().out
    ablation.main(['report', str(other), '--work-dir', str(tmp_path / 'new'), '--out', str(out)])
    assert '| low | 32.0 ± 2.8 | 64.0 ± 5.7 | 2 |' in (out / 'other.md').read_text()


def test_a_table_without_a_metric_of_the_grid_is_not_enough(tmp_path):
    put(tmp_path / 'work', dict(low=[30.0, 34.0], high=[41.25, 41.25]))
    out = report(tmp_path)
    other = tmp_path / 'other.py'
    other.write_text(Path(TOY).read_text().replace("linear='linear'", "knn200='kNN'").replace(
        "config='toy_training.py'", f"config={str(Path(TOY).with_name('toy_training.py'))!r}"))
    with mock.patch.object(ablation, 'run_all', return_value=[]) as run_all:
        for grid, known in ((TOY, 4), (str(other), 0)):
            ablation.main(['run', grid, '--work-dir', str(tmp_path / 'new'), '--results',
                           str(out)])
            assert len(run_all.call_args.args[-1]) == known


@pytest.mark.parametrize('options', [('--seeds', '0'), ('--images', '80')])
def test_a_report_does_not_drop_what_a_table_has(tmp_path, options):
    put(tmp_path / 'work', dict(low=[30.0, 34.0]))
    table = report(tmp_path) / 'toy_grid.csv'
    before = table.read_text()
    with pytest.raises(SystemExit, match='toy_grid.csv has [12] trainings that would be lost'):
        report(tmp_path, *options)
    assert table.read_text() == before


def test_a_table_without_names_of_trainings_is_not_overwritten(tmp_path):
    table = tmp_path / 'out' / 'toy_grid.csv'
    table.parent.mkdir()
    table.write_text('rate,seed,knn20,linear\nlow,0,30,60\n')
    with pytest.raises(SystemExit, match='toy_grid.csv has 1 trainings that would be lost'):
        report(tmp_path)
    assert table.read_text().endswith('low,0,30,60\n')


def test_damaged_results_are_named(tmp_path):
    put(tmp_path / 'work', dict(low=[30.0, 34.0]))
    file = next((tmp_path / 'work').glob('*/result.json'))
    for content, message in (('{', 'is damaged'), ('{"knn20": 1}', 'has no linear')):
        file.write_text(content)
        with pytest.raises(SystemExit, match=f'{file.parent.name}.*{message}: remove it'):
            report(tmp_path)
