# SPDX-License-Identifier: Apache-2.0
"""A neck that fits its backbone: channels taken from it, or both numbers in the message."""
from __future__ import annotations

import inspect
from typing import Any

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

SIDE = 64  # pixels of the image that a backbone of any size is asked with


def with_in_channels(backbone: dict[str, Any] | nn.Module,
                     neck: dict[str, Any] | nn.Module
                     ) -> tuple[dict[str, Any] | nn.Module, dict[str, Any] | nn.Module]:
    """Take a neck's ``in_channels`` from the backbone, where its config leaves them open.

    Args:
        backbone (dict | nn.Module): Built if the neck depends on it.
        neck (dict | nn.Module): With ``in_channels=None`` for what the backbone gives. If that are
            vectors and not maps, ``with_avg_pool`` becomes False where the neck has it and the
            config does not say.

    Returns:
        tuple: Backbone, and neck with a number.

    Raises:
        ValueError: If the backbone cannot be asked.
    """
    if not isinstance(neck, dict) or neck.get('in_channels', 0) is not None:
        return backbone, neck
    built = backbone if isinstance(backbone, nn.Module) else MODELS.build(backbone)
    features = _ask(built)
    neck = dict(neck, in_channels=features.shape[1] if features.dim() == 4 else features.shape[-1])
    cls = MODELS.get(neck['type']) if isinstance(neck.get('type'), str) else neck['type']
    if features.dim() == 2 and 'with_avg_pool' in inspect.signature(cls.__init__).parameters:
        neck.setdefault('with_avg_pool', False)
    return built, neck


def project(neck: nn.Module, features: Any) -> Any:
    """``neck(features)``, and an error that says what does not fit.

    Args:
        neck (nn.Module): Projection.
        features (Tensor | tuple): What the backbone gives.

    Raises:
        ValueError: If the neck has been made for other features.
    """
    try:
        return neck(features)
    except (RuntimeError, ValueError) as error:
        message = _difference(neck, features)
        if message is None:
            raise
        raise ValueError(message) from error


def _ask(backbone: nn.Module) -> Tensor:
    """What a backbone gives for one image, without leaving a trace in it."""
    size = getattr(backbone, 'img_size', SIDE)
    height, width = (size, size) if isinstance(size, int) else tuple(size)[:2]
    first = next((module for module in backbone.modules() if isinstance(module, nn.Conv2d)), None)
    channels = 3 if first is None else first.in_channels
    parameter = next(backbone.parameters(), torch.zeros(1))
    training = {module: module.training for module in backbone.modules()}
    try:
        backbone.eval()
        with torch.no_grad():
            return last_of(backbone(parameter.new_zeros(1, channels, height, width)))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ValueError(
            f'neck in_channels=None: {type(backbone).__name__} cannot be asked for its channels '
            f'with an image of {channels} x {height} x {width} ({error}): set them in the config.'
        ) from error
    finally:
        for module, mode in training.items():
            module.training = mode


def _difference(neck: nn.Module, features: Any) -> str | None:
    """What a neck expects and what it gets, if they differ."""
    last = last_of(features)
    if not isinstance(last, Tensor):
        return None
    first = next((module for module in neck.modules()
                  if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv1d))), None)
    wanted = None if first is None else getattr(first, 'in_features', None) or first.in_channels
    given = last.shape[1] if last.dim() == 4 else last.shape[-1]
    name = type(neck).__name__
    if last.dim() != 4 and getattr(neck, 'with_avg_pool', False):
        return (f'the backbone gives features of shape {tuple(last.shape)}, and {name} pools maps '
                f'(B, C, H, W) ({wanted} channels): set model.neck.with_avg_pool=False and '
                f'model.neck.in_channels={given}, or None for what the backbone gives.')
    if wanted is not None and wanted != given:
        return (f'the backbone gives {given} channels, and {name} takes {wanted}: set '
                f'model.neck.in_channels={given}, or None for what the backbone gives.')
    return None


def last_of(outputs: Any) -> Any:
    return outputs[-1] if isinstance(outputs, (tuple, list)) else outputs
