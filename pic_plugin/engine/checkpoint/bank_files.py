# SPDX-License-Identifier: Apache-2.0
"""The bank files beside a checkpoint: their names, one function that writes one, one that reads.

Resuming, other numbers of processes, sharded heads and the analysis of class weights all read here,
so that none of them skips a check.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pic_plugin.bank import BankFileError, InstanceBank, read_bank, write_bank
from pic_plugin.bank.bank_file import Arrays

from .bank_state import BankState, check_bank_header

ADVICE = ('copy the bank files that were saved with this checkpoint beside it, or resume from '
          'another one.')


def bank_path(checkpoint: Path, token: str, rank: int, world_size: int) -> Path:
    """``epoch_2.pth`` goes with ``epoch_2.TOKEN.bank-0of1``, one file for each process."""
    return checkpoint.with_name(f'{checkpoint.stem}.{token}.bank-{rank}of{world_size}')


def bank_paths(checkpoint: Path, state: BankState) -> list[Path]:
    """Bank files of all processes that saved a checkpoint, by rank."""
    return [bank_path(checkpoint, state.token, rank, state.world_size)
            for rank in range(state.world_size)]


def write_bank_file(path: Path, bank: InstanceBank, token: str,
                    head: Iterable[tuple[np.ndarray, np.ndarray]] = ()) -> None:
    """Write the rows that this process stores, and what they are owed.

    Args:
        path (Path): Of :func:`bank_path`.
        bank (InstanceBank): Of the training.
        token (str): Of this save.
        head (Iterable): Chunks of slots (R,) and values (R, 1 + states, d): rows of a sharded head.

    Raises:
        OSError: If the file cannot be written. Nothing is left behind then.
    """
    header = BankState.of(bank, token=token).file_header(bank.slots.processes.rank)
    write_bank(path, header, bank.correction.state_dict(), _stored_rows(bank),
               bank.stored.storage.dtype, bank.correction.squares, head)


def _stored_rows(bank: InstanceBank) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    if bank.store is not None:
        processes = bank.slots.processes
        for rows, steps, values in bank.store.written():
            yield rows * processes.size + processes.rank, steps, values


def read_bank_files(paths: Iterable[Path],
                    state: BankState) -> Iterator[tuple[str, dict[str, Any], Arrays]]:
    """Sections of the bank files of a checkpoint, each one checked.

    Args:
        paths (Iterable[Path]): Some or all of :func:`bank_paths`.
        state (BankState): Of the checkpoint.

    Yields:
        tuple: Kind ('transitions', 'rows', 'head' and, after those of a file, 'end'), plain values
        and arrays.

    Raises:
        BankFileError: If a file is missing, damaged, or of another checkpoint, run or process.
    """
    for path in paths:
        checked = False
        for kind, values, arrays in read_bank(path):
            if kind == 'header':
                check_bank_header(path, values, state)
                checked = True
                continue
            if not checked:
                raise BankFileError(f'{path} does not say which checkpoint it belongs to: {ADVICE}')
            if kind == 'rows' and _outside(arrays['ids'], state.num_instances):
                raise BankFileError(f"{path} holds ids outside of its run's "
                                    f'{state.num_instances} instances: {ADVICE}')
            num_slots = state.num_instances if state.active_set is None else state.num_slots
            if kind == 'head' and _outside(arrays['slots'], num_slots):
                raise BankFileError(f'{path} has rows for slots that do not exist: {ADVICE}')
            yield kind, values, arrays
        yield 'end', {}, {}


def restore_bank(bank: InstanceBank, state: BankState, paths: Iterable[Path],
                 new_ids: np.ndarray | None = None,
                 on_head: Callable[[np.ndarray, np.ndarray], None] | None = None) -> None:
    """Bring a bank to where it was when a checkpoint was saved.

    Args:
        bank (InstanceBank): With nothing in it.
        state (BankState): Of the checkpoint.
        paths (Iterable[Path]): Bank files that may have rows of this process.
        new_ids (np.ndarray, optional): (N,) int64, ids in this run of saved ids, where they have
            changed. Defaults to None.
        on_head (Callable, optional): Called with slots (R,) and values (R, 1 + states, d) of the
            rows of a sharded head. Defaults to None: they are passed over.

    Raises:
        BankFileError: See :func:`read_bank_files`.
    """

    def renumber(ids: np.ndarray) -> np.ndarray:
        return ids if new_ids is None else new_ids[ids]

    bank.stored.seed, bank.step = state.seed, state.step
    if bank.stored.num_states is None:
        bank.stored.num_states = state.num_states
    if bank.active_set is not None:
        assert state.active_set is not None, 'both have the same num_negatives'
        ids = state.active_set['ids'].copy()
        ids[ids >= 0] = renumber(ids[ids >= 0])
        bank.active_set.load_state_dict(dict(state.active_set, ids=ids))
    steps: dict[str, list[np.ndarray]] = {}
    for kind, values, arrays in read_bank_files(paths, state):
        if kind == 'transitions':
            steps.setdefault(values['name'], []).append(arrays['products'])
        if kind == 'rows':
            shape = (1 + (bank.stored.num_states or 0), bank.feat_dim)
            if arrays['values'].shape[1:] != shape:
                raise BankFileError(f"rows of shape {arrays['values'].shape[1:]} were saved where "
                                    f'{shape} fit: {ADVICE}')
            ids = renumber(arrays['ids'])
            own = bank.slots.owns(ids)
            if own.any():
                bank.stored.put(ids[own], arrays['steps'][own], arrays['values'][own])
        if kind == 'head' and on_head is not None:
            on_head(arrays['slots'], arrays['values'])
        if kind == 'end':
            _restore_correction(bank, {name: np.concatenate(parts)
                                       for name, parts in steps.items()})
            steps = {}


def _restore_correction(bank: InstanceBank, state: Arrays) -> None:
    try:
        bank.correction.load_state_dict(state)
    except (ValueError, KeyError) as error:
        raise BankFileError(f'the optimizer steps in a bank file do not belong together ({error}): '
                            f'{ADVICE}') from error
    if bank.correction.corrects and len(bank.correction) != bank.step:
        raise BankFileError(f'a bank file knows {len(bank.correction)} of the {bank.step} steps '
                            f'of its checkpoint: {ADVICE}')


def _outside(numbers: np.ndarray, count: int) -> bool:
    return bool(((numbers < 0) | (numbers >= count)).any())
