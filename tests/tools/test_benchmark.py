# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from pic_plugin.bank import initial_rows
from pic_plugin.studies.benchmark import run as run_module
from pic_plugin.studies.benchmark.case import Case
from pic_plugin.studies.benchmark.heads import SEED
from pic_plugin.studies.benchmark.run import make_cases, measure
from pic_plugin.tools import benchmark

SIZES = ['--num-negatives', '12', '--batch-size', '5', '--feat-dim', '6', '--window-size', '24',
         '--stride', '6', '--warmup', '20', '--steps', '5', '--repetitions', '2']


@pytest.fixture
def run(tmp_path):
    """Build and measure cases; they are closed afterwards."""
    cases = []

    def run(*options: str) -> list[Case]:
        args = benchmark.parse_args([*SIZES, *options])
        cases.extend(make_cases(args, tmp_path))
        measure(cases, args.steps, args.repetitions)
        return cases

    yield run
    for case in cases:
        case.close()


@pytest.mark.parametrize('num_negatives', [5, 12, 100])
def test_all_ways_train_the_same_weights(run, num_negatives: int) -> None:
    bank, file, cold, dense = run('--num-negatives', str(num_negatives), '--bank', '60',
                                  '--file', '60', '--cold', '60', '--dense', '60')
    ids = np.arange(60)
    expected = dense.head.class_weights(ids)
    assert not torch.equal(expected, torch.from_numpy(initial_rows(ids, 6, SEED)))
    for case in (bank, file, cold):
        for a, b in ((case.warmup_losses, dense.warmup_losses),
                     ([step.loss for step in case.steps], [step.loss for step in dense.steps])):
            # Two float32 implementations; untrained rows are short (0.01), so that they are
            # sensitive.
            np.testing.assert_allclose(a, b, rtol=2e-4)
        torch.testing.assert_close(case.head.class_weights(ids), expected, rtol=1e-3,
                                   atol=1e-4 * float(expected.std()))


def test_full_softmax_is_over_all_classes(run) -> None:
    bank, full = run('--num-negatives', '60', '--bank', '60', '--dense', '--full', '60')
    np.testing.assert_allclose([step.loss for step in bank.steps],
                               [step.loss for step in full.steps], rtol=2e-4)
    assert full.num_negatives == 60


def test_rows_leave_and_return_while_measured(run) -> None:
    bank, = run('--bank', '60', '--dense')

    assert len(bank.head.bank.active_set) == 12
    assert bank.returned > 1
    assert len(bank.steps) == 10


def test_each_number_of_negatives_is_a_case(run) -> None:
    cases = run('--num-negatives', '8', '16', '--bank', '60', '--dense', '--full', '60')
    assert [(case.kind, case.num_negatives) for case in cases] == [
        ('bank', 8), ('full', 60), ('bank', 16)]


def test_cold_rows_are_read_from_the_disk(run, monkeypatch) -> None:
    dropped = []
    monkeypatch.setattr('pic_plugin.studies.benchmark.heads.drop_from_cache', dropped.append)
    file, cold = run('--bank', '--dense', '--file', '60', '--cold', '60')
    assert dropped == [cold.head.path] * 3, 'before the warm-up and two turns'
    assert file.head.path.stat().st_blocks > 0


def test_numbers_of_instances_see_a_stream_of_their_own(run) -> None:
    small, large = run('--bank', '60', '5000', '--dense')

    assert small.num_instances == 60 and large.num_instances == 5000
    assert int(large.head.bank.active_ids.max()) >= 60


def test_the_table_names_every_case(capsys: pytest.CaptureFixture,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, 'NUM_INDICES', 1000)
    benchmark.main([*SIZES, '--bank', '60', '1000', '--dense', '60', '--file', '60'])

    out = capsys.readouterr().out
    rows = [line.split()[:2] for line in out.splitlines()
            if line.startswith(('bank ', 'dense ', 'file '))]
    assert rows == [['bank', '60'], ['bank', '1,000'], ['file', '60'], ['dense', '60']]


@pytest.mark.parametrize('options, message', [
    (['--batch-size', '13'], '--batch-size 13 does not fit --num-negatives 12'),
    (['--steps', '0'], '--steps must be at least 1'),
    (['--bank', '--dense'], 'nothing to run'),
    (['--bank', '0'], 'must be at least 1'),
])
def test_bad_options_are_refused(options: list, message: str,
                                 capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        benchmark.parse_args([*SIZES, *options])
    assert message in capsys.readouterr().err
