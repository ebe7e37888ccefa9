# SPDX-License-Identifier: Apache-2.0
"""An ordinary config of mmpretrain that fine-tunes a backbone on labelled pictures."""
from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Callable

from pic_plugin.engine.checkpoint.foreign_checkpoint import find_checkpoint
from pic_plugin.features.embedding import LoadedBackbone, load_backbone
from pic_plugin.files import check_folder, write_atomically
from pic_plugin.pretrain.config_text import assign, labelled_dataset
from pic_plugin.pretrain.labels import Labelled, read_labels
from pic_plugin.pretrain.networks import Backbone, look_at
from pic_plugin.pretrain.start import read_start, write_start
from pic_plugin.wording import counted

# For 32 images of a step. The classifier begins anew, and learns faster than the backbone.
SGD_RATE, ADAMW_RATE, HEAD_FACTOR, BATCH = 0.01, 1e-4, 10, 32
CONFIG = 'finetune.py'


def write_finetuning(checkpoint: str | Path, labels: str | Path,
                     out: str | Path, epochs: int = 20, batch_size: int = BATCH,
                     random: bool = False, say: Callable[[str], Any] = print) -> Path:
    """Write the config, and the weights and lists that it names.

    Args:
        checkpoint (str | Path): As for :func:`load_backbone`.
        labels (str | Path): As for :func:`read_labels`. Every second picture of a class is for
            learning, the others for the accuracy.
        out (str | Path): Folder that is empty or not there.
        epochs (int): Defaults to 20.
        batch_size (int): Images of a step; all, if there are fewer. Defaults to 32.
        random (bool): Whether to begin from random weights, to compare with. Defaults to False.
        say (Callable): Takes a line about pictures that cannot be read. Defaults to print.

    Returns:
        Path: The config.

    Raises:
        FileNotFoundError: If the checkpoint or the labels are not there.
        OSError: If the folder cannot be written to.
        ValueError: If either is unusable, a number is not positive, or the folder is in use.
    """
    if epochs < 1 or batch_size < 2:
        raise ValueError(f'epochs must be at least 1 and the batch 2, not {epochs} and '
                         f'{batch_size}.')
    folder = Path(out).expanduser().absolute()
    if (folder / CONFIG).is_file():
        raise ValueError(f'{folder} holds a fine-tuning: continue it with `{go_on(folder)}`, '
                         'or choose another --out.')
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f'{folder} is not an empty folder: choose another --out.')
    check_folder(folder)
    file = find_checkpoint(checkpoint)
    loaded, start = load_backbone(file), read_start(str(file))
    labelled = read_labels(labels, most=None, reader=loaded.reader)
    if labelled.num_broken:
        say(f'{counted(labelled.num_broken, "picture")} of {labels} cannot be read.')
    batch_size = min(batch_size, len(labelled.references))  # which the rate follows
    backbone = look_at('the backbone', loaded.image_size, start.cfg)
    folder.mkdir(parents=True, exist_ok=True)
    weights = None if random else write_start(start, backbone.cfg, folder)
    train, val = _loaders(folder, labelled, loaded, batch_size)
    parts = [
        '"""Written by pic_plugin\'s finetune; an ordinary config: change it as you like."""\n'
        "default_scope = 'mmpretrain'\n"
        "custom_imports = dict(\n    imports=['pic_plugin', "
        "'pic_plugin.engine.hooks.check_pretrained_hook'],\n    allow_failed_imports=False)",
        assign('model', _model(loaded, backbone, len(labelled.classes), weights)),
        assign('train_dataloader', train),
        assign('val_dataloader', val),
        assign('classes', list(map(str, labelled.classes))) + '\n'
        "train_dataloader['dataset']['metainfo'] = dict(classes=classes)\n"
        "val_dataloader['dataset']['metainfo'] = dict(classes=classes)",
        "val_evaluator = dict(type='Accuracy', topk=(1, ))\nval_cfg = dict()",
        '# For mmpretrain\'s test and inferencer.\n'
        'test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, val_cfg',
        assign('optim_wrapper', _optim_wrapper(backbone.is_transformer, batch_size)),
        assign('param_scheduler', [dict(type='CosineAnnealingLR', T_max=epochs, by_epoch=True,
                                        begin=0, end=epochs, convert_to_iter_based=True)]),
        f'train_cfg = dict(by_epoch=True, max_epochs={epochs}, val_interval=1)',
        'default_hooks = dict(\n'
        "    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2))",
        assign('custom_hooks', [dict(type='CheckPretrainedHook', required=not random),
                                dict(type='PlainCheckpointHook'),
                                dict(type='SaveOnInterruptHook')]),
        'randomness = dict(seed=0)']
    write_atomically(folder / CONFIG, '\n\n'.join(parts) + '\n')
    return folder / CONFIG


def go_on(folder: Path) -> str:
    """The command that goes on with a fine-tuning that has stopped in this folder."""
    return 'python -m pic_plugin.tools.train ' + shlex.join(
        [str(folder / CONFIG), '--work-dir', str(folder), '--resume'])


def _model(loaded: LoadedBackbone, backbone: Backbone, num_classes: int,
           weights: Path | None) -> dict:
    cfg: dict[str, Any] = dict(backbone.cfg)
    if weights is not None:
        cfg['init_cfg'] = dict(type='Pretrained', checkpoint=str(weights), prefix='backbone.')
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(type='ClsDataPreprocessor', mean=list(loaded.mean),
                               std=list(loaded.std), to_rgb=loaded.channel_order == 'RGB',
                               num_classes=num_classes),
        backbone=cfg,
        neck=dict(type='GlobalAveragePooling') if backbone.is_map else None,
        head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=backbone.channels,
                  topk=(1, ), loss=dict(type='CrossEntropyLoss')))


def _loaders(folder: Path, labelled: Labelled, loaded: LoadedBackbone,
             batch_size: int) -> tuple[dict, dict]:
    """The train_dataloader and the val_dataloader, whose lists are written."""
    size, reader = loaded.image_size, loaded.reader
    depth: dict[str, Any] = {} if reader.channels == 3 else dict(channels=reader.channels)
    if reader.own_depth:
        depth['depth'] = 'own'
    if reader.value_range is not None:
        depth['value_range'] = reader.value_range
    loaders: list[dict] = []
    for name, rows, pipeline in (
            ('train', labelled.references,
             [dict(type='DecodeRandomCrop', size=size, scale=(0.2, 1.0), **depth),
              dict(type='RandomFlip', prob=0.5, direction='horizontal')]),
            ('val', labelled.queries,
             [dict(type='DecodeImage', **depth),
              dict(type='ResizeEdge', scale=round(size * 8 / 7), edge='short'),
              dict(type='CenterCrop', crop_size=size)])):
        listed = folder / f'{name}.txt'
        write_atomically(listed, ''.join(f'{path} {label}\n' for path, label in rows))
        loaders.append(dict(
            batch_size=min(batch_size, len(rows)), num_workers=2,
            # BatchNorm does not take a last batch of one image.
            drop_last=name == 'train',
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler', shuffle=name == 'train'),
            dataset=labelled_dataset(str(listed), [*pipeline, dict(type='PackInputs')])))
    return loaders[0], loaders[1]


def _optim_wrapper(is_transformer: bool, batch_size: int) -> dict:
    rate = (ADAMW_RATE if is_transformer else SGD_RATE) * batch_size / BATCH
    optimizer = (dict(type='AdamW', lr=rate, weight_decay=0.05) if is_transformer else
                 dict(type='SGD', lr=rate, momentum=0.9, weight_decay=1e-4))
    return dict(optimizer=optimizer,
                paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=HEAD_FACTOR))))
