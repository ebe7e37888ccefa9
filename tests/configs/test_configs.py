# SPDX-License-Identifier: Apache-2.0
"""Every pre-training config: the values it resolves to, and a training of two steps."""
import ast
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS
from PIL import Image

import pic_plugin  # noqa: F401
from pic_plugin.models.augment import ViewRecipe

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
NAMES = sorted(path.stem for path in (CONFIGS / 'pic').glob('*.py'))

IN1K = dict(
    lr=0.03, momentum=0.9, weight_decay=1e-4, max_epochs=200, warmup=5, eta_min=1e-6, batch=64,
    window=131072, stride=16384, num_negatives=65536, num_instances=1281167, temperature=0.2,
    refresh=0.0, feat_dim=128, num_update_views=1, neck='MoCoV2Neck', hidden=2048,
    wrapper='AmpOptimWrapper')
CIFAR = dict(
    lr=0.12, momentum=0.9, weight_decay=5e-4, batch=128, num_negatives=None, num_instances=None,
    temperature=0.2, refresh=0.0, feat_dim=128, num_update_views=1, neck='NonLinearNeck',
    wrapper='OptimWrapper')
TRANSFORMER = dict(IN1K, lr=1e-3, momentum=None, weight_decay=0.05, max_epochs=300, warmup=20,
                   batch=128)
EXPECTED = {
    'pic_demo': dict(
        CIFAR, max_epochs=20, warmup=2, eta_min=0.04, window=1024, stride=64, hidden=512,
        num_negatives=512, temperature=0.1, refresh=1.0),
    'pic_folder': dict(IN1K, lr=0.0075, num_instances=None, wrapper='OptimWrapper', window=None,
                       stride=None),
    'pic_resnet18_1xb128-coslr-200e_cifar10': dict(
        CIFAR, max_epochs=200, warmup=5, eta_min=1e-6, window=2048, stride=128, hidden=2048,
        lr=0.06, num_negatives=2048, temperature=0.1, refresh=1.0),
    'pic_resnet50_4xb64-coslr-200e_in1k': IN1K,
    'pic_resnet50_4xb64-coslr-400e_in1k': dict(IN1K, max_epochs=400, warmup=10),
    'pic_resnet50_4xb64-coslr-1600e_in1k': dict(IN1K, max_epochs=1600, warmup=40),
    'pic_resnet50_4xb64-mcrop-coslr-200e_in1k': IN1K,
    'pic_vit_demo': dict(
        CIFAR, max_epochs=30, warmup=3, eta_min=1e-5, window=1024, stride=128, hidden=512, lr=1e-3,
        momentum=None, weight_decay=0.05, num_negatives=1024),
    'pic_vit-small-p16_8xb128-coslr-300e_in1k': dict(
        TRANSFORMER, lr=6e-4, weight_decay=0.1, warmup=40),
    'pic_swin-tiny_8xb128-coslr-300e_in1k': dict(TRANSFORMER, eta_min=1e-5),
    'pic_convnext-tiny_8xb128-coslr-300e_in1k': TRANSFORMER,
}
ONE_CROP = [(224, (0.2, 1.0), 1)]
# (pixels, area, number) of each group of views.
CROPS = {
    'pic_demo': [(32, (0.2, 1.0), 1)],
    'pic_folder': ONE_CROP,
    'pic_resnet18_1xb128-coslr-200e_cifar10': [(32, (0.2, 1.0), 1)],
    'pic_resnet50_4xb64-coslr-200e_in1k': ONE_CROP,
    'pic_resnet50_4xb64-coslr-400e_in1k': ONE_CROP,
    'pic_resnet50_4xb64-coslr-1600e_in1k': ONE_CROP,
    'pic_resnet50_4xb64-mcrop-coslr-200e_in1k': [(160, (0.14, 1.0), 1), (96, (0.08, 0.14), 3)],
    'pic_vit_demo': [(32, (0.2, 1.0), 1)],
    'pic_vit-small-p16_8xb128-coslr-300e_in1k': ONE_CROP,
    'pic_swin-tiny_8xb128-coslr-300e_in1k': ONE_CROP,
    'pic_convnext-tiny_8xb128-coslr-300e_in1k': ONE_CROP,
}
NORMAL = ((0.4, 0.4, 0.4, 0.1, 0.8), 0.2, (0.1, 2.0, 0.5), 0.5)
STRONG = ((0.8, 0.8, 0.8, 0.2, 0.8), 0.2, (0.1, 2.0, 0.5), 0.5)
SMALL = ((0.4, 0.4, 0.4, 0.1, 0.8), 0.2, None, 0.5)
# Strengths and probabilities of jitter, grey, blur and flip, and the number of views.
RECIPES = {
    **{name: [(*NORMAL, 1)] for name in CROPS},
    'pic_demo': [(*SMALL, 1)],
    'pic_vit_demo': [(*SMALL, 1)],
    'pic_resnet18_1xb128-coslr-200e_cifar10': [(*SMALL, 1)],
    'pic_resnet50_4xb64-mcrop-coslr-200e_in1k': [(*STRONG, 1), (*STRONG, 3)],
}
# Keys of mmengine 0.x and mmcv 1.x configs, which a Runner ignores.
OLD_KEYS = {'optimizer', 'optimizer_config', 'lr_config', 'runner', 'checkpoint_config',
            'log_config', 'evaluation', 'data', 'dist_params', 'workflow', 'fp16'}


def load(name):
    return Config.fromfile(CONFIGS / 'pic' / f'{name}.py')


def crops(pipeline):
    """(pixels, area, number of views) of the crops of a pipeline."""
    crop, pack = pipeline
    assert (crop['type'], pack['type']) == ('DecodeRandomCrop', 'PackInputs')
    return [(part['size'], tuple(part['scale']), part.get('num_views', 1))
            for part in crop.get('crops', [crop])]


def recipes(cfg):
    """(probabilities and strengths, number of views) of each group of views."""
    views = cfg.model.data_preprocessor.views
    found = []
    for view in views if isinstance(views, list) else [views]:
        recipe = ViewRecipe.from_config(view)
        jitter, blur = recipe.jitter, recipe.blur
        found.append((
            (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue, jitter.prob),
            recipe.grey, None if blur is None else (*blur.sigma, blur.prob), recipe.flip,
            recipe.num_views))
    return found


def resolved(cfg):
    """The values of EXPECTED, as a config has them."""
    warmup, cosine = cfg.param_scheduler
    assert (warmup.type, cosine.type) == ('LinearLR', 'CosineAnnealingLR')
    assert (warmup.start_factor, warmup.begin) == (0.01, 0)
    assert warmup.by_epoch and warmup.convert_to_iter_based
    assert cosine.by_epoch and cosine.convert_to_iter_based
    assert (cosine.begin, cosine.end) == (warmup.end, cfg.train_cfg.max_epochs)
    optimizer, sampler = cfg.optim_wrapper.optimizer, cfg.train_dataloader.sampler
    assert sampler.type == 'SlidingWindowSampler'
    if optimizer.type == 'SGD':
        assert 'paramwise_cfg' not in cfg.optim_wrapper, 'weight decay is on everything'
    else:
        assert optimizer.type == 'AdamW' and 'betas' not in optimizer
        paramwise = cfg.optim_wrapper.paramwise_cfg
        assert (paramwise.norm_decay_mult, paramwise.bias_decay_mult) == (0, 0)
    head = cfg.model.head
    return dict(
        lr=optimizer.lr,
        momentum=optimizer.get('momentum'),
        weight_decay=optimizer.weight_decay,
        max_epochs=cfg.train_cfg.max_epochs,
        warmup=warmup.end,
        eta_min=cosine.eta_min,
        batch=cfg.train_dataloader.batch_size,
        window=sampler.window_size,
        stride=sampler.stride,
        num_negatives=head.num_negatives,
        num_instances=head.get('num_instances'),
        temperature=head.get('loss', dict(temperature=0.2))['temperature'],
        refresh=head.get('refresh_returning', 0.0),
        feat_dim=head.feat_dim,
        num_update_views=cfg.model.get('num_update_views', 1),
        neck=cfg.model.neck.type,
        hidden=cfg.model.neck.hid_channels,
        wrapper=cfg.optim_wrapper.type)


def test_every_config_has_expectations():
    assert NAMES == sorted(EXPECTED) == sorted(CROPS)


def inheritance(file):
    """Levels of files that a config inherits from; another package's count as one."""
    bases = [ast.literal_eval(node.value) for node in ast.parse(file.read_text()).body
             if isinstance(node, ast.Assign) and node.targets[0].id == '_base_']
    return max((1 if '::' in base else 1 + inheritance(file.parent / base)
                for given in bases for base in ([given] if isinstance(given, str) else given)),
               default=0)


@pytest.mark.parametrize('file', sorted(CONFIGS.rglob('*.py')), ids=lambda file: file.stem)
def test_two_levels_of_inheritance_at_most(file):
    """A reader has to look into three files, and no more."""
    assert inheritance(file) <= 2


@pytest.mark.parametrize('name', NAMES)
def test_resolved_values(name):
    cfg = load(name)
    assert resolved(cfg) == EXPECTED[name]
    assert crops(cfg.train_dataloader.dataset.pipeline) == CROPS[name]
    assert recipes(cfg) == RECIPES[name]
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.type == 'AugmentPreprocessor' and preprocessor.to_rgb
    assert preprocessor.get('channels_last', False) == (not name.endswith('demo')), 'for GPUs'
    assert preprocessor.mean == ([125.3, 123.0, 113.9] if 'cifar' in name or 'demo' in name else
                                 [123.675, 116.28, 103.53])
    assert cfg.train_dataloader.persistent_workers is False, 'resume would not be exact'
    assert cfg.default_hooks.checkpoint.max_keep_ckpts >= 2
    assert cfg.custom_imports == dict(imports=['pic_plugin'], allow_failed_imports=False)
    if 'resnet50' in name:
        assert cfg.model.backbone == dict(
            type='ResNet', depth=50, norm_cfg=dict(type='BN'), zero_init_residual=True)
        assert (cfg.optim_wrapper.loss_scale, cfg.optim_wrapper.dtype) == ('dynamic', 'float16')
        assert cfg.auto_scale_lr.base_batch_size == 4 * cfg.train_dataloader.batch_size
    elif 'in1k' in name:
        assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size


@pytest.mark.parametrize('name', NAMES)
def test_no_key_that_a_runner_ignores(name):
    cfg = load(name)
    assert not OLD_KEYS & set(cfg)
    # Beyond what a Runner takes there are only variables of the config itself.
    variables = {'custom_imports', 'auto_scale_lr', 'train_pipeline', 'pack_labelled',
                 'after_crop', 'strong_jitter', 'data_root', 'image_size', 'batch_size',
                 'learning_rate', 'max_epochs', 'warmup_epochs', 'window_size', 'stride',
                 'test_pipeline'}
    known = set(inspect.signature(Runner).parameters) | variables
    assert set(cfg) <= known


def test_mixed_precision_arguments_exist():
    # It is built on a GPU only, so that test_trains replaces it.
    given = load('pic_resnet50_4xb64-coslr-200e_in1k').optim_wrapper
    known = {*inspect.signature(AmpOptimWrapper).parameters,
             *inspect.signature(OptimWrapper).parameters}
    assert set(given) - {'type'} <= known


@pytest.mark.parametrize('loader', ['train_dataloader', 'test_dataloader'])
def test_folder_is_read_flat_and_nested(tmp_path, loader):
    files = ['a.jpg', 'b.JPEG', 'cat/c.PNG', 'cat/old/d.webp']
    for file in [*files, 'cat/notes.txt']:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    cfg = load('pic_folder')[loader].dataset
    cfg.update(data_root=str(tmp_path), pipeline=[])
    dataset = DATASETS.build(cfg)
    found = {str(Path(dataset.get_data_info(i)['img_path']).relative_to(tmp_path))
             for i in range(len(dataset))}
    assert found == set(files)


@pytest.fixture(scope='module')
def image_folder(tmp_path_factory):
    """``train`` and ``test``, each with two folders of 4 PNG and 4 JPEG files."""
    root = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for split in ('train', 'test'):
        for label in ('cat', 'dog'):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f'{i}.png')
                # The name of ImageNet's files.
                Image.fromarray(pixels).save(folder / f'{i}.JPEG')
    return root


def shrink(cfg, folder, work_dir):
    """Two steps with 4 images each, on a CPU; pipelines, network and head stay what they are."""
    cfg.work_dir = str(work_dir)
    cfg.train_dataloader.update(batch_size=4, num_workers=0, pin_memory=False)
    cfg.train_dataloader.sampler.update(window_size=4, stride=2)
    dataset = cfg.train_dataloader.dataset
    if dataset.type == 'ImageGrid':
        dataset.indices = 8
    else:
        dataset.data_root = str(folder if dataset.get('data_prefix') else folder / 'train')
        dataset.indices = 8
    if cfg.get('val_dataloader'):
        cfg.val_dataloader.num_workers = 0
        for part in cfg.val_dataloader.dataset.datasets:
            if part.type == 'ImageGrid':
                part.indices = 8
            else:
                part.data_root = str(folder)
                part.indices = 8
        cfg.val_evaluator.topk = 3
    if cfg.model.head.get('num_instances'):
        cfg.model.head.num_instances = 8
    if cfg.model.head.num_negatives:
        cfg.model.head.num_negatives = 6
    if cfg.optim_wrapper.type == 'AmpOptimWrapper':
        # mmengine's has no loss scaling in float16 on a CPU.
        cfg.optim_wrapper.type = 'OptimWrapper'
        del cfg.optim_wrapper.dtype, cfg.optim_wrapper.loss_scale
    cfg.train_cfg.max_epochs = 1
    cfg.default_hooks.logger.interval = 1
    # Hundreds of MB for each ResNet-50; tests/engine save and load.
    cfg.default_hooks.checkpoint.save_last = False
    cfg.randomness = dict(seed=0)
    return cfg


@pytest.mark.parametrize('name', NAMES)
def test_trains(name, image_folder, work_dir, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    cfg = shrink(load(name), image_folder, work_dir)
    lr = cfg.optim_wrapper.optimizer.lr
    runner = Runner.from_cfg(cfg)
    learning_rates, losses, views = [], [], []
    step = runner.model.train_step

    def train_step(data, optim_wrapper):
        learning_rates.append(optim_wrapper.optimizer.param_groups[0]['lr'])
        inputs = data['inputs'] if isinstance(data['inputs'], list) else [data['inputs']]
        views.append([tuple(view.shape) for view in inputs])
        logs = step(data, optim_wrapper)
        losses.append(logs['loss'].item())
        return logs

    monkeypatch.setattr(runner.model, 'train_step', train_step)
    runner.train()
    assert len(losses) == 2 and np.isfinite(losses).all()
    # The schedule reaches the optimizer, and warm-up starts at a hundredth.
    assert learning_rates[0] == pytest.approx(lr / 100)
    expected = [(4, 3, size, size) for size, _, count in CROPS[name] for _ in range(count)]
    assert views == [expected, expected]
    weights = runner.model.head.class_weights(range(8))
    assert torch.isfinite(weights).all() and weights.shape == (8, 128)
