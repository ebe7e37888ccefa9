# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint says of the bank: written by a run, and checked before any of it is believed.

``BankState`` is the entry ``pic_bank`` of a ``.pth``; the rows that it does not hold are in bank
files (see ``bank_files``).
"""
from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pic_plugin.bank import BankFileError, InstanceBank
from pic_plugin.bank.bank_file import Arrays

KEY = 'pic_bank'
TOKEN = re.compile(r'[0-9a-f]{12}')
ACTIVE_SET_ARRAYS = ('ids', 'stamps', 'active', 'free')
MAY_BE_ABSENT = ('active_set', 'head_states', 'instance_keys', 'last_visits')

@dataclasses.dataclass
class BankState:
    """The bank when a checkpoint was saved, without its rows.

    Attributes:
        num_instances (int): N.
        num_negatives (int, optional): K; None where the softmax runs over all N.
        num_slots (int): Rows of the head, those of all processes together.
        feat_dim (int): d.
        correct (bool): Whether stored rows are owed the steps that they miss.
        correction (str): Class of the correction.
        num_states (int, optional): Tensors that the optimizer keeps for a row; None before the
            first step.
        seed (int): Of the initial class weights.
        step (int): Optimizer steps taken.
        world_size (int): Processes that saved, each of which wrote a bank file.
        token (str): Of the save: it stands in the names and headers of its bank files.
        complete (bool): Whether a run can be continued: the optimizer's state was saved, too.
        optimizer (str): What trained the class weights.
        sampler_seed (int, optional): Of the data scheduler; None where it has none.
        active_set (dict, optional): Arrays of :meth:`ActiveSet.state_dict`; None where the softmax
            runs over all N.
        head_states (list[str], optional): Of a sharded head, whose rows are in the bank files: what
            the optimizer keeps for each. None where the ``.pth`` has the whole head.
        instance_keys (np.ndarray, optional): (N,) int64, of :func:`instance_keys`; None where
            images were known by their place alone.
        last_visits (np.ndarray, optional): (N,) int64, of :class:`LastVisits`; None where the run
            refreshed no rows.
    """

    num_instances: int
    num_negatives: int | None
    num_slots: int
    feat_dim: int
    correct: bool
    correction: str
    num_states: int | None
    seed: int
    step: int
    world_size: int
    token: str = ''
    complete: bool = False
    optimizer: str = ''
    sampler_seed: int | None = None
    active_set: Arrays | None = None
    head_states: list[str] | None = None
    instance_keys: np.ndarray | None = None
    last_visits: np.ndarray | None = None

    @classmethod
    def of(cls, bank: InstanceBank, **more: Any) -> BankState:
        """The state of a bank as it is now, and what else there is to say of a save.

        Its arrays are the bank's own, which go on to change: :meth:`to_dict` copies them.
        """
        active_set, correction = bank.active_set, bank.correction
        return cls(
            num_instances=bank.num_instances,
            num_negatives=None if active_set is None else active_set.num_negatives,
            num_slots=bank.slots.num_slots,
            feat_dim=bank.feat_dim,
            correct=correction.corrects,
            correction=type(correction).__name__,
            num_states=bank.stored.num_states,
            seed=bank.stored.seed,
            step=bank.step,
            world_size=bank.slots.processes.size,
            active_set=None if active_set is None else active_set.state_dict(),
            **more)

    @property
    def is_sharded(self) -> bool:
        """Whether the rows of the head are in the bank files."""
        return self.head_states is not None

    def file_header(self, rank: int) -> dict[str, Any]:
        """Plain values that tell a bank file from those of other saves, runs and processes."""
        names = [field.name for field in dataclasses.fields(self)
                 if field.default is dataclasses.MISSING]
        return dict({name: getattr(self, name) for name in names}, token=self.token, rank=rank)

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors, which ``torch.load(..., weights_only=True)`` reads."""
        state = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        # Copies of what the training goes on to change; the keys may be a billion.
        if self.active_set is not None:
            state['active_set'] = {name: torch.from_numpy(array.copy())
                                   for name, array in self.active_set.items()}
        if self.last_visits is not None:
            state['last_visits'] = torch.from_numpy(self.last_visits.copy())
        if self.instance_keys is not None:
            state['instance_keys'] = torch.from_numpy(self.instance_keys)
        return {name: value for name, value in state.items()
                if value is not None or name not in MAY_BE_ABSENT}

    @classmethod
    def from_dict(cls, state: Any) -> BankState:
        """Read an entry as it was loaded.

        Raises:
            ValueError: If a value is missing, of another kind or impossible. The token becomes part
                of a file's name, so it must be one.
        """
        check_bank_state(state)
        # Version 0.1.0 knew one correction and named neither that nor the optimizer.
        values: dict[str, Any] = dict(
            correction='SGDCorrection' if state['correct'] else 'NoCorrection', optimizer='')
        values.update((field.name, state[field.name]) for field in dataclasses.fields(cls)
                      if field.name in state)
        for name in ('instance_keys', 'last_visits'):
            if name in values:
                values[name] = values[name].cpu().numpy()
        if 'active_set' in values:
            values['active_set'] = {name: tensor.cpu().numpy()
                                    for name, tensor in values['active_set'].items()}
        return cls(**values)


# The lowest and the highest number that it may be, and whether it may be None.
_INTEGERS = dict(
    num_instances=(1, 2**62, False),
    num_negatives=(1, 2**62, True),
    num_slots=(0, 2**62, False),
    feat_dim=(1, 2**31, False),
    num_states=(0, 64, True),
    seed=(-2**63, 2**64, False),
    step=(0, 2**62, False),
    world_size=(1, 2**16, False),
    sampler_seed=(-2**63, 2**64, True))
_ADVICE = dict(
    num_negatives='Set PICHead(num_negatives=...) as it was; None goes on with a softmax over all '
    'instances if there are more of them now than num_negatives was.',
    feat_dim='Set feat_dim and the neck\'s out_channels as they were.',
    correct='Set PICHead(correct_weights=...) as it was.')


def check_bank_state(state: Any) -> None:
    """Refuse what no bank can have saved; see :meth:`BankState.from_dict`."""
    if not isinstance(state, dict):
        raise ValueError(f'its bank is a {type(state).__name__}')
    for name, (low, high, may_be_none) in _INTEGERS.items():
        value = state.get(name)
        if name not in state or not (
                may_be_none if value is None else type(value) is int and low <= value <= high):
            raise ValueError(f'its {name} is {_show(value)}')
    for name in ('correction', 'optimizer'):  # absent in version 0.1.0
        if not isinstance(state.get(name, ''), str):
            raise ValueError(f'its {name} is {_show(state[name])}')
    for name in ('correct', 'complete'):
        if type(state.get(name)) is not bool:
            raise ValueError(f'its {name} is {_show(state.get(name))}')
    token = state.get('token')
    if not isinstance(token, str) or not TOKEN.fullmatch(token):
        raise ValueError(f'its token is {_show(token)}')
    if 'instance_keys' in state:
        keys = state['instance_keys']
        if not (_is_array(keys, torch.int64) and len(keys) <= state['num_instances']):
            raise ValueError(f'its instance_keys are {_show(keys)}')
    if 'last_visits' in state:
        visits = state['last_visits']
        if not (_is_array(visits, torch.int64) and len(visits) == state['num_instances']
                and -1 <= int(visits.min()) and int(visits.max()) <= state['step']):
            raise ValueError(f'its last_visits are {_show(visits)}')
    names = state.get('head_states', [])
    if type(names) is not list or len(names) > 64 or not all(type(name) is str for name in names):
        raise ValueError(f'its head_states are {_show(names)}')
    if (state['num_negatives'] is None) != ('active_set' not in state):
        raise ValueError('it has an active set and no num_negatives, or the reverse')
    if 'active_set' in state:
        _check_active_set(state['active_set'], state)


def check_bank_header(path: Path, header: dict[str, Any], state: BankState) -> None:
    """Refuse a bank file that is not the one that its name and the checkpoint say.

    Raises:
        BankFileError: If it belongs to another save or another process.
    """
    own_end = f'.bank-{header.get("rank")}of{state.world_size}'
    if (header.get('token') != state.token or header.get('step') != state.step
            or not path.name.endswith(own_end)):
        raise BankFileError(f'{path} belongs to another checkpoint or process: copy the bank file '
                            'that was saved with this one beside it, under its own name.')


def check_same_run(saved: BankState, own: BankState) -> None:
    """Refuse the bank of a run that was set up in another way.

    Raises:
        ValueError: If they cannot go on from each other; the message says what to set.
    """
    for name, advice in _ADVICE.items():
        was, is_now = getattr(saved, name), getattr(own, name)
        if was != is_now:
            raise ValueError(
                f'this checkpoint cannot be resumed: it was saved with {name}={was} '
                f'and this run has {is_now}. {advice} The checkpoint is left as it is.')
    if saved.num_negatives is not None and saved.num_slots > own.num_slots:
        raise ValueError(
            f'this checkpoint cannot be resumed: it has {saved.num_slots} rows for active classes '
            f'and those that wait for an optimizer step, and this run has {own.num_slots}. '
            f'Set PICHead(pending_rows={saved.num_slots - saved.num_negatives}), room for gradient '
            'accumulation. The checkpoint is left as it is.')
    for was, is_now in ((saved.optimizer or own.optimizer, own.optimizer),
                        (saved.correction, own.correction)):
        if was != is_now:
            raise ValueError(
                f'this checkpoint cannot be resumed: its class weights were trained with {was} '
                f'and those of this run with {is_now}. Set the optimizer as it was, or start anew '
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
        raise ValueError('its active set has classes that are repeated or do not exist')
    if (active & ~held).any() or active.sum() > num_negatives or stamps.min(initial=0) < 0:
        raise ValueError('its active set contradicts itself')
    if not np.array_equal(np.sort(free), np.flatnonzero(~held)):
        raise ValueError('the free slots of its active set are not those without a class')


def _is_array(value: Any, dtype: torch.dtype) -> bool:
    return isinstance(value, Tensor) and value.dim() == 1 and value.dtype == dtype


def _show(value: Any) -> str:
    if isinstance(value, Tensor):
        return f'a tensor of {value.dtype}, shape {tuple(value.shape)}'
    text = repr(value)
    return text if len(text) < 60 else text[:60] + '...'
