# SPDX-License-Identifier: Apache-2.0
"""Two processes without GPUs, other tools of the plugin, and faults, through mim."""
import re

import pytest
import torch

from pic_plugin.engine.checkpoint.foreign_checkpoint import backbone_of

from .launch import CONFIGS, MIM, mim, path_of, run, shrink

pytestmark = pytest.mark.downstream

FPN, AUG = 'pic_mask-rcnn_r50-fpn_1x_coco', 'pic_fcn_r50-d8_4xb4-40k_voc12aug-512x512'


TWO = ('--launcher', 'pytorch', '--gpus', '2')


def test_two_processes_train_and_test_a_detector(checkpoints, folder, tmp_path):
    options = [*shrink(FPN, checkpoints['r50']), 'runner_type=CPURunner']
    output = mim('train', 'mmdet', path_of(FPN), *TWO, '--work-dir', tmp_path, cwd=folder,
                 cfg_options=options)
    # Four scenes, two for each process: one step, said by one of them.
    assert len(re.findall(r'Epoch\(train\) +\[1\]\[1/1\]', output)) == 1
    assert len(re.findall(r'loaded (\d+) of \1 weights from', output)) == 1
    output = mim('test', 'mmdet', path_of(FPN), *TWO, '--checkpoint', tmp_path / 'epoch_1.pth',
                 '--work-dir', tmp_path / 'test', cwd=folder, cfg_options=options)
    # Four scenes again.
    assert len(re.findall(r'Epoch\(test\) +\[2/2\].* coco/bbox_mAP_50', output)) == 1


def test_two_processes_train_a_segmenter(checkpoints, folder, tmp_path):
    options = [*shrink(AUG, checkpoints['r50']), 'train_cfg.max_iters=1',
               'runner_type=CPURunner']
    output = mim('train', 'mmseg', path_of(AUG), *TWO, '--work-dir', tmp_path, cwd=folder,
                 cfg_options=options)
    assert len(re.findall(r'loaded (\d+) of \1 weights from', output)) == 1
    assert len(re.findall(r'Iter\(train\) +\[1/1\]', output)) == 1


@pytest.mark.parametrize('library, name, options, metric', [
    ('mmdet', 'pic_demo_faster-rcnn_scenes',
     ['train_cfg.max_epochs=1', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=1',
      # Without detections mmdet prints no metrics.
      'model.test_cfg.rcnn.score_thr=0.0'], 'pascal_voc/AP50'),
    ('mmseg', 'pic_demo_fcn_scenes',
     ['train_cfg.max_iters=1', 'default_hooks.checkpoint.interval=1'], 'mIoU'),
])
def test_demo_as_the_readme_has_it(checkpoints, folder, tmp_path, library, name, options, metric):
    config = next(CONFIGS.glob(f'*/{name}.py'))
    options = [*options, 'train_dataloader.batch_size=2',
               f'model.backbone.init_cfg.checkpoint={checkpoints["demo"]}']
    output = mim('train', library, config, '--work-dir', tmp_path, cwd=folder, cfg_options=options)
    assert re.search(r'backbone: loaded (\d+) of \1 weights', output)
    saved = [*tmp_path.glob('*_1.pth')]
    assert len(saved) == 1
    # Without the file of pre-training.
    output = mim('test', library, config, '--checkpoint', saved[0], '--work-dir',
                 tmp_path / 'test', cwd=folder, cfg_options=options[:-1])
    assert metric in output


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
    ('half', 'is not a checkpoint, or only a part of one'),
    ('bare', 'bare weights of a ResNet-18'),
])
def test_faults_stop_the_training_with_one_line(checkpoints, folder, tmp_path, kind, line):
    file = tmp_path / f'{kind}.pth'
    content = torch.load(checkpoints['r18'], weights_only=True)
    if kind == 'ddp':
        content['state_dict'] = {f'module.{name}': value
                                 for name, value in content['state_dict'].items()}
    if kind == 'bare':
        content = backbone_of(content['state_dict'], file)
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
