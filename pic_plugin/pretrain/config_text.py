# SPDX-License-Identifier: Apache-2.0
"""The config that a plan becomes: an ordinary file that ``mim train`` takes, with its reasons."""
from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from pic_plugin.pretrain.plan import Plan
from pic_plugin.pretrain.rules import text_of
from pic_plugin.pretrain.start import Start

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
LOGGERS = {
    'tensorboard': dict(type='TensorboardVisBackend'),
    'wandb': dict(type='WandbVisBackend', init_kwargs=dict(project='pic_plugin')),
    'mlflow': dict(type='MLflowVisBackend', exp_name='pic_plugin'),
}
LINE = 96  # characters
BLURRED = 64  # pixels up to which blur would leave little


class Sources(NamedTuple):
    """Files that a config names, and its seed.

    Attributes:
        root (str): Folder of the pictures.
        list_file (str): Lists them, a path below ``root`` on each line.
        references (str | None): Labelled pictures among which kNN looks, ``PATH LABEL`` on each
            line with an absolute path.
        queries (str | None): Labelled pictures that are classified.
        num_references (int): Of the former.
        value_range (tuple[float, float] | None): Black and white of pictures of more than 8 bits.
        start (Start | None): Network that was trained before.
        start_file (str | None): Its weights.
        seed (int): Of the training's random numbers.
    """

    root: str
    list_file: str
    references: str | None = None
    queries: str | None = None
    num_references: int = 0
    value_range: tuple[float, float] | None = None
    start: Start | None = None
    start_file: str | None = None
    seed: int = 0


def labelled_dataset(list_file: str, pipeline: list[dict]) -> dict:
    """Data set of labelled pictures."""
    return dict(type='ImageFiles', data_root='/', ann_file=list_file, with_label=True,
                pipeline=pipeline)


def _depth(sources: Sources) -> dict:
    return {} if sources.value_range is None else dict(value_range=sources.value_range)


def preprocessor(plan: Plan, start: Start | None = None) -> dict:
    """Augmentation and normalisation on the device; blur only where pixels are left after it."""
    mean, std = MEAN, STD
    if start is not None and start.mean is not None and start.std is not None:
        mean, std = start.mean, start.std
    cfg: dict[str, Any] = dict(type='AugmentPreprocessor', mean=mean, std=std,
                               to_rgb=start is None or start.to_rgb,
                               channels_last=plan.memory_format == 'channels_last')
    if plan.image_size <= BLURRED:
        cfg['views'] = dict(blur=None)
    return cfg


def evaluation_pipeline(image_size: int, sources: Sources, reference: bool) -> list[dict]:
    """The middle square of a labelled picture."""
    return [
        dict(type='DecodeImage', **_depth(sources)),
        dict(type='ResizeEdge', scale=round(image_size * 8 / 7), edge='short'),
        dict(type='CenterCrop', crop_size=image_size),
        *([dict(type='MarkReference')] if reference else []),
        dict(type='PackInputs', meta_keys=('sample_idx', 'reference', 'img_path')),
    ]


def model(plan: Plan, sources: Sources) -> dict:
    """PIC with the plan's backbone."""
    channels = plan.backbone.channels
    backbone = dict(plan.backbone.cfg)
    if sources.start_file is not None:
        backbone['init_cfg'] = dict(type='Pretrained', checkpoint=sources.start_file,
                                    prefix='backbone.')
    elif backbone['type'] in ('ResNet', 'SEResNet', 'ResNeXt') and not plan.is_short:
        backbone['zero_init_residual'] = True
    elif backbone['type'].startswith('ResNet'):
        backbone['zero_init_residual'] = False
    hidden = min(2048, max(512, channels))
    if plan.is_short:
        neck = dict(type='NonLinearNeck', in_channels=channels, hid_channels=hidden,
                    out_channels=128, with_last_bn=False, norm_cfg=dict(type='BN1d'),
                    with_avg_pool=plan.backbone.is_map)
    else:
        neck = dict(type='MoCoV2Neck', in_channels=channels, hid_channels=hidden,
                    out_channels=128, with_avg_pool=plan.backbone.is_map)
    head: dict[str, Any] = dict(
        type='PICHead', feat_dim=128, num_negatives=plan.num_negatives,
        loss=dict(type='CosineSoftmaxLoss', temperature=plan.temperature))
    if plan.refresh:
        head['refresh_returning'] = plan.refresh
    if plan.num_processes > 1:
        head['num_instances'] = plan.num_images
    if plan.storage == 'disk':
        head['storage'] = dict(type='mmap')
    elif plan.storage == 'disk-half':
        head['storage'] = dict(type='mmap', dtype='bfloat16')
    return dict(type='PIC', data_preprocessor=preprocessor(plan, sources.start),
                backbone=backbone, neck=neck, head=head)


def train_dataloader(plan: Plan, sources: Sources) -> dict:
    """Loader with the sliding window."""
    sampler = dict(type='SlidingWindowSampler', window_size=plan.window, stride=plan.stride)
    if plan.num_epochs is None:
        # A loop that counts steps waits for seconds whenever a loader ends.
        sampler['endless'] = True
    # The rest of the paper's augmentation is the preprocessor's.
    pipeline = [
        dict(type='DecodeRandomCrop', size=plan.image_size, scale=(0.2, 1.0), **_depth(sources)),
        dict(type='PackInputs', meta_keys=('sample_idx', ))]
    return dict(
        batch_size=plan.batch_size, num_workers=plan.num_workers, persistent_workers=False,
        pin_memory=plan.precision != 'float32', drop_last=True,
        collate_fn=dict(type='default_collate'),
        sampler=sampler,
        dataset=dict(type='ImageFiles', data_root=sources.root, ann_file=sources.list_file,
                     with_label=False, pipeline=pipeline))


def optim_wrapper(plan: Plan) -> dict:
    """Optimizer and precision."""
    if plan.optimizer == 'AdamW':
        optimizer = dict(type='AdamW', lr=plan.rate, betas=(0.9, 0.95), weight_decay=0.05)
    else:
        decay = 5e-4 if plan.is_short else 1e-4
        optimizer = dict(type='SGD', lr=plan.rate, momentum=0.9, weight_decay=decay)
    if plan.precision == 'float32':
        return dict(type='OptimWrapper', optimizer=optimizer)
    # bfloat16 reaches as far as float32: it needs no scale, for which the host waits in each step.
    loss_scale = 'dynamic' if plan.precision == 'float16' else dict(enabled=False)
    return dict(type='AmpOptimWrapper', dtype=plan.precision, loss_scale=loss_scale,
                optimizer=optimizer)


def schedule(plan: Plan) -> list[dict]:
    """Linear warm-up over a twentieth, then a cosine; a short run ends at a third of its peak."""
    if plan.num_steps < 4:
        return []
    low = float(f'{plan.rate / 3:.3g}') if plan.is_short else 1e-6
    if plan.num_epochs is None:
        end = plan.num_steps
        warm: float = max(1, end // 20)
        unit: dict[str, Any] = dict(by_epoch=False)
    else:
        end = plan.num_epochs
        # A warm-up of no step at all is refused.
        warm = max(end / 20 if end < 40 else end // 20, 1 / plan.epoch_length)
        unit = dict(by_epoch=True, convert_to_iter_based=True)
    return [dict(type='LinearLR', start_factor=0.01, begin=0, end=warm, **unit),
            dict(type='CosineAnnealingLR', eta_min=low, begin=warm, end=end, **unit)]


def loops(plan: Plan, interval: int) -> dict[str, Any]:
    """train_cfg and default_hooks: by passes, or by steps where these are not whole."""
    if plan.num_epochs is None:
        every = max(1, plan.num_steps // 5)
        return dict(
            train_cfg=dict(by_epoch=False, max_iters=plan.num_steps,
                           val_interval=max(1, plan.num_steps // 4)),
            log_processor=dict(by_epoch=False),
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=interval),
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=every,
                                max_keep_ckpts=2)))
    epochs = plan.num_epochs
    return dict(
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=max(1, epochs // 10)),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=interval),
            checkpoint=dict(type='CheckpointHook', interval=max(1, epochs // 20),
                            max_keep_ckpts=2)))


def config_text(plan: Plan, sources: Sources, logs: Sequence[str] = ()) -> str:
    """The whole file.

    Args:
        plan (Plan): With its length settled.
        sources (Sources): Files.
        logs (Sequence[str]): Names of LOGGERS besides the local log. Defaults to ().
    """
    reasons = '\n'.join(
        textwrap.fill(f'{name}: {text_of(name, choice.value)}. {choice.reason}', LINE,
                      initial_indent='#   ', subsequent_indent='#     ')
        for name, choice in plan.choices.items())
    interval = max(1, min(50, plan.epoch_length // 4, plan.num_steps // 10))
    imports = ['pic_plugin']
    hooks = [dict(type='InstanceBankHook'), dict(type='OnlineMeasuresHook')]
    if sources.start is not None:
        imports.append('pic_plugin.engine.hooks.check_pretrained_hook')
        hooks.append(dict(type='CheckPretrainedHook'))
    parts = [
        '"""Written by pic_plugin\'s pretrain; an ordinary config: change it as you like."""\n'
        f'# Why these values:\n{reasons}\n'
        "default_scope = 'mmpretrain'\n"
        + assign('custom_imports', dict(imports=imports, allow_failed_imports=False)),
        assign('model', model(plan, sources)),
        assign('train_dataloader', train_dataloader(plan, sources)),
    ]
    if sources.references is not None and sources.queries is not None:
        size = plan.image_size
        datasets = [labelled_dataset(sources.references, evaluation_pipeline(size, sources, True)),
                    labelled_dataset(sources.queries, evaluation_pipeline(size, sources, False))]
        topk = sorted({min(k, sources.num_references) for k in (20, 200)})
        parts.append('# Labels are used here alone.\n' + assign('val_dataloader', dict(
            batch_size=plan.batch_size, num_workers=plan.num_workers, persistent_workers=False,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(type='ConcatDataset', datasets=datasets))))
        parts += [assign('val_evaluator', dict(type='KNNMetric', topk=tuple(topk))),
                  'val_cfg = dict()']
        hooks.append(dict(type='CompareWithUntrainedHook'))
    hooks.append(dict(type='SaveOnInterruptHook'))
    parts += [assign('optim_wrapper', optim_wrapper(plan)),
              assign('param_scheduler', schedule(plan)),
              *(assign(name, value) for name, value in loops(plan, interval).items()),
              assign('custom_hooks', hooks),
              assign('visualizer', dict(
                  type='UniversalVisualizer',
                  vis_backends=[dict(type='LocalVisBackend'), *(LOGGERS[name] for name in logs)])),
              f'randomness = dict(seed={sources.seed})']
    return '\n\n'.join(parts) + '\n'


def assign(name: str, value: Any) -> str:
    """A line of a config, or several where it is long."""
    return f'{name} = {_render(value, len(name) + 3, 0)}'


def _render(value: Any, used: int, indent: int) -> str:
    """Python text of plain values, broken where a line would be too long.

    Args:
        value (Any): dict, list, tuple or a plain value.
        used (int): Characters on the line before it.
        indent (int): Of the line.
    """
    line = _one_line(value)
    if used + len(line) <= LINE or not isinstance(value, (dict, list, tuple)) or not value:
        return line
    inner = ' ' * (indent + 4)
    if isinstance(value, dict):
        items = [f'{inner}{key}={_render(one, indent + 6 + len(key), indent + 4)}'
                 for key, one in value.items()]
        return 'dict(\n' + ',\n'.join(items) + ')'
    items = [inner + _render(one, indent + 5, indent + 4) for one in value]
    brackets = '[]' if isinstance(value, list) else '()'
    return f'{brackets[0]}\n' + ',\n'.join(items) + f',\n{" " * indent}{brackets[1]}'


def _one_line(value: Any) -> str:
    if isinstance(value, dict):
        if all(isinstance(key, str) and key.isidentifier() for key in value):
            items = ', '.join(f'{key}={_one_line(one)}' for key, one in value.items())
            return f'dict({items})'
        return '{' + ', '.join(f'{key!r}: {_one_line(one)}' for key, one in value.items()) + '}'
    if isinstance(value, list):
        return '[' + ', '.join(map(_one_line, value)) + ']'
    if isinstance(value, tuple):
        return '(' + ', '.join(map(_one_line, value)) + (',)' if len(value) == 1 else ')')
    return repr(value)
