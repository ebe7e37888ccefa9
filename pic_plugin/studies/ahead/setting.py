# SPDX-License-Identifier: Apache-2.0
"""One training: everything that its result depends on, in one record."""
from __future__ import annotations

import dataclasses
import json
from typing import Any

#: Forward passes that an image takes in one step, those without gradient included.
PASSES_PER_IMAGE = dict(pic=1, diet=1, simclr=2, mocov2=2, simsiam=2, barlow=2, swav=2, byol=4)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A training of one method.

    Attributes:
        method (str): A key of ``PASSES_PER_IMAGE``.
        data (str): Name of the images, see :mod:`.images`.
        images (int): N, the first images of the training set.
        passes (int): Forward passes of the whole training.
        seed (int): Of weights, order and augmentation.
        width (int): Channels of the first stage; 16 is a quarter of ResNet-18's.
        strides (tuple[int, ...]): Of the four stages.
        batch (int): Forward passes in one step.
        lr (float): Peak learning rate of the network.
        end (float): Where the cosine ends, as a share of the peak.
        momentum (float): Of SGD.
        weight_decay (float): Of all parameters.
        optimizer (str): Of all parameters: 'sgd' or 'adamw'.
        dim (int): Width of the projected features.
        hidden (int): Width of the projection's hidden layers.
        layers (int): Linear layers of the projection.
        temperature (float): Of the contrastive losses.
        window (float): Window, as a share of N; 0: plain epochs, which other methods than PIC want.
        visits (int): Visits of an image in its windows: window / stride.
        negatives (float): K as a share of N; 0: softmax over all instances.
        weight_lr (float): Learning rate of the class weights, as a share of the network's.
        weight_momentum (float): Of the class weights.
        weight_wd (float): Weight decay of the class weights, as a share of ``weight_decay``.
        refresh (float): Share by which a returning row is turned to the present feature.
        away (float): Absence after which an image counts as returning, in windows.
        smoothing (float): Label smoothing.
        ema (float): Momentum of the key or target network.
        queue (int): MoCo's queue, keys.
        prototypes (int): Of SwAV.
        redundancy (float): Weight of what is not on Barlow Twins' diagonal.
        half (bool): Whether the network computes in bfloat16.
        measure (bool): Whether rows and visits are measured (:mod:`.measures`).
    """

    method: str = 'pic'
    data: str = 'cifar10'
    images: int = 5000
    passes: int = 120000
    seed: int = 0
    width: int = 16
    strides: tuple = (2, 1, 2, 2)
    batch: int = 128
    lr: float = 0.06
    end: float = 0.33
    momentum: float = 0.9
    weight_decay: float = 5e-4
    optimizer: str = 'sgd'
    dim: int = 128
    hidden: int = 512
    layers: int = 2
    temperature: float = 0.1
    window: float = 0.2
    visits: int = 8
    negatives: float = 0.0
    weight_lr: float = 1.0
    weight_momentum: float = 0.9
    weight_wd: float = 1.0
    refresh: float = 0.0
    away: float = 2.0
    smoothing: float = 0.0
    ema: float = 0.99
    queue: int = 1024
    prototypes: int = 128
    redundancy: float = 0.005
    half: bool = False
    measure: bool = False

    def __post_init__(self) -> None:
        if self.method not in PASSES_PER_IMAGE:
            raise ValueError(f'method {self.method!r} is unknown: choose one of '
                             f'{", ".join(PASSES_PER_IMAGE)}.')
        if self.optimizer not in ('sgd', 'adamw'):
            raise ValueError(f"optimizer {self.optimizer!r} is unknown: choose 'sgd' or 'adamw'.")
        if self.batch % PASSES_PER_IMAGE[self.method]:
            raise ValueError(f'a batch of {self.batch} passes is no whole number of images: '
                             f'{self.method} takes {PASSES_PER_IMAGE[self.method]} passes each.')
        object.__setattr__(self, 'strides', tuple(self.strides))

    @property
    def step_images(self) -> int:
        """Images in one step."""
        return self.batch // PASSES_PER_IMAGE[self.method]

    @property
    def num_views(self) -> int:
        """Augmented views of an image in one step."""
        return min(PASSES_PER_IMAGE[self.method], 2)

    @property
    def steps(self) -> int:
        """Optimizer steps of the training."""
        return self.passes // self.batch

    @property
    def window_size(self) -> int:
        """Images in a window; 0: plain epochs."""
        return max(round(self.window * self.images), 1) if self.window else 0

    @property
    def num_negatives(self) -> int | None:
        """K, at least the images of a step; None: all instances."""
        count = max(round(self.negatives * self.images), self.step_images)
        return count if 0 < self.negatives and count < self.images else None

    def but(self, **changes: Any) -> Setting:
        """The same with changes."""
        return dataclasses.replace(self, **changes)

    def differences(self) -> dict:
        """What is not a default, for a result's record."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)
                if getattr(self, field.name) != field.default or field.name == 'method'}

    @property
    def key(self) -> str:
        """Text that two settings share if they are the same."""
        return json.dumps(self.differences(), sort_keys=True)
