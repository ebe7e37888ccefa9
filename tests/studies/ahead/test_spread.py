# SPDX-License-Identifier: Apache-2.0
"""Standard errors from the spread of all groups, against statistics of the standard library."""
import math
import statistics

import pytest

from pic_plugin.studies.ahead.report import parts_table
from pic_plugin.studies.ahead.setting import Setting
from pic_plugin.studies.ahead.spread import (
    difference_rows,
    group_runs,
    mean_text,
    pooled_deviation,
    runs_text,
)

VALUES = {'PIC, refresh': [50.0, 53.0, 55.0], 'SimCLR': [41.0, 42.5], 'MoCo v2': [30.0]}


def records(**changes):
    return [dict(stage='results', name=name, accuracy=value, setting=Setting(seed=seed, **changes))
            for name, values in VALUES.items() for seed, value in enumerate(values)]


def test_spread_is_pooled_over_groups_by_degrees_of_freedom():
    groups = group_runs(records(), ['results'])
    variances = [statistics.variance(values) for values in list(VALUES.values())[:2]]
    expected = math.sqrt((2 * variances[0] + 1 * variances[1]) / 3)
    assert pooled_deviation(groups, 'cifar10', 'accuracy') == pytest.approx(expected)
    assert math.isnan(pooled_deviation(groups, 'clothing', 'accuracy'))


def test_a_single_run_gets_its_error_from_the_others():
    groups = group_runs(records(), ['results'])
    deviation = pooled_deviation(groups, 'cifar10', 'accuracy')
    text = mean_text(groups, ('cifar10', 5000, 120000, 'MoCo v2'), 'accuracy')
    assert text == f'30.0 ± {deviation:.1f}'
    text = mean_text(groups, ('cifar10', 5000, 120000, 'PIC, refresh'), 'accuracy')
    assert text == f'52.7 ± {deviation / math.sqrt(3):.1f}'


def test_differences_have_the_errors_of_both_means():
    groups = group_runs(records(), ['results'])
    deviation = pooled_deviation(groups, 'cifar10', 'accuracy')
    rows = {row[3]: row[4] for row in difference_rows(groups, ['accuracy'])}
    assert rows == {'SimCLR': f'+10.9 ± {deviation * math.sqrt(1 / 3 + 1 / 2):.1f}',
                    'MoCo v2': f'+22.7 ± {deviation * math.sqrt(1 / 3 + 1):.1f}'}


def test_runs_of_two_settings_make_no_mean():
    with pytest.raises(ValueError, match='2 settings'):
        group_runs(records() + records(lr=0.5), ['results'])


def test_repeats_of_a_seed_are_told_apart_from_seeds():
    groups = group_runs(records() + records(), ['results'])
    assert runs_text(groups['cifar10', 5000, 120000, 'SimCLR']) == '4 (seeds: 2)'


def test_a_change_to_what_was_chosen_is_a_run_of_the_first_row():
    parts = [dict(stage='parts', name=name, setting=setting, test_knn200=value)
             for name, setting, value in (('as chosen', Setting(), 47.0),
                                          ('at 1', Setting(weight_lr=1.0), 49.0),
                                          ('at 0.3', Setting(weight_lr=0.3), 45.0))]
    lines = parts_table(parts).splitlines()
    assert lines[2:] == ['| as chosen | 48.0 ± 1.4 | – | – | 2 (seeds: 1) |',
                         '| at 0.3 | 45.0 | – | – | 1 |']
