# SPDX-License-Identifier: Apache-2.0
"""Training steps of PIC beside a classifier, SimCLR and MoCo v2, through mmengine's Runner.

Images are made on the device, so that neither disk nor loader counts.
"""
from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import traceback
import uuid
from typing import Any, Callable, NamedTuple

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from pic_plugin.studies.benchmark import training_parts

K_RECENT = 65536


class TrainingCase(NamedTuple):
    """A row of the table.

    Attributes:
        method (str): 'classifier', 'pic', 'simclr' or 'moco'.
        channels_last (bool): Memory format of images and weights.
        num_negatives (int, optional): K of PIC; None for all instances.
        compile (bool): mmengine's ``compile=True``.
        augment (dict, optional): Arguments of AugmentPreprocessor; None: images come normalised.
    """

    method: str
    channels_last: bool = False
    num_negatives: int | None = K_RECENT
    compile: bool = False
    augment: dict | None = None


CASES: dict[str, TrainingCase] = {
    'classifier': TrainingCase('classifier'),
    'pic': TrainingCase('pic'),
    'classifier-cl': TrainingCase('classifier', True),
    'pic-cl': TrainingCase('pic', True),
    'pic-cl-augment': TrainingCase('pic', True, augment={}),
    'pic-cl-augment-fused': TrainingCase('pic', True, augment=dict(compile=True)),
    'simclr': TrainingCase('simclr'),
    'simclr-cl': TrainingCase('simclr', True),
    'moco': TrainingCase('moco'),
    'moco-cl': TrainingCase('moco', True),
    'pic-all': TrainingCase('pic', num_negatives=None),
    'pic-4096-cl': TrainingCase('pic', True, num_negatives=4096),
    'classifier-cl-compile': TrainingCase('classifier', True, compile=True),
    'pic-cl-compile': TrainingCase('pic', True, compile=True),
}
# The slowest to start, with mmengine's compile=True, come last.
TITLES = {'classifier': 'classifier of mmpretrain', 'simclr': 'SimCLR', 'moco': 'MoCo v2'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``benchmark training``."""
    parser.add_argument('--cases', nargs='+', choices=list(CASES), default=list(CASES),
                        metavar='CASE', help=f'which of {", ".join(CASES)} (default: all)')
    for name, default, meaning in (
            ('batch-size', 256, 'images that pass the network with gradient in a step; SimCLR and '
             'MoCo v2 take half as many images with two views each'),
            ('size', 224, 'side of the images, pixels'), ('depth', 50, 'of the ResNet'),
            ('num-instances', 1281167, 'N of PIC'), ('warmup', 20, 'steps before measuring'),
            ('steps', 40, 'measured steps'), ('workers', 2, 'of the loader, which gives ids')):
        parser.add_argument(f'--{name}', type=int, default=default,
                            help=f'{meaning} (default: {default})')
    parser.add_argument('--dtype', choices=('bfloat16', 'float16', 'float32'), default='bfloat16',
                        help='of mixed precision on a GPU; a CPU uses float32 (default: bfloat16)')


def run(args: argparse.Namespace) -> str:
    """Run the cases, printing each row as it comes, and return the whole table."""
    results: dict[str, dict] = {}
    lines: list[str] = []
    for name in args.cases:
        results[name] = _measured(name, args)
        if len(results) == 1:
            lines += [_machine(args, results[name]), _HEADER]
            print('\n'.join(lines), flush=True)
        lines.append(_row(name, results, args))
        print(lines[-1], flush=True)
    lines.append('images/s: views are counted once. ratio: of the step to that of the classifier '
                 'in the same memory format. rows: host time for moving rows in a step (median), '
                 'while a GPU works on the forward pass.')
    print(lines[-1])
    return '\n'.join(lines)


def config_of(case: TrainingCase, args: argparse.Namespace, work_dir: str) -> Config:
    """The Runner's config of a case."""
    on_gpu = torch.cuda.is_available()
    num_views = 2 if case.method in ('simclr', 'moco') else 1
    num_images = args.batch_size // num_views
    channels = 2048 if args.depth >= 50 else 512
    model: dict[str, Any] = dict(
        backbone=dict(type='ResNet', depth=args.depth, norm_cfg=dict(type='BN'),
                      zero_init_residual=True),
        data_preprocessor=dict(
            type='BenchmarkImages', num_images=num_images, num_views=num_views, size=args.size,
            as_list=case.method != 'classifier', channels_last=case.channels_last,
            augment=case.augment),
        **_HEADS[case.method](channels))
    sampler: dict[str, Any] = dict(type='DefaultSampler', shuffle=True)
    hooks: list[dict] = []
    if case.method == 'pic':
        num_negatives = case.num_negatives
        if num_negatives is not None:
            num_negatives = min(num_negatives, args.num_instances // 2)
        model['head']['num_negatives'] = num_negatives
        window = min(2 * (num_negatives or K_RECENT), args.num_instances)
        sampler = dict(type='SlidingWindowSampler', window_size=window,
                       stride=max(1, window // 8))
        hooks = [dict(type='InstanceBankHook')]
    last = args.warmup + args.steps
    optimizer = dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=1e-4)
    wrapper: dict[str, Any] = dict(type='OptimWrapper', optimizer=optimizer)
    if on_gpu and args.dtype != 'float32':
        scale: Any = 'dynamic' if args.dtype == 'float16' else dict(enabled=False)
        wrapper.update(type='AmpOptimWrapper', dtype=args.dtype, loss_scale=scale)
    config = Config(dict(
        default_scope='mmpretrain', model=model, work_dir=work_dir, log_level='WARNING',
        experiment_name=uuid.uuid4().hex,
        train_dataloader=dict(
            batch_size=num_images, num_workers=args.workers, drop_last=True,
            persistent_workers=args.workers > 0, collate_fn=dict(type='benchmark_collate'),
            dataset=dict(type='BenchmarkIds', length=args.num_instances), sampler=sampler),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=last + 1), optim_wrapper=wrapper,
        custom_hooks=[*hooks, dict(type='BenchmarkClock', first=args.warmup, last=last)],
        default_hooks=dict(checkpoint=None, logger=dict(type='LoggerHook', interval=10**9)),
        randomness=dict(seed=0), env_cfg=dict(cudnn_benchmark=True)))
    if case.compile:
        config.compile = True
    return config


def measure(case: TrainingCase, args: argparse.Namespace) -> dict:
    """Train, and return milliseconds, images a second, memory and the machine."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    with tempfile.TemporaryDirectory() as work_dir:
        runner = Runner.from_cfg(config_of(case, args, work_dir))
        if case.channels_last:
            runner.model.to(memory_format=torch.channels_last)
        runner.train()
        clock, = (hook for hook in runner.hooks
                  if isinstance(hook, training_parts.BenchmarkClock))
    seconds = (clock.marks[1] - clock.marks[0]) / args.steps
    row_seconds = clock.row_seconds[args.warmup:args.warmup + args.steps]
    return dict(
        ms=1e3 * seconds, images=runner.train_dataloader.batch_size / seconds,
        rows_ms=1e3 * statistics.median(row_seconds) if row_seconds else None,
        peak_mb=clock.peak_bytes / 2**20,
        device=torch.cuda.get_device_name() if on_gpu else
        f'CPU, {torch.get_num_threads()} thread(s)',
        dtype=args.dtype if on_gpu else 'float32')


_HEADS: dict[str, Callable[[int], dict[str, Any]]] = {
    'classifier': lambda channels: dict(
        type='ImageClassifier', neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=training_parts.NUM_CLASSES,
                  in_channels=channels, loss=dict(type='CrossEntropyLoss'))),
    'pic': lambda channels: dict(
        type='PIC', neck=_mlp(channels), head=dict(type='PICHead', feat_dim=128)),
    'simclr': lambda channels: dict(
        type='SimCLR',
        neck=dict(type='NonLinearNeck', in_channels=channels, hid_channels=2048, out_channels=128,
                  num_layers=2, with_avg_pool=True),
        head=dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss'), temperature=0.1)),
    'moco': lambda channels: dict(
        type='MoCo', queue_len=65536, feat_dim=128, momentum=0.001, neck=_mlp(channels),
        head=dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss'), temperature=0.2)),
}


def _mlp(channels: int) -> dict:
    return dict(type='MoCoV2Neck', in_channels=channels, hid_channels=2048, out_channels=128)


def _measured(name: str, args: argparse.Namespace) -> dict:
    """The result of a case, or why there is none; the device's memory is free afterwards."""
    try:
        return measure(CASES[name], args)
    except Exception as error:
        # The other cases go on; the table has the reason.
        traceback.print_exc()
        lines = str(error).strip().splitlines() or ['']
        return dict(error=f'{type(error).__name__}: {lines[0][:120]}')
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if CASES[name].compile:
            torch._dynamo.reset()


_HEADER = (f'{"case":22}{"":46}{"ms/step":>9}{"images/s":>10}{"ratio":>7}{"rows ms":>9}'
           f'{"peak MB":>9}')


def _machine(args: argparse.Namespace, result: dict) -> str:
    return (f'torch {torch.__version__}, {result.get("device", "?")}, {result.get("dtype", "?")}; '
            f'ResNet-{args.depth}, {args.size}x{args.size}, {args.batch_size} forward passes a '
            f'step, N = {args.num_instances:,}; {args.warmup} steps of warm-up, {args.steps} '
            'measured')


def _title(case: TrainingCase, args: argparse.Namespace) -> str:
    if case.method == 'pic':
        title = 'PIC, all instances' if case.num_negatives is None else (
            f'PIC, K = {min(case.num_negatives, args.num_instances // 2):,}')
    else:
        title = TITLES[case.method]
    title += ', channels_last' if case.channels_last else ', contiguous'
    if case.augment is not None:
        title += ', augmented' + (' (fused)' if case.augment.get('compile') else '')
    return title + (', compile' if case.compile else '')


def _row(name: str, results: dict[str, dict], args: argparse.Namespace) -> str:
    case, result = CASES[name], results[name]
    title = f'{name:22}{_title(case, args):46}'
    if 'error' in result:
        return f'{title} {result["error"]}'
    baseline = results.get('classifier' + ('-cl' if case.channels_last else '')
                           + ('-compile' if case.compile else ''), {}).get('ms')
    ratio = f'{result["ms"] / baseline:7.3f}' if baseline else f'{"":7}'
    rows = f'{"":9}' if result['rows_ms'] is None else f'{result["rows_ms"]:9.2f}'
    return (f'{title}{result["ms"]:9.1f}{result["images"]:10.0f}{ratio}{rows}'
            f'{result["peak_mb"]:9.0f}')
