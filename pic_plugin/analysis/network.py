# SPDX-License-Identifier: Apache-2.0
"""A backbone out of a checkpoint, with its normalisation: pictures in, pooled features out."""
from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger, print_log
from torch import Tensor, nn

from pic_plugin.engine.checkpoint.foreign_checkpoint import (
    StateDict,
    backbone_of,
    differing,
    find_checkpoint,
    read_checkpoint,
    resnet_depth,
    say_which,
    unwrap,
    weights_of,
)
from pic_plugin.models.pooling import pooled
from pic_plugin.transfer.config_text import dicts_of_training
from pic_plugin.transfer.export import (
    CLASSIFIER,
    backbone_config,
    build_backbone,
    exported_weights,
    read_training,
    take_every_weight,
)

RANDOM = 'random'
LUMA = (0.114, 0.587, 0.299)  # of B, G, R (ITU-R BT.601)
IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


class Settings(NamedTuple):
    """How to build a network.

    Attributes:
        backbone (dict | None): mmpretrain's config of it.
        preprocessor (dict | None): mmpretrain's config of the data preprocessor.
        training (Mapping): The config of its training, as far as it is known.
    """

    backbone: dict[str, Any] | None
    preprocessor: dict[str, Any] | None
    training: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def of(cls, training: Mapping[str, Any]) -> Settings:
        """From a config, whose data preprocessor is in ``model`` or beside it."""
        model = training.get('model') or {}
        own = model.get('data_preprocessor')
        return cls(model.get('backbone'),
                   own if own is not None else training.get('data_preprocessor'), training)

    @property
    def normalisation(self) -> tuple[Sequence[float] | None, Sequence[float] | None, bool]:
        """Mean and std of the channels as the backbone gets them, and whether it wants RGB.

        Of pixels from 0 to 255; None where they stay as they are.
        """
        given = self.preprocessor or {}
        # As mmpretrain's preprocessors, which leave BGR where nothing is said.
        return (given.get('mean'), given.get('std'),
                bool(given.get('to_rgb', given.get('bgr_to_rgb', False))))


def check_device(name: str | torch.device) -> torch.device:
    """The device, if torch can put something there.

    Raises:
        ValueError: If there is no such device on this machine, or it has no such name.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        if 'out of memory' in str(error):
            return torch.device(name)
        raise ValueError(f'torch cannot use the device {str(name)!r} '
                         f'({str(error).splitlines()[0].rstrip(".")}): give --device cpu, or leave '
                         'it out for the best that this machine has.') from error


class Network:
    """A backbone in evaluation mode.

    Args:
        backbone (nn.Module): Gives (B, C, H, W) maps, (B, T, C) tokens or (B, C) features, or a
            tuple that ends with them.
        settings (Settings, optional): How it was built. Defaults to None: nothing is known, and
            pixels stay as they are.
        device (str): Where it computes. Defaults to 'cpu'.

    Attributes:
        grey (Tensor): (C, 1, 1) what an occluded pixel is in normalised images: the mean colour.
    """

    def __init__(self,
                 backbone: nn.Module,
                 settings: Settings | None = None,
                 device: str = 'cpu') -> None:
        self.settings = settings or Settings(None, None)
        mean, std, self._to_rgb = self.settings.normalisation
        self.device = check_device(device)
        self.backbone = backbone.to(self.device)
        self.backbone.eval()  # some of mmpretrain's return nothing
        self._mean, self._std = (
            None if values is None else torch.tensor(values, device=self.device).view(-1, 1, 1)
            for values in (mean, std))
        self._channels = _image_channels(backbone, self.settings.backbone)
        self.grey = torch.full((self._channels, 1, 1), 127.5 if mean is None else 0.0,
                               device=self.device)

    def normalise(self, pictures: np.ndarray) -> Tensor:
        """(B, H, W, C), BGR if C is 3 -> (B, C, H, W) float32 on the network's device.

        A network of one channel takes colours as grey: their luma, as decoders do."""
        pixels = torch.from_numpy(np.ascontiguousarray(pictures)).to(self.device)
        pixels = pixels.permute(0, 3, 1, 2).float()
        if self._channels == 1 and pixels.shape[1] == 3:
            pixels = (pixels * pixels.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, True).round()
        elif self._to_rgb and pixels.shape[1] == 3:
            pixels = pixels.flip(1)
        if self._mean is not None:
            pixels = pixels - self._mean
        if self._std is not None:
            pixels = pixels / self._std
        return pixels.contiguous()

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, C) float32 pooled output of the backbone."""
        return pooled(self.backbone(images)).float()


def open_network(checkpoint: str | Path,
                 config: Config | None = None,
                 like: Settings | None = None,
                 device: str = 'cpu',
                 seed: int = 0) -> Network:
    """Build the backbone that a checkpoint holds.

    Args:
        checkpoint (str | Path): File, of PIC, of a classifier of mmpretrain, what extract_backbone
            wrote, or the bare weights of a ResNet; or a work folder, for its newest; or RANDOM for
            a network that was not trained.
        config (Config, optional): Of its training. Defaults to None: what the checkpoint says of
            it; if it says nothing, ``like`` where the weights fit, else a ResNet by its weights.
        like (Settings, optional): Of another network of which this may be a twin.
        device (str): Defaults to 'cpu'.
        seed (int): Of the weights of RANDOM. Defaults to 0.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a checkpoint, its network is unknown, or its weights do not fit.
    """
    if str(checkpoint) == RANDOM:
        settings = like if config is None else Settings.of(config)
        if settings is None or settings.backbone is None:
            raise ValueError(f'a {RANDOM} network needs a config that says which.')
        return Network(_random_backbone(settings, seed), settings, device)
    checkpoint = find_checkpoint(checkpoint)
    content = read_checkpoint(checkpoint)
    state = weights_of(content, checkpoint)
    say_which(content, checkpoint, averaged=False,
              advice='; those of a file that extract_backbone --ema made are the averages')
    weights = (exported_weights(content) or _bare_resnet(state)
               or backbone_of(state, checkpoint))
    own = Settings.of(
        dicts_of_training(content, 'model', 'data_preprocessor', 'train_dataloader'))
    if config is None:
        settings = own if own.backbone is not None else _settings_without(
            own, read_training(content), weights, like)
    else:
        settings = Settings.of(config)
        if own.backbone not in (None, settings.backbone):
            print_log(f'{checkpoint} was trained with another network than {config.filename} '
                      'says: its own is taken.', logger='current', level=logging.WARNING)
            settings = own
    cfg = backbone_config(dict(backbone=settings.backbone), weights)
    backbone = build_backbone(cfg)
    take_every_weight(backbone, weights, str(checkpoint))
    return Network(backbone, settings._replace(backbone=cfg), device)


def _image_channels(backbone: nn.Module, cfg: dict[str, Any] | None) -> int:
    """Channels of the images that a backbone takes: what its config says, or its first layer."""
    if cfg is not None and 'in_channels' in cfg:
        return int(cfg['in_channels'])
    first = next((module for module in backbone.modules() if isinstance(module, nn.Conv2d)), None)
    return 1 if first is not None and first.in_channels == 1 else 3


def _settings_without(own: Settings, saved: dict, weights: StateDict,
                      like: Settings | None) -> Settings:
    """Without a network in the config: those of a twin, or what extract_backbone wrote down."""
    if like is not None and like.backbone is not None:
        twin = build_backbone(backbone_config(dict(backbone=like.backbone), weights))
        if not differing(twin.state_dict(), weights):
            return like
    return own._replace(backbone=saved['backbone'],
                        preprocessor=saved['data_preprocessor'] or IMAGENET)


def _bare_resnet(state: StateDict) -> StateDict | None:
    """Weights of a ResNet saved by itself, as torchvision and timm do, without its classifier."""
    weights = {name: value for name, value in unwrap(state).items() if name not in CLASSIFIER}
    return weights if resnet_depth(weights) is not None else None


def _random_backbone(settings: Settings, seed: int) -> nn.Module:
    # mmengine logs a line for each weight.
    with quiet_log('WARNING'), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = build_backbone(backbone_config(settings._asdict(), {}))
        backbone.init_weights()  # type: ignore[operator]
    return backbone


@contextmanager
def quiet_log(level: str) -> Iterator[None]:
    """Keep what is below a level out of mmengine's log."""
    logger = MMLogger.get_current_instance()
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
