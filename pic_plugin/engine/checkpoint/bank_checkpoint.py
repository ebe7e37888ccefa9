# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with the bank beside them: written atomically, pruned together, resumed exactly."""
from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmengine.dist as dist
import numpy as np
import torch
from mmengine.runner import Runner
from torch import nn

from pic_plugin.bank import SampledClassWeights, initial_rows
from pic_plugin.engine.ranks import agree, on_all_ranks
from pic_plugin.engine.runner_private import wrap_method

from .bank_files import bank_path, bank_paths, identity_of, restore_bank, write_bank_file
from .bank_state import check_bank_state, check_same_run
from .checkpoint_file import check_checkpoint_file, mend_last_checkpoint, publish
from .head_rows import HeadRows
from .instance_keys import match_instances
from .schedules import schedule_notices
from .shard_checkpoint import STATES, ShardCheckpoint

KEY = 'pic_bank'
_BANK_NAME = re.compile(
    r'(?P<stem>.+)\.(?P<token>[0-9a-f]{12})\.bank-\d+of\d+(?P<partial>\.partial)?')


class BankCheckpoint:
    """Saves a bank with the runner's checkpoints and restores it when the runner resumes.

    A checkpoint is a ``.pth`` and one bank file beside it for each process (see ``bank_files``). A
    token is new for each save and stands in both, so a file of another save or run is never taken
    for it, and a checkpoint that is written again under its old name keeps its old bank until the
    new ``.pth`` is in place. Under ``pic_bank`` the ``.pth`` has what ``bank_state`` lists.

    Args:
        runner (Runner): The runner whose ``save_checkpoint`` and ``resume`` are taken over.
        class_weights (SampledClassWeights): Of the training.
        model (nn.Module): Without its distributed wrapper.
        keys (np.ndarray, optional): (N,) int64, of :func:`instance_keys`; None where images are
            known by their place alone.
    """

    def __init__(self, runner: Runner, class_weights: SampledClassWeights, model: nn.Module,
                 keys: np.ndarray | None) -> None:
        self.runner = runner
        self.class_weights = class_weights
        self.bank = class_weights.bank
        self.optimizer = type(class_weights.optimizer).__name__
        if hasattr(runner.optim_wrapper, 'items'):
            self.optimizer += " beside the network's optimizer"
        self.head_rows = HeadRows(model, class_weights.weight, class_weights.optimizer)
        self.shards = ShardCheckpoint(class_weights, self.head_rows)
        self.keys = keys
        self._new_ids: np.ndarray | None = None  # of saved ids, where they have changed
        self.restored_sampler_seed: int | None = None
        self._token: str | None = None
        self._state: dict | None = None
        self._resumed_from: Path | None = None  # set while resuming

    def take_over(self, on_resumed: Callable[[Runner], None]) -> None:
        """Wrap the runner's ``save_checkpoint`` and ``resume``.

        No hook point would do: those around saving run on the main process only and do not know
        the file's name, while each process has rows of its own to write beside that file.
        """
        self._on_resumed = on_resumed
        wrap_method(self.runner, 'save_checkpoint', self._save)
        wrap_method(self.runner, 'resume', self._resume)
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
        self._token = agree(os.urandom(6).hex())
        # Without the optimizer's state (best checkpoints) no run can be continued exactly.
        if save_optimizer and (self.bank.slots.is_sharded or not self.bank.is_full):
            on_all_ranks(lambda: self._write_bank(final))
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

    def _write_bank(self, checkpoint: Path) -> None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        assert self._token is not None, 'set by _save'
        processes = self.bank.slots.processes
        path = bank_path(checkpoint, self._token, processes.rank, processes.size)
        write_bank_file(path, self.bank, self._token,
                        self.shards.rows() if self.bank.slots.is_sharded else ())

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
            identity_of(self.bank),
            token=self._token,
            complete='optimizer' in checkpoint,
            optimizer=self.optimizer,
            sampler_seed=getattr(self.runner.train_dataloader.sampler, 'seed', None))
        if self.bank.slots.is_sharded:
            state[STATES] = self.shards.strip(checkpoint)
        if self.keys is not None:
            state['instance_keys'] = torch.from_numpy(self.keys)
        if self.class_weights.last_visits is not None:
            state['last_visits'] = torch.from_numpy(self.class_weights.last_visits.steps.copy())
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
        if self._resumed_from is None:
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
        check_same_run(state, dict(identity_of(self.bank), optimizer=self.optimizer))
        self._match_images(checkpoint, state)
        for notice in schedule_notices(self.runner, checkpoint):
            self.runner.logger.warning(notice)
        if self._by_slots(state):
            paths = self._paths(self._resumed_from, state)
            on_all_ranks(lambda: self.shards.fill(checkpoint, state, paths, self._new_ids))
        self._state = state

    def _by_slots(self, state: dict) -> bool:
        """Whether the rows in the softmax have to be picked for the slots that are held here."""
        return self.bank.slots.is_sharded or STATES in state

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
        checkpoint = self._resumed_from = Path(filename)
        try:
            resume(filename, *args, **kwargs)
        finally:
            self._resumed_from = None
        state = self._state
        assert state is not None, 'check_state has been called while loading'
        paths = [] if self.bank.is_full else self._paths(checkpoint, state)
        on_all_ranks(lambda: restore_bank(self.bank, state, paths, self._new_ids))
        saved, visits = state.get('last_visits'), self.class_weights.last_visits
        # A run that did not refresh rows has not recorded visits: all images then count as new.
        if saved is not None and visits is not None:
            ids = slice(0, len(saved)) if self._new_ids is None else self._new_ids
            visits.steps[ids] = saved.cpu().numpy()
        self.restored_sampler_seed = state['sampler_seed']
        self._on_resumed(self.runner)

    def _paths(self, checkpoint: Path, state: dict) -> list[Path]:
        """Bank files that have rows of this process: its own, or all if owners have changed."""
        paths, processes = bank_paths(checkpoint, state), self.bank.slots.processes
        same = (len(paths) == processes.size and self._new_ids is None
                and self.bank.slots.is_sharded == (STATES in state))
        return [paths[processes.rank]] if same else paths
