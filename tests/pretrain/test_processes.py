# SPDX-License-Identifier: Apache-2.0
"""Two processes: one plans, both train the same, and a mistake ends both with one line."""
import re

from mmengine.config import Config

from pic_plugin.tools.pretrain import main
from toys.pictures import write_pictures
from toys.processes import command, run_ranks


def pretrain(*arguments, cwd):
    """Exit statuses, and the output of all."""
    results = run_ranks(command, 2, ['-m', 'pic_plugin.tools.pretrain', *arguments], cwd)
    statuses, outputs = zip(*results)
    return statuses, ''.join(outputs)


def test_two_processes(tmp_path):
    data = write_pictures(tmp_path / 'data', 40)
    statuses, output = pretrain(
        data, '--out', tmp_path / 'run', '--backbone', 'resnet18', '--image-size', '32',
        '--batch-size', '4', '--epochs', '1', '--device', 'cpu', '--no-report', cwd=tmp_path)
    assert statuses == (0, 0), output
    assert output.count('Plan:') == 1 and '2 processes' in output
    assert '40 of 40 images (100 %)' in output
    cfg = Config.fromfile(tmp_path / 'run' / 'pretrain.py')
    assert cfg.model.head.num_instances == 40
    assert cfg.train_dataloader.sampler.window_size == 20
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file()

    statuses, output = pretrain(data, '--out', tmp_path / 'run', cwd=tmp_path)
    assert 0 not in statuses
    assert len(re.findall('pretrain: .* add --resume', output)) == 1


def test_two_processes_go_on_with_the_run_of_one(tmp_path, quick):
    data, work = write_pictures(tmp_path / 'data', 40), tmp_path / 'run'
    main([str(data), '--out', str(work), '--backbone', 'resnet18', '--image-size', '32',
          '--batch-size', '4', '--epochs', '4', '--device', 'cpu', '--no-report'])
    for name in ('epoch_4.pth', 'last_checkpoint'):
        (work / name).unlink()
    statuses, output = pretrain(data, '--out', work, '--device', 'cpu', '--no-report', '--resume',
                                cwd=tmp_path)
    assert statuses == (0, 0), output
    assert (work / 'epoch_4.pth').is_file()
