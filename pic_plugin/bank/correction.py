# SPDX-License-Identifier: Apache-2.0
"""Corrections: objects that know how an optimizer moves a class weight that has no gradient."""
from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from torch.optim import Optimizer

# Tensors of optimizers that hold squares, which half precision has to keep in another way.
SQUARES = ('exp_avg_sq',)
# Of Correction.decay, beyond which rows return as almost nothing. The authors' setting is at 2.4
# for the image that waits longest; from 7 on, norms were seen to leap to 40.
MAX_DECAY = 3.0


class Correction(ABC):
    """How one kind of optimizer moves a row in steps in which it has no gradient.

    In dense training a class outside the softmax still moves: momentum pushes it on and weight
    decay shrinks it (PIC paper, section on weight update correction). A stored row has missed these
    steps, and :meth:`advance` applies them when it returns. To support another optimizer, write one
    subclass, add it to ``CORRECTIONS`` in ``bank/corrections.py``, and compare it with the dense
    optimizer as tests/bank/test_dense_oracle.py does.

    Attributes:
        optimizers (tuple[str, ...]): Names of the optimizers that it is exact for.
        state_names (tuple[str, ...], optional): Tensors that the optimizer keeps for each row, in
            the order in which they are stored with it. None: as many as there are.
        corrects (bool): Whether rows are brought up to date at all.
    """

    optimizers: tuple[str, ...] = ()
    corrects = True
    state_names: tuple[str, ...] | None = ()

    @property
    def squares(self) -> list[int]:
        """Which tensors of a row (0: its weight, 1: the first state) hold squares."""
        return [i for i, name in enumerate(self.state_names or (), start=1) if name in SQUARES]

    @classmethod
    @abstractmethod
    def reason_against(cls, optimizer: Optimizer, group: dict[str, Any]) -> str | None:
        """Say why this is not what an optimizer does to rows without gradient; None if it is.

        Args:
            optimizer (Optimizer): That trains the class weights.
            group (dict): Its group with them.
        """

    @abstractmethod
    def before_step(self, group: dict[str, Any], state: dict[str, Any]) -> None:
        """Read the hyper-parameters of the step that the optimizer is about to take.

        Args:
            group (dict): The optimizer's group with the class weights.
            state (dict): What the optimizer keeps for them; empty before the first step.
        """

    @abstractmethod
    def after_step(self) -> None:
        """Record that step: it was really taken, and not skipped by a gradient scaler."""

    @abstractmethod
    def advance(self, rows: np.ndarray, since: np.ndarray) -> np.ndarray:
        """Bring rows up to date with the steps that they missed.

        Args:
            rows (np.ndarray): (R, 1 + S, d) float32: class weights, then the S states of each.
            since (np.ndarray): (R,) int64, optimizer steps that the rows are as of.

        Returns:
            np.ndarray: (R, 1 + S, d) float32, computed in float64 and rounded once.

        Raises:
            ValueError: If a step is negative or has not been taken yet.
        """

    @abstractmethod
    def decay(self, group: dict[str, Any], num_steps: float) -> float:
        """The e for which weight decay shrinks a row by exp(-e) in a number of steps."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of optimizer steps recorded."""

    @abstractmethod
    def state_dict(self) -> dict[str, np.ndarray]:
        """Arrays, first axis steps, from which :meth:`load_state_dict` continues bit for bit."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Continue from another correction's state.

        Raises:
            ValueError: If the arrays do not belong together.
        """


class NoCorrection(Correction):
    """Rows return as they left: the uncorrected sampling of the paper's Table 2.

    Also for a softmax over all instances, which has no absent rows.

    Args:
        state_names (tuple[str, ...], optional): Tensors that the optimizer keeps for each row.
            Defaults to None: as many as there are when the first row is stored.
    """

    corrects = False

    def __init__(self, state_names: tuple[str, ...] | None = None) -> None:
        self.state_names = state_names

    @classmethod
    def reason_against(cls, optimizer: Optimizer, group: dict[str, Any]) -> str | None:
        """Any optimizer will do."""
        return None

    def before_step(self, group: dict[str, Any], state: dict[str, Any]) -> None:
        """Nothing to read."""

    def after_step(self) -> None:
        """Nothing to record."""

    def advance(self, rows: np.ndarray, since: np.ndarray) -> np.ndarray:
        """The rows as they are."""
        return rows

    def decay(self, group: dict[str, Any], num_steps: float) -> float:
        """Rows outside the softmax do not decay."""
        return 0.0

    def __len__(self) -> int:
        return 0

    def state_dict(self) -> dict[str, np.ndarray]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Nothing to continue from."""
