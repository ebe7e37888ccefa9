# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with the bank beside them: written atomically, pruned together, resumed exactly."""
from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import mmengine.dist as dist
import numpy as np
import torch
from mmengine.runner import Runner

from pic_plugin.bank import BankFileError, InstanceBank, initial_rows, read_bank, write_bank
from pic_plugin.bank.row_store import Rows
from pic_plugin.engine.checkpoint.bank_state import (
    ACTIVE_SET_ARRAYS,
    check_bank_header,
    check_bank_state,
    check_same_run,
)
from pic_plugin.engine.checkpoint.checkpoint_file import (
    check_checkpoint_file,
    mend_last_checkpoint,
    publish,
)
from pic_plugin.engine.checkpoint.head_rows import HeadRows
from pic_plugin.engine.checkpoint.instance_keys import match_instances
from pic_plugin.engine.checkpoint.shard_checkpoint import STATES, ShardCheckpoint
from pic_plugin.engine.preflight import schedule_notices
from pic_plugin.engine.ranks import on_all_ranks

KEY = 'pic_bank'
_BANK_NAME = re.compile(
    r'(?P<stem>.+)\.(?P<token>[0-9a-f]{12})\.bank-\d+of\d+(?P<partial>\.partial)?')


class BankCheckpoint:
    """Saves a bank with the runner's checkpoints and restores it when the runner resumes.

    ``epoch_2.pth`` goes with ``epoch_2.TOKEN.bank-0of1``, one file for each process. The token is
    new for each save and stands in both, so a file of another save or run is never taken for it,
    and a checkpoint that is written again under its old name keeps its old bank until the new
    ``.pth`` is in place.

    Args:
        runner (Runner): The runner whose ``save_checkpoint`` and ``resume`` are taken over.
        bank (InstanceBank): The bank.
        head_rows (HeadRows): Where the rows in the soft-max are in a checkpoint.
        shards (ShardCheckpoint): Moves them between bank files and checkpoint where the head is
            sharded, or was when it was saved.
        keys (np.ndarray, optional): (N,) int64, of :func:`instance_keys`; None where images are
            known by their place alone.
    """

    def __init__(self, runner: Runner, bank: InstanceBank, head_rows: HeadRows,
                 shards: ShardCheckpoint, keys: Optional[np.ndarray]) -> None:
        self.runner = runner
        self.bank = bank
        self.head_rows, self.shards = head_rows, shards
        self.keys = keys
        self._new_ids: Optional[np.ndarray] = None  # of saved ids, where they have changed
        self.restored_sampler_seed: Optional[int] = None
        self._token: Optional[str] = None
        self._state: Optional[dict] = None
        self._resuming = False

    def take_over(self, on_resumed: Callable[[Runner], None]) -> None:
        """Wrap the runner's ``save_checkpoint`` and ``resume``.

        No hook point would do: those around saving run on the main process only and do not know
        the file's name, while each process has rows of its own to write beside that file.
        """
        save, resume = self.runner.save_checkpoint, self.runner.resume
        self._on_resumed = on_resumed
        self.runner.save_checkpoint = lambda *args, **kwargs: self._save(save, *args, **kwargs)
        self.runner.resume = lambda *args, **kwargs: self._resume(resume, *args, **kwargs)
        on_all_ranks(lambda: mend_last_checkpoint(self.runner) if dist.is_main_process() else None)

    def _save(self, save: Callable, out_dir: str, filename: str, *args: Any,
              save_optimizer: bool = True, **kwargs: Any) -> None:
        if re.match(r'\w+:', str(out_dir)) and not Path(out_dir).is_absolute():
            raise ValueError(f'checkpoints go to {out_dir}, but a bank is written beside them in '
                             'pieces: choose an out_dir on a (shared) file system.')
        folder = Path(out_dir)
        final = folder / filename
        if final.suffix != '.pth':
            raise ValueError(f'the checkpoint {filename} does not end in .pth, by which its bank '
                             'is known to be in use: choose filename_tmpl="..._{}.pth".')
        self._token = _agree(os.urandom(6).hex())
        # Without the optimizer's state (best checkpoints) no run can be continued exactly.
        with_rows = save_optimizer and (self.bank.is_sharded or not self.bank.is_full)
        if with_rows:
            on_all_ranks(lambda: self._write_rows(folder, final.stem))
        partial = f'{filename}.partial'

        def write() -> None:
            save(str(folder), partial, *args, save_optimizer=save_optimizer, **kwargs)
            if dist.is_main_process():
                publish(folder / partial, final)
                self._prune(folder, final.stem)

        try:
            on_all_ranks(write)
        except BaseException:
            (folder / partial).unlink(missing_ok=True)
            raise
        finally:
            self._token = None

    def _bank_path(self, folder: Path, stem: str, token: str, rank: int, world_size: int) -> Path:
        return folder / f'{stem}.{token}.bank-{rank}of{world_size}'

    def _write_rows(self, folder: Path, stem: str) -> None:
        bank = self.bank
        assert self._token is not None, 'set by _save'
        folder.mkdir(parents=True, exist_ok=True)
        path = self._bank_path(folder, stem, self._token, bank.rank, bank.world_size)
        write_bank(path, dict(self._identity(), token=self._token, rank=bank.rank),
                   bank.transitions.state_dict(), self._own_rows(), bank.dtype,
                   self.shards.rows() if bank.is_sharded else ())

    def _own_rows(self) -> Iterator[Rows]:
        if self.bank.store is not None:
            for rows, steps, values in self.bank.store.written():
                yield rows * self.bank.world_size + self.bank.rank, steps, values

    def _identity(self) -> Dict[str, Any]:
        bank = self.bank
        return dict(
            num_instances=bank.num_instances,
            num_negatives=None if bank.active_set is None else bank.active_set.num_negatives,
            num_slots=bank.num_slots,
            feat_dim=bank.feat_dim,
            correct=bank.correct,
            num_states=bank.num_states,
            seed=bank.seed,
            step=bank.step,
            world_size=bank.world_size)

    def _prune(self, folder: Path, stem: str) -> None:
        """Remove bank files whose checkpoint is gone or has been written again since."""
        for path in folder.glob('*.bank-*of*'):
            match = _BANK_NAME.fullmatch(path.name)
            if match and (match['partial'] or not (folder / f'{match["stem"]}.pth').exists()
                          or (match['stem'] == stem and match['token'] != self._token)):
                path.unlink(missing_ok=True)

    def add_state(self, checkpoint: dict) -> None:
        """Put into a checkpoint what belongs to the bank and is small.

        Raises:
            RuntimeError: If the checkpoint is saved past the runner's ``save_checkpoint``.
        """
        if self._token is None:
            raise RuntimeError('save with runner.save_checkpoint, called in all processes: it '
                               'writes the bank of class weights beside the checkpoint.')
        state = dict(
            self._identity(),
            token=self._token,
            complete='optimizer' in checkpoint,
            sampler_seed=getattr(self.runner.train_dataloader.sampler, 'seed', None))
        if self.bank.is_sharded:
            state[STATES] = self.shards.strip(checkpoint)
        if self.keys is not None:
            state['instance_keys'] = torch.from_numpy(self.keys)
        if self.bank.active_set is not None:
            state['active_set'] = {
                name: torch.from_numpy(array.copy())
                for name, array in self.bank.active_set.state_dict().items()
            }
        checkpoint[KEY] = state

    def check_state(self, checkpoint: dict) -> None:
        """While resuming: refuse a checkpoint that this run cannot continue.

        Raises:
            ValueError: If it has no bank or one of another shape. Nothing has been loaded then.
        """
        if not self._resuming:
            return
        state = checkpoint.get(KEY)
        if not isinstance(state, dict) or not state.get('complete'):
            raise ValueError(
                'this checkpoint cannot be resumed: it was saved without an InstanceBankHook or '
                'without the state of the optimizer. Start from its network alone with '
                'load_from=CHECKPOINT and resume=False, or resume from another one.')
        try:
            check_bank_state(state)
        except ValueError as error:
            raise ValueError(f'this checkpoint cannot be resumed: {error}, which no run has saved. '
                             'It is damaged, or not of this plugin: resume from another one.'
                             ) from error
        check_same_run(state, self._identity())
        self._match_images(checkpoint, state)
        for notice in schedule_notices(self.runner, checkpoint.get('meta', {})):
            self.runner.logger.warning(notice)
        if self._by_slots(state):
            on_all_ranks(lambda: self.shards.fill(
                checkpoint, state, self._saved_paths(self._filename, state), self._new_ids))
        self._state = state

    def _by_slots(self, state: dict) -> bool:
        """Whether the rows in the soft-max have to be picked for the slots that are held here."""
        return self.bank.is_sharded or STATES in state

    def _match_images(self, checkpoint: dict, state: dict) -> None:
        """Find the saved run's images in a data set that may have grown since."""
        bank, num_saved = self.bank, state['num_instances']
        keys = state.get('instance_keys')
        try:
            self._new_ids = match_instances(None if keys is None else keys.cpu().numpy(), num_saved,
                                            self.keys, bank.num_instances)
        except ValueError as error:
            raise ValueError(f'this checkpoint cannot be resumed: {error} The checkpoint is left '
                             'as it is.') from error
        if self._new_ids is None and num_saved == bank.num_instances:
            return
        moved = 0 if self._new_ids is None else int(
            (self._new_ids != np.arange(num_saved)).sum())
        self.runner.logger.warning(
            f'The data set has changed since the checkpoint was saved: {num_saved} instances then, '
            f'{bank.num_instances} now. {moved} images have another place in it, and their class '
            'weights go with them; new images start as any that was never visited.')
        if bank.is_full and not self._by_slots(state):
            new_places = torch.from_numpy(
                np.arange(num_saved) if self._new_ids is None else self._new_ids)
            rows = initial_rows(np.arange(bank.num_instances), bank.feat_dim, state['seed'])
            self.head_rows.move(checkpoint, new_places, torch.from_numpy(rows))

    def _resume(self, resume: Callable, filename: str, *args: Any, **kwargs: Any) -> None:
        on_all_ranks(lambda: check_checkpoint_file(filename))
        self._resuming = True
        self._filename = Path(filename)
        try:
            resume(filename, *args, **kwargs)
        finally:
            self._resuming = False
        state = self._state
        assert state is not None, 'check_state has been called while loading'
        on_all_ranks(lambda: self._restore(Path(filename), state))
        self._on_resumed(self.runner)

    def _restore(self, checkpoint: Path, state: dict) -> None:
        bank = self.bank
        bank.seed, bank.step = state['seed'], state['step']
        if bank.num_states is None:
            bank.num_states = state['num_states']
        self.restored_sampler_seed = state['sampler_seed']
        if bank.active_set is None:
            return
        arrays = {name: state['active_set'][name].cpu().numpy().copy()
                  for name in ACTIVE_SET_ARRAYS}
        held = arrays['ids'] >= 0
        arrays['ids'][held] = self._renumber(arrays['ids'][held])
        bank.active_set.load_state_dict(arrays)
        for path in self._saved_paths(checkpoint, state):
            self._read_rows(path, state)

    def _saved_paths(self, checkpoint: Path, state: dict) -> Iterator[Path]:
        """Bank files that have rows of this process: its own, or all if owners have changed."""
        saved_world = state['world_size']
        sharding_changed = self.bank.is_sharded != (STATES in state)
        same = (saved_world == self.bank.world_size and self._new_ids is None
                and not sharding_changed)
        for rank in range(saved_world):
            if not same or rank == self.bank.rank:
                yield self._bank_path(checkpoint.parent, checkpoint.stem, state['token'], rank,
                                      saved_world)

    def _renumber(self, ids: np.ndarray) -> np.ndarray:
        return ids if self._new_ids is None else self._new_ids[ids]

    def _read_rows(self, path: Path, state: dict) -> None:
        transitions: Dict[str, List[np.ndarray]] = {}
        for kind, values, arrays in read_bank(path):
            if kind == 'header':
                check_bank_header(path, values, state)
            if kind == 'transitions':
                transitions.setdefault(values['name'], []).append(arrays['products'])
            if kind == 'rows':
                if ((arrays['ids'] < 0) | (arrays['ids'] >= state['num_instances'])).any():
                    raise BankFileError(f'{path} holds ids that are none of its run\'s '
                                        f'{state["num_instances"]} instances: resume from another '
                                        'checkpoint.')
                ids = self._renumber(arrays['ids'])
                own = ids % self.bank.world_size == self.bank.rank
                if own.any():
                    self.bank.put(ids[own], arrays['steps'][own], arrays['values'][own])
        self.bank.transitions.load_state_dict(
            {name: np.concatenate(parts) for name, parts in transitions.items()})


def _agree(value: Any) -> Any:
    """The main process's value, in all processes."""
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]
