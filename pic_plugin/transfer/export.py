# SPDX-License-Identifier: Apache-2.0
"""A small file of backbone weights for another library, that its network really takes."""
from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmpretrain.registry import MODELS
from torch import nn

from pic_plugin.engine.checkpoint.foreign_checkpoint import (
    StateDict,
    resnet_depth,
    state_dict_of,
)
from pic_plugin.engine.type_names import type_name
from pic_plugin.files import write_atomically
from pic_plugin.models.pooling import pooled
from pic_plugin.transfer import convnext, resnet, swin, vit
from pic_plugin.transfer.config_text import dicts_of_training
from pic_plugin.transfer.foreign_network import Family, taken_back
from pic_plugin.version import __version__

FORMATS = ('openmmlab', 'torchvision', 'timm')
# Float32 through 50 and more layers, relative to the largest feature.
TOLERANCE = 1e-5
# Of the classifier that the other libraries' networks end with, and PIC's lacks.
CLASSIFIER = ('fc.weight', 'fc.bias')
# Of BatchNorm, which files before torch 0.4.1 (torchvision's ResNets) lack and nothing reads.
COUNTER = '.num_batches_tracked'
# By mmpretrain's type.
FAMILIES = dict(
    ResNet=Family(resnet.build, resnet.rename),
    ResNet_CIFAR=Family(resnet.build, resnet.rename),
    VisionTransformer=Family(vit.build, vit.rename),
    MoCoV3ViT=Family(vit.build, vit.rename),
    SwinTransformer=Family(swin.build, swin.rename),
    ConvNeXt=Family(convnext.build, convnext.rename))


class Export(NamedTuple):
    """A backbone, ready to be written.

    Attributes:
        state_dict (dict[str, Tensor]): Weights with the library's names.
        target (str): The network that took them.
        num_loaded (int): How many it took.
        checks (list[str]): What else was found to agree.
        code (tuple[str, ...]): Lines of Python that make the library's ``network``; none for
            OpenMMLab.
    """

    state_dict: StateDict
    target: str
    num_loaded: int
    checks: list[str]
    code: tuple[str, ...] = ()


def read_training(content: dict) -> dict[str, Any]:
    """How a checkpoint was trained, in plain values, as far as mmengine wrote it down.

    Returns:
        dict: ``backbone`` and ``data_preprocessor`` as in the config (None if unknown), epochs and
        iterations done, seed, versions, and ``cfg``, the text of the training's config.
    """
    meta = content.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    model = dicts_of_training(content, 'model').get('model', {})
    known = {key: meta[key] for key in ('cfg', 'epoch', 'iter', 'seed', 'experiment_name', 'time',
                                        'mmengine_version', 'converted_from')
             if isinstance(meta.get(key), (str, int, float))}
    # In a file that file_content made they may stand in the place of the config.
    parts = {key: part if isinstance(part, dict) else None
             for key in ('backbone', 'data_preprocessor')
             for part in [model.get(key, meta.get(key))]}
    return dict(**parts, **known)


def backbone_config(training: dict, weights: StateDict) -> dict[str, Any]:
    """Config that builds the backbone: the one it was trained with, or what its weights say.

    Raises:
        ValueError: If neither tells.
    """
    cfg = training['backbone']
    if isinstance(cfg, dict):
        cfg = {key: value for key, value in cfg.items()
               if key not in ('init_cfg', 'pretrained', '_scope_')}
        return dict(cfg, type=type_name(cfg))
    depth = resnet_depth(weights)
    if depth is None:
        raise ValueError('the checkpoint does not say which backbone it holds, and its weights are '
                         'not those of a ResNet: give the training config with --config.')
    return dict(type='ResNet', depth=depth)


def build_backbone(cfg: dict[str, Any]) -> nn.Module:
    """Build a backbone of mmpretrain.

    Raises:
        ValueError: If it is unknown, or its arguments are wrong.
    """
    try:
        return MODELS.build(cfg)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'the backbone {cfg} cannot be built: {error}') from error


def take_every_weight(network: nn.Module, weights: StateDict, name: str) -> int:
    """Load weights, all of them and nothing else.

    Args:
        network (nn.Module): Gets the weights.
        weights (dict[str, Tensor]): Names as the network has them.
        name (str): Of the network, for the message.

    Returns:
        int: Tensors loaded.

    Raises:
        ValueError: If a weight of the network is missing (but for a classifier's or a counter of
            BatchNorm), one of the file is unused, or a shape differs.
    """
    own = network.state_dict()
    missing = [key for key in own if key not in weights and key not in CLASSIFIER
               and not key.endswith(COUNTER)]
    unused = [key for key in weights if key not in own]
    other = [f'{key} ({tuple(weights[key].shape)}, in the network {tuple(own[key].shape)})'
             for key in weights if key in own and weights[key].shape != own[key].shape]
    if missing or unused or other:
        faults = [f'{len(keys)} {what}, {keys[0]} first' for keys, what in (
            (missing, 'missing'), (unused, 'unused'), (other, 'of another shape')) if keys]
        depth = resnet_depth(weights)
        hint = f' The weights are those of a ResNet-{depth}.' if depth else ''
        raise ValueError(f'{name} does not take the weights of this backbone: '
                         f'{"; ".join(faults)}.{hint}')
    network.load_state_dict(weights, strict=False)
    return len(weights)


def export_backbone(weights: StateDict, cfg: dict[str, Any], form: str) -> Export:
    """Rename the weights for a library and try them in its network.

    Args:
        weights (dict[str, Tensor]): Without prefix.
        cfg (dict): Config of the backbone, of mmpretrain.
        form (str): One of FORMATS. openmmlab: names begin with ``backbone.``, as in a PIC
            checkpoint, so that one config line fits both. torchvision and timm: their own names.

    Returns:
        Export: What to write, and what was checked.

    Raises:
        ValueError: If the library has no such network, or it does not take every weight, or gives
            other features.
    """
    network = build_backbone(cfg)
    name = f'mmpretrain {_describe(cfg)}'
    num_loaded = take_every_weight(network, weights, name)
    if form == 'openmmlab':
        state = OrderedDict((f'backbone.{key}', value) for key, value in weights.items())
        return Export(state, name, num_loaded, [])

    family = FAMILIES.get(cfg['type'])
    if family is None:
        raise ValueError(f'--format {form} knows ResNets, ConvNeXts, ViTs and Swins, and this '
                         f'backbone is of type {cfg["type"]}: use --format openmmlab, whose names '
                         "are mmpretrain's.")
    foreign = family.build(network)
    code = foreign.lines if form == 'torchvision' else foreign.timm
    if not code:
        raise ValueError(f'{form} has no network like {_describe(cfg)}: use --format torchvision.')
    other = foreign.make()
    name = 'torchvision ' + (
        foreign.name or f'{type(other).__name__} of the sizes of {_describe(cfg)}')
    take_every_weight(other, family.rename(weights, 'torchvision'), name)
    difference = _feature_difference(network, other, _side(cfg, network))
    if not difference < TOLERANCE:
        raise ValueError(
            f'{name} takes every weight but gives other features (they differ by {difference:.1e} '
            f'of the largest): {_describe(cfg)} is another network, with its stride, stem or '
            'pooling elsewhere. Use --format openmmlab.')
    checks = [f'features equal to {difference:.1e} of the largest']
    if form == 'timm':
        checks.append("compared in torchvision's network; then given the names of timm's")
    state = OrderedDict(family.rename(weights, form))
    if form == 'torchvision':  # which then takes the file as it is
        state.update((key, value) for key, value in other.state_dict().items()
                     if key.endswith(COUNTER) and key not in state)
    return Export(state, name, len(weights), checks, code)


def _side(cfg: dict[str, Any], network: nn.Module) -> int:
    """Pixels of an image for a comparison."""
    size = getattr(network, 'img_size', None) or cfg.get('img_size') or (
        224 if cfg['type'] == 'SwinTransformer' else 64)
    return int(size[0] if isinstance(size, (tuple, list)) else size)


@torch.no_grad()
def _feature_difference(network: nn.Module, other: nn.Module, side: int = 64) -> float:
    """Largest difference of pooled features of a noise image, over the largest feature."""
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    network.eval()  # some of mmpretrain's return nothing
    other.eval()
    expected, got = pooled(network(images)), other(images)
    if expected.shape != got.shape:
        return float('inf')
    return float((expected - got).abs().max() / expected.abs().max())


def _describe(cfg: dict[str, Any]) -> str:
    arguments = ', '.join(f'{key}={value!r}' for key, value in cfg.items() if key != 'type')
    return f'{cfg["type"]}({arguments})'


def write_with_hash(content: dict, out: str | Path) -> Path:
    """Write ``NAME-xxxxxxxx.pth``, x being the first 8 digits of the file's SHA-256.

    The same content gives the same name: nothing in the file depends on when or where it is
    written.

    Args:
        content (dict): Tensors and plain values.
        out (str | Path): Name without the digits; ``.pth`` may be left out.

    Returns:
        Path: The file.
    """
    out = Path(out).expanduser()
    name = out.name[:-4] if out.name.endswith('.pth') else out.name
    # Into memory first: torch writes the name of a file into it.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    digits = hashlib.sha256(buffer.getvalue()).hexdigest()[:8]
    file = out.with_name(f'{name}-{digits}.pth')
    write_atomically(file, buffer.getvalue())
    return file


def exported_weights(content: dict) -> StateDict | None:
    """Weights out of a file for torchvision or timm, under mmpretrain's names, without prefix.

    Returns:
        dict[str, Tensor]: All that are in it; None if it is no such file.

    Raises:
        ValueError: If the network cannot be built.
    """
    meta = content.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    form, cfg = meta.get('format'), meta.get('backbone')
    if form not in FORMATS or form == 'openmmlab' or not isinstance(cfg, dict):
        return None
    family = FAMILIES.get(cfg.get('type', ''))
    return None if family is None else taken_back(
        state_dict_of(content, 'the file'), build_backbone(cfg).state_dict(), family.rename, form)


def file_content(export: Export, training: dict, cfg: dict[str, Any], source: Path,
                 form: str) -> dict:
    """What is written: weights and how they came about."""
    meta = dict(training, backbone=cfg, format=form, source=source.name,
                pic_plugin_version=__version__, method='PIC (arXiv 2006.14618)')
    # A copy of each: a view of a larger storage would be written with all of it.
    state = OrderedDict((key, value.detach().clone()) for key, value in export.state_dict.items())
    return dict(state_dict=state, meta=meta)
