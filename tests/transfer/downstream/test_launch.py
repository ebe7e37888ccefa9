# SPDX-License-Identifier: Apache-2.0
"""Two processes without GPUs, other tools of the plugin, and faults, through mim."""
import re

import pytest
import torch

from .launch import MIM, mim, path_of, run, shrink

pytestmark = pytest.mark.downstream

FPN, AUG = 'pic_mask-rcnn_r50-fpn_1x_coco', 'pic_fcn_r50-d8_4xb4-40k_voc12aug-512x512'


def test_two_processes_on_cpus(checkpoints, folder, tmp_path):
    output = mim('train', 'mmdet', path_of(FPN), '--launcher', 'pytorch', '--gpus', '2',
                 '--work-dir', tmp_path, cwd=folder,
                 cfg_options=[*shrink(FPN, checkpoints['r50']), 'runner_type=CPURunner'])
    # Four scenes, two for each process: one step, said by one of them.
    assert len(re.findall(r'Epoch\(train\) +\[1\]\[1/1\]', output)) == 1
    assert len(re.findall(r'loaded (\d+) of \1 weights from', output)) == 1
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_extracted_file_in_a_config(checkpoints, folder, tmp_path):
    """The same config line takes what extract_backbone wrote."""
    result = run(MIM, 'run', 'pic_plugin', 'extract_backbone', checkpoints['r50'],
                 tmp_path / 'r50.pth', '--format', 'openmmlab', cwd=folder)
    assert result.returncode == 0 and 'loaded 318 of 318' in result.stdout, result.stdout
    file = next(tmp_path.glob('r50-*.pth'))
    assert str(file) in result.stdout
    options = [*shrink(AUG, file), 'train_cfg.max_iters=1', 'train_cfg.val_interval=2']
    output = mim('train', 'mmseg', path_of(AUG), '--work-dir', tmp_path, cwd=folder,
                 cfg_options=options)
    assert 'loaded 318 of 318 weights from' in output


@pytest.mark.parametrize('kind, line', [
    ('none', 'backbone has no pretrained weights'),
    ('r18', 'The file is a ResNet-18'),
    ('ddp', 'no name in .* begins with `backbone.`'),
    ('half', 'is no checkpoint, or only a part of one'),
])
def test_faults_stop_the_training_with_one_line(checkpoints, folder, tmp_path, kind, line):
    file = tmp_path / f'{kind}.pth'
    content = torch.load(checkpoints['r18'], weights_only=True)
    if kind == 'ddp':
        content['state_dict'] = {f'module.{name}': value
                                 for name, value in content['state_dict'].items()}
    torch.save(content, file)
    if kind == 'half':
        file.write_bytes(file.read_bytes()[:100000])
    options = shrink(FPN, file)
    if kind == 'none':
        options = [option for option in options if 'init_cfg' not in option]
    result = run(MIM, 'train', 'mmdet', path_of(FPN), '--work-dir', tmp_path, '--cfg-options',
                 *options, cwd=folder)
    assert result.returncode != 0
    errors = [text for text in result.stdout.splitlines()
              if re.match(r'(ValueError|FileNotFoundError): ', text)]
    assert len(errors) == 1 and re.search(line, errors[0]), result.stdout[-3000:]
    assert 'Epoch(train)' not in result.stdout
