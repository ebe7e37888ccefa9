# SPDX-License-Identifier: Apache-2.0
"""The bank's entry of a checkpoint, checked before any of it is believed."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pic_plugin.bank import BankFileError

TOKEN = re.compile(r'[0-9a-f]{12}')
MAX_RANKS = 2**16
ACTIVE_SET_ARRAYS = ('ids', 'stamps', 'active', 'free')


class _Range(NamedTuple):
    """Integers from ``low`` to ``high``; None too, where it may be missing."""

    low: int
    high: int
    may_be_none: bool = False

    def holds(self, value: Any) -> bool:
        if value is None:
            return self.may_be_none
        return type(value) is int and self.low <= value <= self.high


_INTEGERS: dict[str, _Range] = dict(
    num_instances=_Range(1, 2**62),
    num_negatives=_Range(1, 2**62, True),
    num_slots=_Range(0, 2**62),
    feat_dim=_Range(1, 2**31),
    num_states=_Range(0, 64, True),
    seed=_Range(-2**63, 2**64),
    step=_Range(0, 2**62),
    world_size=_Range(1, MAX_RANKS),
    sampler_seed=_Range(-2**63, 2**64, True),
)


_ADVICE = dict(
    num_negatives='Set PICHead(num_negatives=...) as it was; None goes on with a softmax over all '
    'instances if there are more of them now than num_negatives was.',
    num_slots='Set accumulative_counts, batch size and PICHead(pending_rows=...) as they were.',
    feat_dim='Set feat_dim and the neck\'s out_channels as they were.',
    correct='Set PICHead(correct_weights=...) as it was.')


def check_bank_state(state: Any) -> None:
    """Refuse what no bank can have saved.

    Args:
        state: Entry of a checkpoint, as it was loaded.

    Raises:
        ValueError: If a value is missing, of another kind or impossible. The token becomes part of
            a file's name, so it must be one.
    """
    if not isinstance(state, dict):
        raise ValueError(f'its bank is a {type(state).__name__}')
    for name, allowed in _INTEGERS.items():
        if name not in state or not allowed.holds(state[name]):
            raise ValueError(f'its {name} is {_show(state.get(name))}')
    for name in ('correction', 'optimizer'):  # absent in version 0.1.0
        if not isinstance(state.get(name, ''), str):
            raise ValueError(f'its {name} is {_show(state[name])}')
    for name in ('correct', 'complete'):
        if type(state.get(name)) is not bool:
            raise ValueError(f'its {name} is {_show(state.get(name))}')
    token = state.get('token')
    if not isinstance(token, str) or not TOKEN.fullmatch(token):
        raise ValueError(f'its token is {_show(token)}')
    keys = state.get('instance_keys')
    if keys is not None and not (_is_array(keys, torch.int64) and len(keys) <= (
            state['num_instances'])):
        raise ValueError(f'its instance_keys are {_show(keys)}')
    visits = state.get('last_visits')
    if visits is not None and not (
            _is_array(visits, torch.int64) and len(visits) == state['num_instances']
            and -1 <= int(visits.min()) and int(visits.max()) <= state['step']):
        raise ValueError(f'its last_visits are {_show(visits)}')
    names = state.get('head_states', [])
    if type(names) is not list or len(names) > 64 or not all(type(name) is str for name in names):
        raise ValueError(f'its head_states are {_show(names)}')
    if (state['num_negatives'] is None) != ('active_set' not in state):
        raise ValueError('it has an active set and no num_negatives, or the reverse')
    if 'active_set' in state:
        _check_active_set(state['active_set'], state)


def check_bank_header(path: Path, header: dict[str, Any], state: dict) -> None:
    """Refuse a bank file that is not the one that its name and the checkpoint say.

    Raises:
        BankFileError: If it belongs to another save or another process.
    """
    own_end = f'.bank-{header.get("rank")}of{state["world_size"]}'
    if (header.get('token') != state['token'] or header.get('step') != state['step']
            or not path.name.endswith(own_end)):
        raise BankFileError(f'{path} belongs to another checkpoint or process: copy the bank file '
                            'that was saved with this one beside it, under its own name.')


def check_same_run(state: dict, identity: dict[str, Any]) -> None:
    """Refuse the bank of a run that was set up in another way.

    Args:
        state (dict): What a checkpoint says of its bank.
        identity (dict): The same of this run's.

    Raises:
        ValueError: If they cannot go on from each other; the message says what to set.
    """
    for name, advice in _ADVICE.items():
        if name == 'num_slots' and identity['num_negatives'] is None:
            continue  # one for each image
        if state[name] != identity[name]:
            raise ValueError(
                f'this checkpoint cannot be resumed: it was saved with {name}={state[name]} '
                f'and this run has {identity[name]}. {advice} The checkpoint is left as it is.')
    # Version 0.1.0 knew one correction and named neither that nor the optimizer.
    corrections = (state.get('correction', 'SGDCorrection' if state['correct'] else 'NoCorrection'),
                   identity['correction'])
    optimizers = state.get('optimizer', identity['optimizer']), identity['optimizer']
    for saved, needed in (optimizers, corrections):
        if saved != needed:
            raise ValueError(
                f'this checkpoint cannot be resumed: its class weights were trained with {saved} '
                f'and those of this run with {needed}. Set the optimizer as it was, or start anew '
                'from the network with load_from=CHECKPOINT and resume=False.')


def _check_active_set(arrays: Any, state: dict) -> None:
    num_slots, num_negatives = state['num_slots'], state['num_negatives']
    if not isinstance(arrays, dict) or set(arrays) != set(ACTIVE_SET_ARRAYS):
        raise ValueError('its active set is incomplete')
    kinds: dict[str, tuple[torch.dtype, Any]] = dict(
        ids=(torch.int64, num_slots), stamps=(torch.int64, num_slots),
        active=(torch.bool, num_slots), free=(torch.int64, None))
    for name, (dtype, length) in kinds.items():
        if not _is_array(arrays[name], dtype) or length not in (None, len(arrays[name])):
            raise ValueError(f'{name} of its active set is {_show(arrays[name])}')
    ids, stamps, active, free = (arrays[name].cpu().numpy() for name in ACTIVE_SET_ARRAYS)
    held = ids >= 0
    if (ids.min(initial=-1) < -1 or ids.max(initial=-1) >= state['num_instances']
            or len(np.unique(ids[held])) < held.sum()):
        raise ValueError('its active set has classes that are repeated or are none')
    if (active & ~held).any() or active.sum() > num_negatives or stamps.min(initial=0) < 0:
        raise ValueError('its active set contradicts itself')
    if not np.array_equal(np.sort(free), np.flatnonzero(~held)):
        raise ValueError('the free slots of its active set are others than those without a class')


def _is_array(value: Any, dtype: torch.dtype) -> bool:
    return isinstance(value, Tensor) and value.dim() == 1 and value.dtype == dtype


def _show(value: Any) -> str:
    if isinstance(value, Tensor):
        return f'a tensor of {value.dtype}, shape {tuple(value.shape)}'
    text = repr(value)
    return text if len(text) < 60 else text[:60] + '...'
