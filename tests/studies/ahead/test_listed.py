# SPDX-License-Identifier: Apache-2.0
"""Trainings of a list: each is run once, whoever takes it, and ends in a table."""
import csv
import json

import pytest

from pic_plugin.studies.ahead.execute import Results
from pic_plugin.studies.ahead.listed import read_list, run_list, write_tables
from pic_plugin.studies.ahead.setting import Setting


class Made:
    """Stands for the executor: makes up results."""

    def __init__(self, folder):
        folder.mkdir(parents=True)
        self.results = Results(folder / 'results.jsonl')

    def run(self, stage, source, seconds, splits):
        ended = 0
        for name, setting in source:
            ended += 1
            values = {f'{splits[0]}_knn20': 40.0 + setting.seed, f'{splits[0]}_knn200': 41.0}
            values[f'{splits[0]}_linear'] = 45.0 if setting.method == 'pic' else 43.0
            # The best of neighbours and linear accuracy together, not of one of them.
            values[f'{splits[0]}_linear'] -= 9.0 * (setting.batch == 64)
            self.results.write(stage=stage, name=name, setting=setting.differences(), seconds=1.0,
                               **values)
        return ended


def entry(stage, name, **setting):
    return json.dumps(dict(stage=stage, name=name, setting=setting)) + '\n'


@pytest.fixture
def trainings(tmp_path):
    file = tmp_path / 'list.jsonl'
    file.write_text(
        entry('search_more', 'SimCLR', method='simclr', seed=100, lr=0.03)
        + entry('search_more', 'SimCLR', method='simclr', seed=101, lr=0.03)
        + entry('search_more', 'SimCLR', method='simclr', seed=105, batch=256)
        + entry('search_more', 'SimCLR', method='simclr', seed=106, batch=64)
        + ''.join(entry('results_more', name, method=method, seed=seed)
                  for name, method in (('PIC, refresh', 'pic'), ('SimCLR', 'simclr'))
                  for seed in (0, 1)))
    return file


def test_processes_share_a_list_and_its_results_are_tables(trainings, tmp_path):
    out = tmp_path / 'out'
    lanes = [Made(out / 'a'), Made(out / 'b')]
    assert run_list(trainings, lanes[0], out) == 8 and run_list(trainings, lanes[1], out) == 0
    with trainings.open('a') as file:
        file.write(entry('results_more', 'SimCLR', method='simclr', seed=2))
    assert run_list(trainings, lanes[1], out) == 1
    page = tmp_path / 'page.md'
    page.write_text(''.join(f'<!-- table: {name} -->\n<!-- end of table -->\n' for name in (
        'search_more', 'results_more', 'differences_results_more')))
    write_tables([out / 'a', out / 'b'], tmp_path / 'all.csv', [page])
    text = page.read_text()
    # The best first, repeats of one setting together.
    assert (text.index('| SimCLR | batch 256 | 41.0 | 145.0 | 43.0 | 1 |')
            < text.index('| SimCLR | lr 0.03 | 41.0 | 140.5 | 43.0 | 2 |')
            < text.index('| SimCLR | batch 64 | 41.0 | 146.0 | 34.0 | 1 |'))
    assert '| 5,000 | 120,000 | PIC, refresh | 41.0 ± 0.0 | 40.5 ± 0.6 | 45.0 ± 0.0 | 2 |' in text
    assert '| SimCLR | +0.0 ± 0.0 | -0.5 ± 0.8 | +2.0 ± 0.0 |' in text
    rows = list(csv.DictReader((tmp_path / 'all.csv').open()))
    assert len(rows) == 9 and rows[0]['validation_knn200'] == '41.0'
    assert [Setting(**json.loads(row['setting'])) for row in rows] == [
        setting for _, _, setting in read_list(trainings)]


def test_a_training_that_diverged_is_in_the_table(tmp_path):
    results = Results(tmp_path / 'results.jsonl')
    for seed, values in ((100, dict(validation_knn20=30.0, validation_knn200=31.0)), (101, {})):
        results.write(stage='search', name='PIC', setting=dict(method='pic', seed=seed), seconds=1,
                      **values)
    results.write(stage='search', name='PIC', setting=dict(method='pic', lr=9.0), seconds=1)
    page = tmp_path / 'page.md'
    page.write_text('<!-- table: search -->\n<!-- end of table -->\n')
    write_tables([tmp_path], tmp_path / 'all.csv', [page])
    assert '| PIC |  | 31.0 | 30.0 | 2 |\n| PIC | lr 9.0 | – | – | 1 |' in page.read_text()


def test_a_line_that_is_no_training(trainings):
    with trainings.open('a') as file:
        file.write('{"stage": "x", "name": "y", "setting": {"methd": "pic"}}\n')
    with pytest.raises(ValueError, match='line 9 of .*methd'):
        read_list(trainings)


def test_leads_are_bold_where_they_are_clear(tmp_path):
    results = Results(tmp_path / 'results.jsonl')
    runs = {('PIC, refresh', 'pic'): (44.0, 46.0), ('SimCLR', 'simclr'): (42.0, 44.0),
            ('MoCo v2', 'mocov2'): (40.0, )}
    for (name, method), accuracies in runs.items():
        for seed, accuracy in enumerate(accuracies):
            results.write(stage='results', name=name, setting=dict(method=method, seed=seed),
                          seconds=1.0, test_knn200=accuracy, test_linear=50.0 + (method == 'pic'))
    page = tmp_path / 'page.md'
    page.write_text('<!-- table: leads -->\n<!-- end of table -->\n')
    write_tables([tmp_path], tmp_path / 'all.csv', [page])
    # Runs of one setting lie sqrt(2) apart: 2.0 +- 1.4 is not clear, nor is 1.0 without an error.
    assert ('| CIFAR-10 | 5,000 | 120,000 | +2.0 ± 1.4 | +1.0 ± 0.0 | **+5.0 ± 1.7** | +1.0 ± 0.0 '
            '| 2, 2, 1 |') in page.read_text()
