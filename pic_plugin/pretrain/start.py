# SPDX-License-Identifier: Apache-2.0
"""A network that was trained before, from which a pre-training goes on."""
from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from mmpretrain.registry import MODELS

from pic_plugin.analysis.network import Settings, open_network
from pic_plugin.engine.checkpoint.foreign_checkpoint import (
    StateDict,
    backbone_of,
    check_finite,
    find_checkpoint,
    weights_of,
)
from pic_plugin.files import replacing
from pic_plugin.pretrain.work_folder import START


class Start(NamedTuple):
    """Weights and what their network expects.

    Attributes:
        source (str): As it was given.
        cfg (dict): mmpretrain's config of the backbone, without a size of images.
        weights (dict[str, Tensor]): Of the backbone, without prefix.
        mean (list[float] | None): Of the pixels that it was trained on; None if it does not say.
        std (list[float] | None): Likewise.
        to_rgb (bool): Whether it takes red first.
    """

    source: str
    cfg: dict[str, Any]
    weights: StateDict
    mean: list[float] | None
    std: list[float] | None
    to_rgb: bool


def read_start(source: str) -> Start:
    """Read a network that has been trained.

    Args:
        source (str): Checkpoint of PIC or of a model of mmpretrain, what ``extract_backbone``
            wrote, a work folder, bare weights of a ResNet as torchvision and timm have them; or the
            name of a model of mmpretrain, whose weights are then downloaded.

    Raises:
        FileNotFoundError: If it is neither a file nor a name.
        ValueError: If it holds no network.
    """
    path = Path(source).expanduser()
    cfg, weights, settings = (
        _of_file(find_checkpoint(path)) if path.exists() else _of_model(source))
    check_finite(weights, source)
    mean, std, to_rgb = settings.normalisation
    return Start(source, {key: value for key, value in cfg.items() if key != 'img_size'}, weights,
                 None if mean is None else list(mean), None if std is None else list(std), to_rgb)


def _of_file(file: Path) -> tuple[dict[str, Any], StateDict, Settings]:
    network = open_network(file)
    settings = network.settings
    assert settings.backbone is not None, 'it was built'
    return settings.backbone, network.backbone.state_dict(), settings


def _of_model(name: str) -> tuple[dict[str, Any], StateDict, Settings]:
    """A model of mmpretrain's index."""
    from mmpretrain.apis.model import ModelHub
    try:
        info = ModelHub.get(name)
    except ValueError as error:
        raise FileNotFoundError(
            f'there is no checkpoint {name}, nor a model of mmpretrain of that name '
            '(`mim search mmpretrain` lists them).') from error
    if not info.weights:
        raise ValueError(f'mmpretrain has no weights of {name}: choose another model.')
    config = info.config
    assert isinstance(config, Config)
    settings = Settings.of(config)
    content = CheckpointLoader.load_checkpoint(info.weights, map_location='cpu')
    cfg = {key: value for key, value in (settings.backbone or {}).items()
           if key not in ('init_cfg', '_scope_')}
    return cfg, backbone_of(weights_of(content, info.weights), info.weights), settings


def write_start(start: Start, cfg: dict[str, Any], folder: str | Path) -> Path:
    """Write the weights for a network of the plan's size of images.

    Args:
        start (Start): The weights.
        cfg (dict): Of the network that takes them; its position embedding may be of another size,
            to which it is interpolated.
        folder (str | Path): Of the training.

    Returns:
        Path: A checkpoint with names that begin with ``backbone.``, and every weight of the
        network.

    Raises:
        ValueError: If the network does not take them.
    """
    with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope('mmpretrain'):
        network = MODELS.build(dict(cfg))
    try:
        network.load_state_dict(dict(start.weights))
    except RuntimeError as error:
        raise ValueError(f'the network of {start.source} does not take its weights for the images '
                         f'of this training ({str(error).splitlines()[-1].strip()}): choose '
                         'another --image-size, or another network.') from error
    training = Config(dict(model=dict(backbone=dict(cfg), data_preprocessor=dict(
        mean=start.mean, std=start.std, to_rgb=start.to_rgb))))
    content = dict(
        state_dict={f'backbone.{name}': value for name, value in network.state_dict().items()},
        meta=dict(cfg=training.pretty_text, source=start.source))
    file = Path(folder) / START
    with replacing(file) as partial:
        torch.save(content, partial)
    return file
