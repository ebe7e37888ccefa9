# SPDX-License-Identifier: Apache-2.0
"""Class weights of all instances out of a checkpoint and the bank files beside it."""
from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pic_plugin.bank import InstanceBank, NoCorrection, Slots
from pic_plugin.bank.corrections import correction_named
from pic_plugin.engine.checkpoint.bank_files import bank_paths, restore_bank
from pic_plugin.engine.checkpoint.bank_state import KEY, BankState
from pic_plugin.engine.checkpoint.foreign_checkpoint import (
    find_checkpoint,
    read_checkpoint,
    unwrap,
    weights_of,
)


def read_class_weights(checkpoint: Path) -> Tensor:
    """The rows that dense training would hold, (N, d) float32, row i of training image i.

    Args:
        checkpoint (Path): Of PIC pre-training, or its work folder; ``*.bank-*`` files are looked
            for beside it.

    Raises:
        BankFileError: If a bank file is missing, damaged or of another checkpoint.
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it has no class weights, or not all.
    """
    checkpoint = find_checkpoint(checkpoint)
    content = read_checkpoint(checkpoint)
    weight = unwrap(weights_of(content, checkpoint), ema=False).get('head.weight')
    missing = (f'{checkpoint} has no class weights: give a checkpoint that PIC pre-training wrote '
               'with InstanceBankHook.')
    if KEY not in content:
        raise ValueError(missing)
    try:
        state = BankState.from_dict(content[KEY])
    except ValueError as error:
        raise ValueError(f'{checkpoint} is damaged, or not of this plugin: {error}.') from error
    count = state.num_instances
    correction = correction_named(state.correction) if state.correct else NoCorrection()
    bank = InstanceBank(count, state.num_negatives, Slots(state.num_slots), state.feat_dim,
                        state.seed, correction)
    if state.is_sharded:
        # Rows of the softmax that no bank file has stand out.
        weight = torch.full((count if bank.is_full else state.num_slots, bank.feat_dim), math.nan)
    if weight is None:
        raise ValueError(missing)

    def take(slots: np.ndarray, values: np.ndarray) -> None:
        # Of each row without what the optimizer keeps for it.
        weight[torch.from_numpy(slots.copy())] = torch.from_numpy(values[:, 0].copy()).to(weight)

    paths = bank_paths(checkpoint, state) if state.is_sharded or not bank.is_full else []
    restore_bank(bank, state, paths, on_head=take)
    if bank.is_full and len(weight) < count:
        raise ValueError(f'{checkpoint} has {len(weight)} of {count} class weights.')
    if weight.isnan().any():
        raise ValueError(f'class weights of {checkpoint} are NaN, or in none of its bank files.')
    return torch.cat([bank.class_weights(ids, weight).float()
                      for ids in np.array_split(np.arange(count), -(-count // 65536))])
