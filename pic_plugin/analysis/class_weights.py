# SPDX-License-Identifier: Apache-2.0
"""Class weights of all instances out of a checkpoint and the bank files beside it."""
from __future__ import annotations

import math
from pathlib import Path
from typing import Dict, List

import numpy as np
import torch
from torch import Tensor

from pic_plugin.bank import InstanceBank, read_bank
from pic_plugin.engine.checkpoint.foreign_checkpoint import read_checkpoint, state_dict_of, unwrap
from pic_plugin.engine.checkpoint.shard_checkpoint import STATES

KEY = 'pic_bank'


def read_class_weights(checkpoint: Path) -> Tensor:
    """The rows that dense training would hold, (N, d) float32, row i of training image i.

    Args:
        checkpoint (Path): Of PIC pre-training; ``*.bank-*`` files are looked for beside it.

    Raises:
        BankFileError: If a bank file is missing or damaged.
        FileNotFoundError: If there is no checkpoint.
        ValueError: If it has no class weights, or not all.
    """
    checkpoint = Path(checkpoint)
    content = read_checkpoint(checkpoint)
    weight = unwrap(state_dict_of(content, checkpoint)).get('head.weight')
    state = content.get(KEY)
    sharded = isinstance(state, dict) and STATES in state
    if not isinstance(state, dict) or (weight is None and not sharded):
        raise ValueError(f'{checkpoint} has no class weights: give a checkpoint that PIC '
                         'pre-training wrote with InstanceBankHook.')
    count = state['num_instances']
    bank = InstanceBank(count, state['num_negatives'], state['num_slots'], state['feat_dim'],
                        state['seed'], state['correct'], state['num_states'])
    bank.step = state['step']
    if sharded:
        # Rows of the softmax that no bank file has stand out.
        weight = torch.full((count if bank.is_full else bank.num_slots, bank.feat_dim), math.nan)
    assert weight is not None
    if bank.active_set is not None:
        bank.active_set.load_state_dict(
            {name: array.cpu().numpy().copy() for name, array in state['active_set'].items()})
    if sharded or bank.active_set is not None:
        for rank in range(state['world_size']):
            _read_rows(bank, weight, checkpoint.with_name(
                f'{checkpoint.stem}.{state["token"]}.bank-{rank}of{state["world_size"]}'))
    if bank.is_full and len(weight) < count:
        raise ValueError(f'{checkpoint} has {len(weight)} of {count} class weights.')
    if weight.isnan().any():
        raise ValueError(f'class weights of {checkpoint} are NaN, or in none of its bank files.')
    return torch.cat([bank.class_weights(ids, weight).float()
                      for ids in np.array_split(np.arange(count), -(-count // 65536))])


def _read_rows(bank: InstanceBank, weight: Tensor, path: Path) -> None:
    transitions: Dict[str, List[np.ndarray]] = {}
    for kind, values, arrays in read_bank(path):
        if kind == 'transitions':
            transitions.setdefault(values['name'], []).append(arrays['products'])
        if kind == 'rows':
            bank.put(arrays['ids'], arrays['steps'], arrays['values'])
        if kind == 'head':
            # Each row, and what the optimizer keeps for it.
            weight[torch.from_numpy(arrays['slots'].copy())] = torch.from_numpy(
                arrays['values'][:, 0].copy())
    bank.transitions.load_state_dict(
        {name: np.concatenate(parts) for name, parts in transitions.items()})
