# SPDX-License-Identifier: Apache-2.0
"""Starts mim in a folder with data, and shrinks configs to what a CPU does in seconds."""
import os
import subprocess
import sys
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = ROOT / 'configs' / 'benchmarks'
MIM = Path(sys.prefix) / 'bin' / 'mim'
DEMO = sorted(path.stem for path in CONFIGS.glob('mm*/pic_demo_*.py'))
DETECTION = sorted({path.stem for path in (CONFIGS / 'mmdetection').glob('*.py')} - {*DEMO})
SEGMENTATION = sorted({path.stem for path in (CONFIGS / 'mmsegmentation').glob('*.py')} - {*DEMO})

# No workers, a log line for each step, steps large enough to be seen in float32; without weight
# decay, a weight that changes has a gradient.
COMMON = [
    'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False',
    'default_hooks.logger.interval=1', 'optim_wrapper.optimizer.lr=0.001',
    'optim_wrapper.optimizer.weight_decay=0', 'randomness.seed=0',
]
CITYSCAPES = [
    'train_dataloader.dataset.pipeline.2.scale=(128,96)',
    'train_dataloader.dataset.pipeline.3.crop_size=(65,65)',
    'model.data_preprocessor.size=(65,65)',
    'val_dataloader.dataset.pipeline.1.scale=(128,96)',
    'test_dataloader.dataset.pipeline.1.scale=(128,96)',
]
VOC_SEGMENTATION = [
    option for i in (0, 1) for option in (
        f'train_dataloader.dataset.datasets.{i}.pipeline.2.scale=(128,64)',
        f'train_dataloader.dataset.datasets.{i}.pipeline.3.crop_size=(64,64)',
        f'train_dataloader.dataset.datasets.{i}.pipeline.6.size=(64,64)')
] + ['model.data_preprocessor.size=(64,64)',
     'val_dataloader.dataset.pipeline.1.scale=(128,64)',
     'test_dataloader.dataset.pipeline.1.scale=(128,64)']


def path_of(name):
    folder = 'mmdetection' if name in DETECTION else 'mmsegmentation'
    return CONFIGS / folder / f'{name}.py'


def shrink(name, checkpoint):
    """Options that change sizes and lengths, and nothing of what is trained."""
    options = [*COMMON, f'model.backbone.init_cfg.checkpoint={checkpoint}']
    if name in SEGMENTATION:
        options += ['train_cfg.max_iters=2', 'train_cfg.val_interval=2',
                    'train_dataloader.batch_size=2', 'default_hooks.checkpoint.interval=2']
        options += VOC_SEGMENTATION if 'voc12aug' in name else CITYSCAPES
        if 'upernet' in name:
            # No warm-up: its first steps are too small to be seen.
            options += ['param_scheduler.0.start_factor=0.5']
        if 'r50-d8' in name and 'cityscapes' in name:
            options += ['model.test_cfg.crop_size=(65,65)', 'model.test_cfg.stride=(43,43)']
        return options
    # Few regions: the box head of a C4 detector is a whole stage of the network for each.
    options += ['param_scheduler.0.start_factor=0.5', 'model.train_cfg.rcnn.sampler.num=16',
                'model.train_cfg.rpn_proposal.max_per_img=50', 'model.test_cfg.rpn.max_per_img=8',
                # Without detections mmdet prints no metrics.
                'model.test_cfg.rcnn.score_thr=0.0', 'model.test_cfg.rcnn.max_per_img=5',
                'val_dataloader.dataset.pipeline.1.scale=(128,96)',
                'test_dataloader.dataset.pipeline.1.scale=(128,96)']
    scales = 'scales=[(128,80),(128,96)]'
    if 'voc' in name:
        options += [f'train_dataloader.dataset.datasets.{i}.pipeline.2.{scales}' for i in (0, 1)]
        options += ['train_cfg.max_iters=2', 'train_cfg.val_interval=2',
                    'default_hooks.checkpoint.interval=2']
    else:
        options += [f'train_dataloader.dataset.pipeline.2.{scales}', 'train_cfg.max_epochs=1',
                    'train_dataloader.dataset.indices=4']
    return options


def mim(verb, library, config, *options, cwd, cfg_options=()):
    """Run ``mim`` as a user does; its output, after a success."""
    arguments = [str(option) for option in options]
    if cfg_options:
        arguments += ['--cfg-options', *cfg_options]
    result = run(MIM, verb, library, config, *arguments, cwd=cwd)
    assert result.returncode == 0, result.stdout[-5000:]
    return result.stdout


def run(*command, cwd):
    """Run a command in a folder; stdout and stderr together."""
    env = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    return subprocess.run([str(part) for part in command], cwd=cwd, env=env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def resolved(name, options):
    """The config as the train tool has it."""
    from mmengine.config import DictAction
    cfg = Config.fromfile(path_of(name))
    values = {}
    for option in options:
        key, value = option.split('=', 1)
        values[key] = DictAction._parse_iterable(value)
    cfg.merge_from_dict(values)
    return cfg
