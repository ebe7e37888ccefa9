# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that version 0.1.0 wrote go on as they did there; v0_1_0/make.py made them."""
from pathlib import Path

import numpy as np
import pytest

from toys.processes import run_ranks, train_rank
from toys.training import snapshot, train

HERE = Path(__file__).parent / 'v0_1_0'
# As in v0_1_0/make.py.
OPTIONS = dict(seed=11, augment=False)
EXACT = ('active_ids', 'step', 'ids', 'stamps', 'active')


@pytest.mark.parametrize('name, options', [
    ('single', dict()),
    ('disk', dict(head=dict(storage=dict(type='mmap', dtype='float16')))),
    ('two', dict(batch_size=4)),
    ('sharded', dict(batch_size=4, head=dict(sharded=True))),
])
def test_goes_on_as_in_version_0_1_0(tmp_path, name, options):
    options = dict(OPTIONS, resume=True, load_from=str(HERE / name / 'epoch_2.pth'), **options)
    if 'batch_size' in options:
        results = run_ranks(train_rank, 2, str(tmp_path), options)
        assert all(isinstance(result, tuple) for result in results), results
        losses, states = zip(*results)
        losses, state = np.mean(losses, axis=0), states[0]
    else:
        runner = train(tmp_path, **options)
        losses, state = runner.losses, snapshot(runner)
    with np.load(HERE / name / 'epoch_4.npz') as expected:
        assert {'class_weights', 'losses', *EXACT} <= set(expected.files)
        for key in expected.files:
            got = losses if key == 'losses' else state[key]
            if key in EXACT:
                np.testing.assert_array_equal(got, expected[key], err_msg=key)
            else:
                # Bit for bit on the kind of processor that made them; others sum in other orders,
                # which 14 float32 steps at learning rate 0.1 amplify.
                np.testing.assert_allclose(got, expected[key], rtol=1e-4, atol=1e-5, err_msg=key)
