# SPDX-License-Identifier: Apache-2.0
"""CPURunner: two processes without a GPU are one training."""
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_two_processes_share_gradients(tmp_path):
    env = dict(os.environ, PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES='')
    result = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
         Path(__file__).with_name('cpu_runner_work.py'), tmp_path],
        env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert result.returncode == 0, result.stdout
    # The gradients are 1 and 3: 1 - mean is -1 in both, although the model has a SyncBN.
    for rank in (0, 1):
        assert f'rank {rank} of 2 gloo: CPURunner -1.0' in result.stdout
    assert 'CPUs have no SyncBN' in result.stdout
