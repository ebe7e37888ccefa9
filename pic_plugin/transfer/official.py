# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the PIC authors' code (github.com/bl0/PIC) as checkpoints of ours.

Theirs hold, below ``model`` and behind DistributedDataParallel's ``module.``, a ResNet with
torchvision's names as ``encoder.*``, whose classifier is a projection of two layers, ``fc1`` and
``fc2``, and the class weights of all training images as ``sim_matrix``.
"""
from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import torch
import torchvision
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional

from pic_plugin.engine.checkpoint.foreign_checkpoint import StateDict, resnet_depth, unwrap
from pic_plugin.transfer.export import take_every_weight

PROJECTION = {'fc1.weight': 'neck.mlp.0.weight', 'fc1.bias': 'neck.mlp.0.bias',
              'fc2.weight': 'neck.mlp.2.weight', 'fc2.bias': 'neck.mlp.2.bias'}
CLASS_WEIGHTS = 'sim_matrix'


class Conversion(NamedTuple):
    """A model of ours that holds the authors' weights."""

    state_dict: StateDict
    model: dict[str, Any]  # config
    num_loaded: int
    difference: float  # of projected features, relative to the largest


def convert_official(state: StateDict, with_class_weights: bool = True) -> Conversion:
    """Rename the weights, load them into our network and compare it with torchvision's.

    Args:
        state (dict[str, Tensor]): Names as in the file.
        with_class_weights (bool): Whether to keep the (N, d) class weights, which only a training
            that goes on needs: 656 MB for ImageNet. Defaults to True.

    Returns:
        Conversion: Our state dict, its config, and what was checked.

    Raises:
        ValueError: If it is not a checkpoint of a PIC model of theirs, or of a kind that is not
            converted.
    """
    # Mixed precision of theirs may leave halves, with which a CPU does not compute.
    names = {name: value.float() if value.is_floating_point() else value
             for name, value in unwrap(state).items()}
    encoder = {name[len('encoder.'):]: value for name, value in names.items()
               if name.startswith('encoder.')}
    if not encoder or CLASS_WEIGHTS not in names:
        raise ValueError(
            'it is not a PIC checkpoint of the authors\' code, which has encoder.* and '
            f'{CLASS_WEIGHTS} (there are {", ".join(list(names)[:3])}, ...)'
            + (': it is one of pic_plugin already.' if 'backbone.conv1.weight' in names else '.'))
    if 'fc1.weight' not in encoder or 'fc2.weight' not in encoder:
        raise ValueError('its projection is not the two layers fc1 and fc2 (option --mlp-head of '
                         "the authors' code): a single layer is not converted.")
    body = {name: value for name, value in encoder.items() if name not in PROJECTION}
    depth = resnet_depth(body)
    if depth is None or 'conv1.weight' not in body:
        raise ValueError('its encoder is not a plain ResNet of 18 to 152 layers (a deep stem, '
                         '`resnet50_d`, is not converted).')
    base = body['layer1.0.conv1.weight'].shape[0]
    num_instances, feat_dim = names[CLASS_WEIGHTS].shape
    hidden, width = encoder['fc1.weight'].shape
    model = dict(
        type='PIC',
        data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[123.675, 116.28, 103.53],
                               std=[58.395, 57.12, 57.375], to_rgb=True),
        backbone=dict(type='ResNet', depth=depth, base_channels=base, zero_init_residual=True),
        neck=dict(type='MoCoV2Neck', in_channels=width, hid_channels=hidden,
                  out_channels=feat_dim),
        # A softmax over all instances, as theirs.
        head=dict(type='PICHead', feat_dim=feat_dim, num_instances=num_instances,
                  num_negatives=None))

    converted = {f'backbone.{name}': value for name, value in body.items()}
    converted.update((ours, encoder[theirs]) for theirs, ours in PROJECTION.items())
    network = nn.ModuleDict({part: MODELS.build(model[part]) for part in ('backbone', 'neck')})
    num_loaded = take_every_weight(network, converted, str(model['backbone']))
    difference = _projection_difference(network, encoder, depth)
    if not difference < 1e-5:
        raise ValueError(f'the converted network gives other features (they differ by '
                         f'{difference:.1e} of the largest), although every weight fits: please '
                         'report it with the options of the training.')
    if with_class_weights:
        converted['head.weight'] = names[CLASS_WEIGHTS]
    return Conversion(converted, model, num_loaded, difference)


@torch.no_grad()
def _projection_difference(network: nn.ModuleDict, encoder: StateDict, depth: int) -> float:
    """Largest difference of projected features to torchvision's network with their weights."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    network.eval()
    ours = network['neck'](network['backbone'](images))[-1]
    theirs = forward_resnet(
        {name: value for name, value in encoder.items() if name not in PROJECTION}, depth, images)
    theirs = functional.linear(theirs, encoder['fc1.weight'], encoder['fc1.bias']).relu()
    theirs = functional.linear(theirs, encoder['fc2.weight'], encoder['fc2.bias'])
    return float((ours - theirs).abs().max() / theirs.abs().max())


def forward_resnet(weights: StateDict, depth: int, images: Tensor) -> Tensor:
    """Pooled features by torchvision's ResNet in evaluation mode, of whatever width.

    Args:
        weights (dict[str, Tensor]): torchvision's names, without the classifier.
        depth (int): 18, 34, 50, 101 or 152.
        images (Tensor): (B, 3, H, W).

    Returns:
        Tensor: (B, C).

    Raises:
        ValueError: If it has other layers.
    """
    network = torchvision.models.get_model(f'resnet{depth}', weights=None).eval()
    network.fc = nn.Identity()
    try:
        # In a call weights of another width may take the place of the network's own.
        return torch.func.functional_call(network, weights, images, strict=True)
    except RuntimeError as error:
        reason = ' '.join(str(error).split())[:200]
        raise ValueError(f"its encoder is not torchvision's ResNet-{depth}: {reason}") from error


def file_content(conversion: Conversion, source: str, epoch: Any) -> dict:
    """A checkpoint as mmengine's, which says by itself what it holds.

    Args:
        conversion (Conversion): From :func:`convert_official`.
        source (str): Name of the authors' file.
        epoch (Any): Theirs; kept if it is a number. With their sliding window it counts windows.
    """
    meta = dict(cfg=Config(dict(model=conversion.model)).pretty_text, converted_from=source)
    if isinstance(epoch, int):
        meta['epoch'] = epoch
    state = OrderedDict((name, value.detach().clone())
                        for name, value in conversion.state_dict.items())
    return dict(meta=meta, state_dict=state)
