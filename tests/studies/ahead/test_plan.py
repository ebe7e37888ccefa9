# SPDX-License-Identifier: Apache-2.0
"""The stages of the study: what they ask for, without training it; and its tables."""
import json
import types

import pytest
import torch

from pic_plugin.studies.ahead.execute import Results
from pic_plugin.studies.ahead.images import Images
from pic_plugin.studies.ahead.plan import TINY, Plan
from pic_plugin.studies.ahead.report import write_report
from pic_plugin.studies.ahead.search import RIVALS, SPACES
from pic_plugin.tools.ahead import STAGES

STAGES_OF_TRAININGS = [name for name in STAGES if name not in ('smoke', 'lanes', 'full')]


class Asked:
    """Stands for the executor: takes what it is asked for and makes up results."""

    deadline = float('inf')

    def __init__(self, folder):
        self.results = Results(folder / 'results.jsonl')
        pixels, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4).long()
        self.images = lambda name: Images(pixels, labels, {}, 4, 8, torch.ones(3), torch.ones(3))
        self.trainings = []

    def run(self, stage, source, seconds, report=None, **options):
        count = 0
        for label, setting in source:
            result = dict(validation_knn20=30.0 + setting.seed / 10, test_knn20=40.0,
                          test_knn200=41.0 + setting.seed, test_linear=45.0)
            self.results.write(stage=stage, name=label, setting=setting.differences(),
                               seconds=1.0, **result)
            if report is not None:
                report(label, setting, result)
            self.trainings.append((stage, label, setting))
            count += 1
        return count


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('study')
    plan = Plan(Asked(folder), TINY, folder, STAGES)
    counts = {name: getattr(plan, f'stage_{name}')(1.0) for name in STAGES_OF_TRAININGS}
    assert all(counts.values()), counts
    plan.asked = plan.executor.trainings
    folder_and_plan = types.SimpleNamespace(path=folder, plan=plan)
    return folder_and_plan


def test_results_have_fresh_seeds_and_all_lengths_of_each_method(folder):
    asked = [(label, setting) for stage, label, setting in folder.plan.asked
             if stage == 'results_small']
    methods = {label for label, _ in asked}
    assert methods == {'PIC', 'PIC, refresh', 'SimCLR', 'MoCo v2'}
    for method in methods:
        sizes = sorted((setting.seed, setting.passes) for label, setting in asked
                       if label == method)
        assert sizes == [(seed, passes) for seed in (0, 1, 2) for passes in sorted(TINY.passes)]
    assert all(setting.seed >= 100 for stage, _, setting in folder.plan.asked
               if stage.startswith('search'))


def test_each_method_has_as_many_tries_and_repeats(folder):
    for stage in ('search_small', 'search_small_confirm', 'search_large', 'search_rivals'):
        labels = [label for one, label, _ in folder.plan.asked if one == stage]
        assert len({labels.count(label) for label in labels}) == 1


def test_the_page_gets_means_and_their_standard_errors(folder, tmp_path):
    page = tmp_path / 'ahead.md'
    page.write_text('Before\n<!-- table: results -->\nold\n<!-- end of table -->\nAfter\n')
    write_report([folder.path], tmp_path / 'ahead', [page])
    text = page.read_text()
    assert 'old' not in text and text.startswith('Before') and text.endswith('After\n')
    assert '| 128 | 1,024 | SimCLR | 42.0 ± 0.5 | 40.0 ± 0.0 | 45.0 ± 0.0 | 3 |' in text
    lines = (tmp_path / 'ahead' / 'trainings.csv').read_text().splitlines()
    assert len(lines) == 1 + len({(stage, label, setting.key)
                                  for stage, label, setting in folder.plan.asked})
    assert json.loads((tmp_path / 'ahead' / 'measures.json').read_text()) == {}


def test_rivals_have_plain_epochs():
    for label, (start, _) in {**SPACES, **RIVALS}.items():
        assert (start.window_size == 0) == (not label.startswith('PIC')), label
