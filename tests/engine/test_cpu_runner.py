# SPDX-License-Identifier: Apache-2.0
"""CPURunner: two processes without a GPU are one training."""
from pathlib import Path

from toys.processes import command, run_ranks


def test_two_processes_share_gradients(tmp_path):
    work = Path(__file__).with_name('cpu_runner_work.py')
    for rank, (status, output) in enumerate(run_ranks(command, 2, [work, tmp_path], tmp_path)):
        assert status == 0, output
        # The gradients are 1 and 3: 1 - mean is -1 in both, although the model has a SyncBN.
        assert f'rank {rank} of 2 gloo: CPURunner -1.0 ended True' in output
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'CPUs have no SyncBN' in log
