# SPDX-License-Identifier: Apache-2.0
"""Runs FILES in a process that sees the GPUs of this machine; conftest.py hides them."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parent
FILES = [TESTS / 'bank/test_cuda.py', TESTS / 'engine/test_cuda_training.py']


def test_other_tests_see_no_gpu():
    assert os.environ['CUDA_VISIBLE_DEVICES'] == '' and not torch.cuda.is_available()


def test_cuda_where_there_is_a_gpu():
    visible = os.environ['PIC_PLUGIN_TEST_GPUS']
    if visible == '' or not (list(Path('/dev').glob('nvidia[0-9]*')) or Path('/dev/dxg').exists()):
        pytest.skip('this machine has no NVIDIA GPU, or it is hidden')
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith('PYTEST_') and name != 'CUDA_VISIBLE_DEVICES'}
    # torch looks for GPUs by NVML, and starts no CUDA in a process from which others are forked.
    environment['PYTORCH_NVML_BASED_CUDA_CHECK'] = '1'
    if visible != 'all':
        environment['CUDA_VISIBLE_DEVICES'] = visible
    found = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', *FILES], env=environment, cwd=TESTS.parent,
        capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    if 'this process sees no GPU' in found.stdout:
        pytest.skip('there is an NVIDIA GPU that this build of torch does not see')
