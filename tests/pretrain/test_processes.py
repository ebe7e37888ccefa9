# SPDX-License-Identifier: Apache-2.0
"""Two processes: one plans, both train the same, and a mistake ends both with one line."""
import os
import re
import subprocess
import sys

from mmengine.config import Config

from toys.pictures import write_pictures


def start(*arguments, cwd):
    return subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
         '-m', 'pic_plugin.tools.pretrain', *map(str, arguments)], cwd=cwd, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ, OMP_NUM_THREADS='1'))


def test_two_processes(tmp_path):
    data = write_pictures(tmp_path / 'data', 40)
    result = start(data, '--out', tmp_path / 'run', '--backbone', 'resnet18', '--image-size', '32',
                   '--batch-size', '4', '--epochs', '1', '--device', 'cpu', '--no-report',
                   cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count('Plan:') == 1 and '2 processes' in result.stdout
    assert '40 of 40 images (100 %)' in result.stdout
    cfg = Config.fromfile(tmp_path / 'run' / 'pretrain.py')
    assert cfg.model.head.num_instances == 40
    assert cfg.train_dataloader.sampler.window_size == 20
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file()

    again = start(data, '--out', tmp_path / 'run', cwd=tmp_path)
    assert again.returncode != 0
    assert len(re.findall('pretrain: .* add --resume', again.stdout)) == 1
