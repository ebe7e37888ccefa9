# SPDX-License-Identifier: Apache-2.0
"""mmpretrain's backbones by their usual names, and what a projection needs to know of one."""
from __future__ import annotations

import difflib
import inspect
import re
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from pic_plugin.analysis.network import quiet_log
from pic_plugin.engine.type_names import type_name

# The field's names for classes whose own are longer.
USUAL = {
    'VisionTransformer': 'vit', 'SwinTransformer': 'swin', 'SwinTransformerV2': 'swinv2',
    'DistilledVisionTransformer': 'deit-distilled', 'ResNet_CIFAR': 'resnet-cifar',
    'RevVisionTransformer': 'revvit', 'MixMIMTransformer': 'mixmim', 'SEResNet': 'seresnet',
}
# What a CPU trains in an hour: a quarter of a ResNet-18's channels.
NARROW = {
    'resnet18-quarter': dict(type='ResNet', depth=18, stem_channels=16, base_channels=16),
    'resnet-cifar-18-quarter': dict(
        type='ResNet_CIFAR', depth=18, stem_channels=16, base_channels=16, strides=(2, 1, 2, 2)),
}
# Entries of arch_zoo are lists of names of one architecture, of which some are letters.
LETTERS = ('s', 'b', 'l', 'h', 't', 'm', 'g', 'ti')
# Choices of models that train by gradient masks or lie in pieces; they have no plain forward.
NO_CLASSIFIERS = ('SparseResNet', 'SparseConvNeXt', 'TIMMBackbone', 'ViTSAM')


class Backbone(NamedTuple):
    """A network that was built once and looked at.

    Attributes:
        name (str): Usual name.
        cfg (dict): mmpretrain's config of it.
        channels (int): C of its feature.
        is_map (bool): Whether it gives (B, C, H, W) maps, which the projection averages.
        is_transformer (bool): Whether it wants AdamW.
        num_parameters (int): All of them.
    """

    name: str
    cfg: dict[str, Any]
    channels: int
    is_map: bool
    is_transformer: bool
    num_parameters: int


def known_backbones() -> dict[str, dict[str, Any]]:
    """Configs of mmpretrain's backbones by usual name: resnet50, swin-tiny, convnext-tiny ..."""
    import mmpretrain.models.backbones as backbones
    known: dict[str, dict[str, Any]] = {name: dict(cfg) for name, cfg in NARROW.items()}
    for kind in backbones.__all__:
        if kind in NO_CLASSIFIERS:
            continue
        cls = getattr(backbones, kind)
        usual = USUAL.get(kind, kind.lower().replace('_', '-'))
        archs = getattr(cls, 'arch_zoo', None) or getattr(cls, 'arch_settings', None)
        parameters = _all_parameters(cls)
        key = next((name for name in ('depth', 'arch', 'scale') if name in parameters), None)
        if not isinstance(archs, dict) or key is None:
            known[usual] = dict(type=kind)
            continue
        for arch in archs:
            if arch in LETTERS and len(archs) > len(LETTERS) // 2 and _has_long_form(arch, archs):
                continue
            known[_join(usual, arch)] = dict(type=kind, **{key: arch})
    return known


def _has_long_form(letter: str, archs: Any) -> bool:
    return any(isinstance(arch, str) and len(arch) > 2 and arch[0] == letter[0]
               for arch in archs)


def _join(usual: str, arch: Any) -> str:
    text = str(arch).lower().replace('_', '-')
    if text.startswith(usual):  # regnetx_400mf
        return text
    plain = text.isdigit() and not usual.endswith('-cifar')
    return f'{usual}{text}' if plain else f'{usual}-{text}'


def usual_name(cfg: dict[str, Any]) -> str:
    """Name for people of a backbone by its config: that of :func:`known_backbones`, or its type."""
    cfg = dict(cfg, type=type_name(cfg))
    fits = [(len(known), name) for name, known in known_backbones().items()
            if all(key in cfg and cfg[key] == value for key, value in known.items())]
    return max(fits)[1] if fits else cfg['type']


def _plain(name: str) -> str:
    return re.sub(r'[^a-z0-9]', '', name.lower())


def find_backbone(name: str) -> dict[str, Any]:
    """Config of a backbone by name: of :func:`known_backbones`, or a model of mmpretrain.

    Args:
        name (str): As in 'resnet50', 'ResNet-50', 'vit-small', or the name of one of mmpretrain's
            models, 'convnext-tiny_32xb128_in1k'.

    Raises:
        ValueError: If there is none, with the nearest names.
    """
    known = known_backbones()
    by_plain = {_plain(usual): usual for usual in known}
    if _plain(name) in by_plain:
        return known[by_plain[_plain(name)]]
    # With underscores: a model of mmpretrain's index, whose reading takes seconds.
    if '_' in name:
        from mmpretrain.apis.model import ModelHub
        try:
            config = ModelHub.get(name).config
        except ValueError:
            config = None
        backbone = config.model.get('backbone') if isinstance(config, Config) else None
        if backbone is not None:
            return {key: value for key, value in backbone.to_dict().items()
                    if key not in ('init_cfg', '_scope_')}
    near = difflib.get_close_matches(_plain(name), by_plain, n=5, cutoff=0.5)
    names = [by_plain[one] for one in near] or ['resnet18', 'resnet50', 'convnext-tiny',
                                                'vit-small']
    raise ValueError(f'there is no backbone {name}: the nearest names are {", ".join(names)}.')


def look_at(name: str, side: int, cfg: dict[str, Any] | None = None) -> Backbone:
    """Build a backbone, give it an image, and say what comes out.

    Args:
        name (str): Of :func:`find_backbone`.
        side (int): Pixels of the square images that it will be trained on.
        cfg (dict, optional): Defaults to None: by the name.

    Raises:
        ValueError: If the name is unknown, or the network does not take images of this size.
    """
    cfg = dict(find_backbone(name) if cfg is None else cfg)
    cls = MODELS.get(str(cfg['type']))
    parameters = _all_parameters(cls)
    if 'img_size' in parameters:
        cfg.setdefault('img_size', side)
    if side < 224 and 'pad_small_map' in parameters:
        cfg.setdefault('pad_small_map', True)  # windows larger than the last maps
    try:
        with quiet_log('ERROR'), torch.random.fork_rng(devices=[]), torch.no_grad(), \
                DefaultScope.overwrite_default_scope('mmpretrain'):
            network = MODELS.build(cfg)
            network.eval()
            outputs = network(torch.zeros(2, int(cfg.get('in_channels', 3)), side, side))
    except Exception as error:  # networks fail in their own words
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f'{name} cannot be built for images of {side} pixels ({reason}): choose '
                         'another --backbone or --image-size.') from error
    outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
    last = outputs[-1]
    if len(outputs) != 1 or not isinstance(last, torch.Tensor) or last.dim() not in (2, 4):
        seen = ', '.join(str(tuple(one.shape)) if isinstance(one, torch.Tensor) else
                         type(one).__name__ for one in outputs)
        raise ValueError(f'{name} gives {seen} for two images, and the projection takes one '
                         'tensor, (2, channels) or (2, channels, height, width): choose another '
                         '--backbone.')
    names = [type(module).__name__ for module in network.modules()]
    attention = any('Attention' in one or one.endswith('MSA') for one in names)
    norms = [one for one in names if one.startswith('LayerNorm') or 'BatchNorm' in one]
    layer_norms = sum(one.startswith('LayerNorm') for one in norms)
    return Backbone(name, cfg, last.shape[1], last.dim() == 4,
                    attention or layer_norms > len(norms) / 2,
                    sum(one.numel() for one in network.parameters()))


def _all_parameters(cls: Any) -> list[str]:
    """Names of arguments of a class and its bases: many hand **kwargs on."""
    names: list[str] = []
    for base in inspect.getmro(cls):
        if '__init__' in vars(base):
            parameters = inspect.signature(vars(base)['__init__']).parameters
            names += list(parameters)
            if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
                break
    return names
