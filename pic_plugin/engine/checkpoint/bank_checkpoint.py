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
from mmengine.runner import Runner
from torch import nn

from pic_plugin.bank import SampledClassWeights
from pic_plugin.engine.ranks import agree, on_all_ranks
from pic_plugin.engine.runner_private import reseed_loader, resume_on_host, wrap_method
from pic_plugin.models.loss_check import refuse_to_save

from .bank_files import bank_path, bank_paths, restore_bank, write_bank_file
from .bank_state import KEY, BankState, check_same_run
from .checkpoint_file import check_checkpoint_file, mend_last_checkpoint, publish
from .head_rows import HeadRows
from .instance_keys import match_instances
from .resumed_network import check_network
from .schedules import schedule_notices

_BANK_NAME = re.compile(
    r'(?P<stem>.+)\.(?P<token>[0-9a-f]{12})\.bank-\d+of\d+(?P<partial>\.partial)?')


class BankCheckpoint:
    """Saves a bank with the runner's checkpoints and restores it when the runner resumes.

    A checkpoint is a ``.pth`` and one bank file beside it for each process (see ``bank_files``). A
    token is new for each save and stands in both, so a file of another save or run is never taken
    for it, and a checkpoint that is written again under its old name keeps its old bank until the
    new ``.pth`` is in place. Under ``pic_bank`` the ``.pth`` has a :class:`BankState`.

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
        self.model = model
        self.head_rows = HeadRows(model, class_weights)
        self.keys = keys
        self._new_ids: np.ndarray | None = None  # of saved ids, where they have changed
        self.restored = False  # whether the run goes on from a checkpoint
        self._token: str | None = None
        self._state: BankState | None = None
        self._resumed_from: Path | None = None  # set while resuming

    def take_over(self) -> None:
        """Wrap the runner's ``save_checkpoint`` and ``resume``.

        No hook point would do: those around saving run on the main process only and do not know
        the file's name, while each process has rows of its own to write beside that file.
        """
        resume_on_host(self.runner)
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
        on_all_ranks(lambda: refuse_to_save(self.model))
        self._token = agree(os.urandom(6).hex())
        # Without the optimizer's state (best checkpoints) no run can be continued exactly.
        if save_optimizer and (self.head_rows.are_in_bank_files or not self.bank.is_full):
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
        write_bank_file(path, self.bank, self._token, self.head_rows.chunks())

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
        visits = self.class_weights.last_visits
        checkpoint[KEY] = BankState.of(
            self.bank,
            token=self._token,
            complete='optimizer' in checkpoint,
            optimizer=self.optimizer,
            sampler_seed=getattr(self.runner.train_dataloader.sampler, 'seed', None),
            head_states=self.head_rows.take_out(checkpoint),
            instance_keys=self.keys,
            last_visits=None if visits is None else visits.steps).to_dict()

    def check_state(self, checkpoint: dict) -> None:
        """Before loading: refuse to resume what this run cannot continue.

        A training that starts from the checkpoint takes no class weights from it.

        Raises:
            ValueError: If it has no bank or one of another shape. Nothing has been loaded then.
        """
        if self._resumed_from is None:
            if not self.runner.iter:
                self.head_rows.start_anew(checkpoint)
            return
        entry = checkpoint.get(KEY)
        if not isinstance(entry, dict) or not entry.get('complete'):
            raise ValueError(
                'this checkpoint cannot be resumed: it was saved without an InstanceBankHook or '
                'without the state of the optimizer. Start from its network alone with '
                'load_from=CHECKPOINT and resume=False, or resume from another one.')
        try:
            state = BankState.from_dict(entry)
        except ValueError as error:
            raise ValueError(f'this checkpoint cannot be resumed: {error}, which no run saves. '
                             'It is damaged, or not of this plugin: resume from another one.'
                             ) from error
        check_same_run(state, BankState.of(self.bank, optimizer=self.optimizer))
        self._match_images(state)
        for notice in schedule_notices(self.runner, checkpoint):
            self.runner.logger.warning(notice)
        paths = self._paths(self._resumed_from, state)
        on_all_ranks(lambda: self.head_rows.put_back(checkpoint, state, paths, self._new_ids))
        check_network(self.model, checkpoint)
        self._state = state

    def _match_images(self, state: BankState) -> None:
        """Find the saved run's images in a data set that may have grown since."""
        bank, num_saved = self.bank, state.num_instances
        try:
            self._new_ids = match_instances(state.instance_keys, num_saved, self.keys,
                                            bank.num_instances)
        except ValueError as error:
            raise ValueError(f'this checkpoint cannot be resumed: {error} The checkpoint is left '
                             'as it is.') from error
        if self._new_ids is None and num_saved == bank.num_instances:
            return
        moved = 0 if self._new_ids is None else int(
            (self._new_ids != np.arange(num_saved)).sum())
        self.runner.logger.warning(
            f'The data set has changed since the checkpoint was saved: {num_saved} instances then, '
            f'{bank.num_instances} now. {moved} images have moved to another place in it, and '
            'their class weights with them; new images start like any that was never visited.')

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
        visits = self.class_weights.last_visits
        # A run that did not refresh rows has not recorded visits: all images then count as new.
        if state.last_visits is not None and visits is not None:
            ids = slice(0, len(state.last_visits)) if self._new_ids is None else self._new_ids
            visits.steps[ids] = state.last_visits
        reseed_loader(self.runner, state.sampler_seed)
        self.restored = True

    def _paths(self, checkpoint: Path, state: BankState) -> list[Path]:
        """Bank files that have rows of this process: its own, or all if owners have changed."""
        paths, processes = bank_paths(checkpoint, state), self.bank.slots.processes
        same = (len(paths) == processes.size and self._new_ids is None
                and self.head_rows.are_in_bank_files == state.is_sharded)
        return [paths[processes.rank]] if same else paths
