# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from pic_plugin.tools import benchmark

SIZES = ['--num-negatives', '12', '--batch-size', '5', '--feat-dim', '6', '--window-size', '24',
         '--stride', '6', '--warmup', '20', '--steps', '5', '--repetitions', '2']


def _cases(*options: str) -> list[benchmark.Case]:
    args = benchmark.parse_args([*SIZES, *options])
    cases = benchmark.make_cases(args)
    benchmark.measure(cases, args.steps, args.repetitions)
    return cases


@pytest.mark.parametrize('num_negatives', [5, 12, 100])
def test_bank_and_dense_train_the_same_weights(num_negatives: int) -> None:
    bank, dense = _cases('--num-negatives', str(num_negatives), '--instances', '60',
                         '--dense', '60')
    ids = np.arange(60)

    for a, b in ((bank.warmup_losses, dense.warmup_losses),
                 ([step.loss for step in bank.steps], [step.loss for step in dense.steps])):
        # Two float32 implementations; untrained rows are short (0.01), so that they are sensitive.
        np.testing.assert_allclose(a, b, rtol=2e-4)
    weights, expected = bank.head.class_weights(ids), dense.head.class_weights(ids)
    assert not torch.equal(expected, torch.from_numpy(
        benchmark.initial_rows(ids, 6, benchmark.SEED)))
    torch.testing.assert_close(weights, expected, rtol=1e-3, atol=1e-4 * float(expected.std()))


def test_rows_leave_and_return_while_measured() -> None:
    bank, = _cases('--instances', '60', '--dense')

    assert len(bank.head.bank.active_set) == 12
    assert bank.returned > 1
    assert len(bank.steps) == 10


def test_numbers_of_instances_see_a_stream_of_their_own() -> None:
    small, large = _cases('--instances', '60', '5000', '--dense')

    assert small.num_instances == 60 and large.num_instances == 5000
    assert int(large.head.bank.active_ids.max()) >= 60


def test_the_table_names_every_case(capsys: pytest.CaptureFixture) -> None:
    benchmark.main([*SIZES, '--instances', '60', '1000', '--dense', '60'])

    out = capsys.readouterr().out
    rows = [line.split()[:2] for line in out.splitlines()
            if line.startswith(('bank ', 'dense '))]
    assert rows == [['bank', '60'], ['bank', '1,000'], ['dense', '60']]


@pytest.mark.parametrize('options, message', [
    (['--batch-size', '13'], '--batch-size 13 does not fit --num-negatives 12'),
    (['--steps', '0'], '--steps must be at least 1'),
    (['--instances', '--dense'], 'nothing to run'),
    (['--instances', '0'], 'must be at least 1'),
])
def test_bad_options_are_refused(options: list, message: str,
                                 capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        benchmark.parse_args([*SIZES, *options])
    assert message in capsys.readouterr().err
