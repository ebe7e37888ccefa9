# SPDX-License-Identifier: Apache-2.0
"""Every evaluation protocol: its resolved values, and a run on images laid out as the real ones.

The runs start from a checkpoint that pre-training wrote. Networks are those of the configs with an
eighth of their width; that the full ones have the weights of pre-training is a test of its own.
"""
import json
import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS
from PIL import Image

import pic_plugin  # noqa: F401
from pic_plugin.datasets import ImageGrid
from pic_plugin.tools import imagenet_subset

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
NAMES = sorted(path.stem for path in (CONFIGS / 'benchmarks').glob('*.py'))
LINEAR = 'resnet50_4xb64-linear-coslr-100e_in1k'
ONE_PERCENT = 'resnet50_4xb64-semi-1pct-steplr-20e_in1k'
TEN_PERCENT = 'resnet50_4xb64-semi-10pct-steplr-20e_in1k'
INAT = 'resnet50_4xb64-steplr-100e_inat18'
CIFAR = 'resnet18_1xb256-linear-coslr-100e_cifar10'
FROZEN = (LINEAR, CIFAR)
PRETRAINING = {CIFAR: 'pic_resnet18_1xb128-coslr-200e_cifar10'}
IN1K = 'pic_resnet50_4xb64-coslr-200e_in1k'

FROM_IN1K = dict(momentum=0.9, batch=64, num_classes=1000, crop=(224, (0.08, 1.0)),
                 base_batch_size=256, weight_decay=0.0)
EXPECTED = {
    LINEAR: dict(FROM_IN1K, lr=30.0, head_lr=30.0, epochs=100, schedule=('cosine', 100)),
    ONE_PERCENT: dict(FROM_IN1K, lr=0.02, head_lr=5.0, epochs=20, schedule=([12, 16], 0.2)),
    TEN_PERCENT: dict(FROM_IN1K, lr=0.01, head_lr=0.2, epochs=20, schedule=([12, 16], 0.2)),
    INAT: dict(FROM_IN1K, lr=0.025, head_lr=0.025, weight_decay=1e-4, epochs=100,
               schedule=([70, 90], 0.1), num_classes=8142),
    CIFAR: dict(FROM_IN1K, lr=30.0, head_lr=30.0, epochs=100, schedule=('cosine', 100), batch=256,
                num_classes=10, crop=(32, (0.08, 1.0))),
}


def load(name):
    return Config.fromfile(CONFIGS / 'benchmarks' / f'{name}.py')


def schedule(cfg):
    (scheduler, ) = cfg.param_scheduler
    assert scheduler.by_epoch
    if scheduler.type == 'MultiStepLR':
        return list(scheduler.milestones), scheduler.gamma
    assert scheduler.type == 'CosineAnnealingLR' and scheduler.end == cfg.train_cfg.max_epochs
    return 'cosine', scheduler.T_max


def test_every_config_has_expectations():
    assert NAMES == sorted(EXPECTED)


@pytest.mark.parametrize('name', NAMES)
def test_resolved_values(name):
    cfg = load(name)
    optimizer = cfg.optim_wrapper.optimizer
    assert (cfg.optim_wrapper.type, optimizer.type) == ('OptimWrapper', 'SGD')
    multipliers = cfg.optim_wrapper.get('paramwise_cfg', {}).get('custom_keys', {})
    crop = next(TRANSFORMS.build(t) for t in cfg.train_dataloader.dataset.pipeline
                if t.type == 'RandomResizedCrop')
    assert len(set(crop.scale)) == 1 and crop.backend == 'pillow'
    assert dict(
        lr=optimizer.lr,
        head_lr=optimizer.lr * multipliers.get('head.fc', dict(lr_mult=1))['lr_mult'],
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        epochs=cfg.train_cfg.max_epochs,
        schedule=schedule(cfg),
        batch=cfg.train_dataloader.batch_size,
        num_classes=cfg.model.head.num_classes,
        crop=(crop.scale[0], tuple(crop.crop_ratio_range)),
        base_batch_size=cfg.auto_scale_lr.base_batch_size) == EXPECTED[name]
    backbone = cfg.model.backbone
    assert (backbone.get('frozen_stages') == 4) == (name in FROZEN)
    assert (backbone.get('norm_eval') is True) == (name in FROZEN)
    assert cfg.data_preprocessor.num_classes == EXPECTED[name]['num_classes']
    assert cfg.custom_hooks[0].type == 'CheckPretrainedHook'
    assert cfg.test_dataloader.dataset == cfg.val_dataloader.dataset


def test_validation_is_on_the_whole_middle_of_an_image():
    types = [t.type for t in load(INAT).val_dataloader.dataset.pipeline]
    assert types == ['LoadImageFromFile', 'ResizeEdge', 'CenterCrop', 'PackInputs']
    assert load(INAT).train_dataloader.dataset.ann_file == 'train2018.json'
    assert load(INAT).val_dataloader.dataset.ann_file == 'val2018.json'
    assert load(ONE_PERCENT).train_dataloader.dataset.ann_file == 'meta/train_1percent.txt'
    assert load(TEN_PERCENT).train_dataloader.dataset.ann_file == 'meta/train_10percent.txt'


@pytest.mark.parametrize('name', NAMES)
def test_pixels_are_normalised_as_in_pretraining(name):
    pretraining = Config.fromfile(CONFIGS / 'pic' / f'{PRETRAINING.get(name, IN1K)}.py')
    theirs, ours = pretraining.model.data_preprocessor, load(name).data_preprocessor
    assert (ours.mean, ours.std, ours.to_rgb) == (theirs.mean, theirs.std, theirs.to_rgb)


@pytest.mark.parametrize('name', NAMES)
def test_backbone_has_the_weights_of_pretraining(name):
    pretraining = Config.fromfile(CONFIGS / 'pic' / f'{PRETRAINING.get(name, IN1K)}.py')
    theirs, ours = ({key: value.shape for key, value in
                     MODELS.build(cfg.model.backbone).state_dict().items()}
                    for cfg in (pretraining, load(name)))
    assert ours == theirs


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """ImageNet, iNaturalist 2018 and CIFAR-10 as they unpack, with few and small images."""
    root = tmp_path_factory.mktemp('data')
    grid = ImageGrid('cifar10_test_1000.webp')
    for i in range(12):
        Image.fromarray(grid[100 * (i % 10) + i // 10]['img'][..., ::-1]).resize((72, 64)).save(
            root / f'{i}.jpg')
    wnids = [f'n{10_000_000 + 13 * label}' for label in range(1000)]
    for label, wnid in enumerate(wnids):
        for split, names in (('train', [f'{wnid}_{i}.JPEG' for i in range(2)]),
                             ('val', [f'ILSVRC2012_val_{label:08d}.JPEG'])):
            folder = root / 'imagenet' / split / wnid
            folder.mkdir(parents=True)
            for i, name in enumerate(names):
                os.link(root / f'{(label + i) % 12}.jpg', folder / name)
    for percent in (1, 10):
        # The public lists are of 1.28 million images; of 2,000 as many as there are classes.
        (root / f'{percent}percent.txt').write_text(
            ''.join(f'{wnid}_0.JPEG\n' for wnid in wnids))
        imagenet_subset.main([
            str(root / f'{percent}percent.txt'), str(root / 'imagenet' / 'train'), '--out',
            str(root / 'imagenet' / 'meta' / f'train_{percent}percent.txt')])
    for split, first in (('train', 0), ('val', 6)):
        images, annotations = [], []
        for i in range(first, first + 6):
            name = f'train_val2018/Aves/{100 * i}/{i:032x}.jpg'
            (root / 'inat2018' / name).parent.mkdir(parents=True)
            os.link(root / f'{i}.jpg', root / 'inat2018' / name)
            images.append(dict(id=i, file_name=name, width=72, height=64))
            annotations.append(dict(id=i, image_id=i, category_id=100 * i))
        (root / 'inat2018' / f'{split}2018.json').write_text(json.dumps(dict(
            info={}, images=images, annotations=annotations, categories=[], licenses=[])))
    for split in ('train', 'test'):
        for label in range(10):
            folder = root / 'cifar10' / split / f'class{label}'
            folder.mkdir(parents=True)
            Image.fromarray(grid[100 * label]['img'][..., ::-1]).save(folder / '0.png')
    return root


def thin(backbone):
    backbone.update(stem_channels=8, base_channels=8)


def quick(cfg, data, work_dir):
    """Three steps of 2 images (BatchNorm needs two) on a CPU."""
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(seed=0)
    for loader in (cfg.train_dataloader, cfg.get('val_dataloader')):
        if loader is None:
            continue
        loader.update(batch_size=2, num_workers=0)
        for dataset in loader.dataset.get('datasets', [loader.dataset]):
            dataset.data_root = str(data / Path(dataset.data_root).name)
            dataset.indices = 6
    cfg.train_cfg.max_epochs = 1
    cfg.default_hooks.checkpoint.save_last = True
    return cfg


@pytest.fixture(scope='module')
def checkpoints(data, tmp_path_factory):
    """Checkpoints of pre-training, by config."""
    made = {}
    for name in (IN1K, PRETRAINING[CIFAR]):
        folder = tmp_path_factory.mktemp(name)
        cfg = Config.fromfile(CONFIGS / 'pic' / f'{name}.py')
        cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
        cfg = quick(cfg, data, folder)
        cfg.custom_hooks = [dict(type='InstanceBankHook')]
        cfg.train_dataloader.sampler.update(window_size=4, stride=2)
        thin(cfg.model.backbone)
        cfg.model.neck.in_channels = 256 if name == IN1K else 64
        cfg.model.head.update(num_instances=6, num_negatives=None)
        cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=cfg.optim_wrapper.optimizer)
        cfg.experiment_name = f'pretraining {name}'
        Runner.from_cfg(cfg).train()
        made[name] = folder / 'epoch_1.pth'
    return made


def prepare(name, data, work_dir, checkpoint):
    cfg = quick(load(name), data, work_dir)
    thin(cfg.model.backbone)
    cfg.model.head.in_channels = 64 if name == CIFAR else 256
    cfg.model.backbone.init_cfg.checkpoint = str(checkpoint)
    return cfg


def backbone_weights(checkpoint):
    state = torch.load(checkpoint)['state_dict']
    return {key[len('backbone.'):]: value for key, value in state.items()
            if key.startswith('backbone.')}


@pytest.mark.parametrize('name', NAMES)
def test_runs_from_a_checkpoint_of_pretraining(name, data, checkpoints, work_dir):
    checkpoint = checkpoints[PRETRAINING.get(name, IN1K)]
    before = backbone_weights(checkpoint)
    assert any('running_mean' in key and value.abs().sum() > 0 for key, value in before.items())
    runner = Runner.from_cfg(prepare(name, data, work_dir, checkpoint))
    step, seen, heads = runner.model.train_step, [], []

    def train_step(batch, optim_wrapper):
        if not seen:
            weights = runner.model.backbone.state_dict()
            assert all(torch.equal(weights[key], value) for key, value in before.items())
            heads.append(runner.model.head.fc.weight.detach().clone())
        groups = {group['lr'] for group in optim_wrapper.optimizer.param_groups
                  if any(parameter.requires_grad for parameter in group['params'])}
        seen.append((max(groups), min(groups)))
        logs = step(batch, optim_wrapper)
        assert torch.isfinite(logs['loss'])
        return logs

    runner.model.train_step = train_step
    runner.train()
    assert len(seen) == 3
    assert seen[0] == pytest.approx((EXPECTED[name]['head_lr'], EXPECTED[name]['lr']))
    after = runner.model.backbone.state_dict()
    assert set(after) == set(before)
    changed = [key for key, value in after.items() if not torch.equal(value, before[key])]
    if name in FROZEN:
        assert changed == [], 'statistics of BatchNorm and its count of batches included'
    else:
        assert {'conv1.weight', 'bn1.running_mean', 'layer4.0.bn1.running_var'} <= set(changed)
    assert not torch.equal(runner.model.head.fc.weight, heads[0]), 'the classifier learns'
    log = max(work_dir.glob('*/*.log')).read_text()
    assert f'loaded {len(before)} of {len(before)} weights' in log
    assert 'accuracy/top1' in log


def drop_backbone(state):
    for key in list(state):
        if key.startswith('backbone.'):
            del state[key]


@pytest.mark.parametrize('name, change, message', [
    (LINEAR, lambda state: state.pop('backbone.layer3.1.bn2.running_var'),
     r'layer3\.1\.bn2\.running_var is in the network and not in the file'),
    (CIFAR, lambda state: state.pop('backbone.layer3.1.bn2.running_var'),
     r'layer3\.1\.bn2\.running_var is in the network and not in the file'),
    (CIFAR, lambda state: state.update({'backbone.layer9.weight': torch.ones(2)}),
     r'layer9\.weight is in the file and not in the network'),
    (CIFAR, lambda state: state.update({'backbone.conv1.weight': torch.ones(8, 3, 5, 5)}),
     r'conv1\.weight is \(8, 3, 3, 3\) in the network and \(8, 3, 5, 5\) in the file'),
    (CIFAR, drop_backbone, 'has no backbone: no name begins with'),
])
def test_one_weight_that_does_not_fit_stops_the_training(name, change, message, data, checkpoints,
                                                         work_dir, tmp_path):
    content = torch.load(checkpoints[PRETRAINING.get(name, IN1K)])
    change(content['state_dict'])
    torch.save(content, tmp_path / 'changed.pth')
    runner = Runner.from_cfg(prepare(name, data, work_dir, tmp_path / 'changed.pth'))
    with pytest.raises(ValueError, match=message) as error:
        runner.train()
    assert 'changed.pth' in str(error.value)


def test_checkpoint_of_another_network_is_named(data, checkpoints, work_dir):
    other = checkpoints[PRETRAINING[CIFAR]]
    runner = Runner.from_cfg(prepare(LINEAR, data, work_dir, other))
    with pytest.raises(ValueError, match=r'epoch_1\.pth.*ResNet-18'):
        runner.train()


def test_no_checkpoint_says_how_to_give_one(data, work_dir):
    runner = Runner.from_cfg(prepare(CIFAR, data, work_dir, ''))
    with pytest.raises(ValueError, match=r'model\.backbone\.init_cfg\.checkpoint=CHECKPOINT'):
        runner.train()


def test_labels_and_paths_of_inaturalist(data):
    dataset = DATASETS.build(dict(type='INaturalist2018', data_root=str(data / 'inat2018'),
                                  ann_file='val2018.json'))
    first = dataset.get_data_info(0)
    assert first['gt_label'] == 600 and Path(first['img_path']).is_file() and len(dataset) == 6


@pytest.mark.parametrize('content, message', [
    (None, 'unpack train2018.json.tar.gz'),
    ('{', 'is not an annotation file'),
    ('{"images": []}', "no 'annotations'"),
    ('{"images": [{"id": 1, "file_name": "a"}], "annotations": []}', 'test2018.json has none'),
    ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "category_id": '
     '8142}]}', 'label 8142, outside of 0 to 8141'),
])
def test_bad_files_of_inaturalist(tmp_path, content, message):
    if content is not None:
        (tmp_path / 'train2018.json').write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        DATASETS.build(dict(type='INaturalist2018', data_root=str(tmp_path),
                            ann_file='train2018.json'))
