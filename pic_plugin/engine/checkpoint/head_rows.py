# SPDX-License-Identifier: Apache-2.0
"""The head's rows in checkpoints: class weights and what the optimizer keeps for them.

A whole head is in the ``.pth``, where mmengine has put it. The rows of a sharded head, of which no
process has all, are in the bank files instead, by their slot in the whole head: so another number
of processes, or one that holds the head in one piece, goes on with them, and the reverse.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pic_plugin.bank import BankFileError, SampledClassWeights
from pic_plugin.bank.initial_rows import fill_with_initial_rows

from .bank_files import ADVICE, read_bank_files
from .bank_state import BankState

CHUNK_ROWS = 65536  # 64 MB with momentum, d = 128

Chunks = Iterator[tuple[np.ndarray, np.ndarray]]


class HeadRows:
    """Brings the rows of a head into checkpoints and out of them.

    Args:
        model (nn.Module): Without its distributed wrapper.
        class_weights (SampledClassWeights): Of the training.
    """

    def __init__(self, model: nn.Module, class_weights: SampledClassWeights) -> None:
        self.class_weights, self.bank = class_weights, class_weights.bank
        self.weight, self.optimizer = class_weights.weight, class_weights.optimizer
        self.name = next(name for name, parameter in model.named_parameters()
                         if parameter is self.weight)
        # torch numbers parameters in the order of their groups.
        parameters = [parameter for group in self.optimizer.param_groups
                      for parameter in group['params']]
        self._place = next(i for i, parameter in enumerate(parameters) if parameter is self.weight)
        self._num_parameters = len(parameters)

    @property
    def are_in_bank_files(self) -> bool:
        """Whether a save writes them there."""
        return self.bank.slots.is_sharded

    def chunks(self) -> Chunks:
        """Those for the bank file: slots (R,) int64 and values (R, 1 + states, d)."""
        if not self.are_in_bank_files:
            return
        weight, states = self.class_weights.tensors
        slots = self.bank.slots.held(self.bank.slots.num_slots)
        for start in range(0, len(slots), CHUNK_ROWS):
            chunk = slots[start:start + CHUNK_ROWS]
            yield chunk, _stacked([weight, *states], start, start + len(chunk))

    def take_out(self, checkpoint: dict) -> list[str] | None:
        """Take rows that are in the bank files out of a ``.pth``: they would be taken for all.

        Returns:
            list[str]: Names under which the optimizer keeps tensors of the rows' shape; None where
            the ``.pth`` has the whole head.
        """
        if not self.are_in_bank_files:
            return None
        del checkpoint['state_dict'][self.name]
        states = self._all_states(checkpoint)
        own = states.get(self._place, {})
        names = _row_states(own, self.weight)
        if names:
            # A copy: the optimizer works with the dict itself.
            states[self._place] = {key: value for key, value in own.items() if key not in names}
        return names

    def put_back(self, checkpoint: dict, state: BankState, paths: Iterable[Path],
                 new_ids: np.ndarray | None) -> None:
        """Give a checkpoint that is being loaded the rows for the slots that are held here.

        Args:
            checkpoint (dict): As it was loaded; changed in place.
            state (BankState): Of the checkpoint.
            paths (Iterable[Path]): Bank files that may have rows of this process.
            new_ids (np.ndarray, optional): (N,) int64, ids in this run of saved ids, where they
                have changed.

        Raises:
            BankFileError: If a bank file is missing, damaged or of another checkpoint.
        """
        if self.are_in_bank_files or state.is_sharded:
            self._fill(checkpoint, state, paths, new_ids)
            return
        bank, saved_rows = self.bank, len(checkpoint['state_dict'][self.name])
        fresh = torch.zeros_like(self.weight.detach(), device='cpu')
        if bank.is_full and (new_ids is not None or state.num_instances != bank.num_instances):
            fill_with_initial_rows(fresh, np.arange(bank.num_instances), state.seed)
            self._move(checkpoint, np.arange(state.num_instances) if new_ids is None else new_ids,
                       fresh)
        elif saved_rows != len(fresh):
            # More rows than classes are there for gradient accumulation, or because
            # DistributedDataParallel fixed their number before that of the images was known.
            self._move(checkpoint, np.arange(min(saved_rows, len(fresh))), fresh)

    def start_anew(self, checkpoint: dict) -> None:
        """Give a checkpoint that a new training starts from the rows of that training's start.

        Those of other images, or of another number of classes, would find their way into the head
        or stop the run where hooks load them too, as EMAHook does.
        """
        rows = torch.zeros_like(self.weight.detach())
        if self.bank.is_full:
            fill_with_initial_rows(rows, self.bank.slots.held(self.bank.num_instances),
                                   self.bank.stored.seed)
        for state_dict, name in self._state_dicts(checkpoint):
            state_dict[name] = rows

    def _fill(self, checkpoint: dict, state: BankState, paths: Iterable[Path],
              new_ids: np.ndarray | None) -> None:
        """Rows by their slots, from bank files or from the whole head."""
        bank = self.bank

        def renumber(slots: np.ndarray) -> np.ndarray:
            return new_ids[slots] if bank.is_full and new_ids is not None else slots

        # Both have been compared with this run's.
        num_saved = state.num_instances if bank.is_full else state.num_slots
        names, chunks = self._saved_chunks(checkpoint, state, paths, num_saved)
        tensors = [torch.zeros_like(self.weight.detach()) for _ in range(1 + len(names))]
        own = bank.slots.held(bank.slots.num_slots)
        if bank.is_full and bank.num_instances > state.num_instances:
            fill_with_initial_rows(tensors[0], own, state.seed)
        filled = np.zeros(len(own), dtype=bool)
        for slots, values in chunks:
            if values.shape[1:] != (len(tensors), bank.feat_dim):
                raise BankFileError(f'rows of shape {values.shape[1:]} were saved where '
                                    f'{(len(tensors), bank.feat_dim)} fit: {ADVICE}')
            slots = renumber(slots)
            held = bank.slots.holds(slots)
            places = bank.slots.rows(slots[held])
            filled[places] = True
            rows = torch.from_numpy(places).to(self.weight.device)
            for tensor, value in zip(tensors, torch.from_numpy(values[held]).unbind(dim=1)):
                tensor[rows] = value.to(tensor)
        missing = np.setdiff1d(renumber(np.arange(num_saved)), own[filled])
        missing = missing[bank.slots.holds(missing)]
        if len(missing):
            raise BankFileError(f'{len(missing)} rows of the softmax are in none of the bank '
                                f'files: {ADVICE}')
        checkpoint['state_dict'][self.name] = tensors[0]
        if names:
            self._all_states(checkpoint).setdefault(
                self._place, {}).update(zip(names, tensors[1:]))

    def _saved_chunks(self, checkpoint: dict, state: BankState, paths: Iterable[Path],
                      num_saved: int) -> tuple[list[str], Chunks]:
        """Names of the optimizer's tensors, and the saved rows as :meth:`chunks` gives them."""
        if state.head_states is not None:
            return state.head_states, (
                (arrays['slots'], arrays['values'])
                for kind, _, arrays in read_bank_files(paths, state) if kind == 'head')
        weight = checkpoint['state_dict'][self.name]
        own = self._all_states(checkpoint).get(self._place, {})
        names = _row_states(own, weight)
        tensors = [weight, *(own[name] for name in names)]
        num_rows = min(num_saved, len(weight))  # it may have more rows than slots: see put_back
        starts = range(0, num_rows, CHUNK_ROWS)
        ends = [min(start + CHUNK_ROWS, num_rows) for start in starts]
        return names, ((np.arange(start, end), _stacked(tensors, start, end))
                       for start, end in zip(starts, ends))

    def _move(self, checkpoint: dict, places: np.ndarray, fresh: Tensor) -> None:
        """Give the first R saved rows the places (R,) that they have now, among rows (S, d)."""
        own = self._all_states(checkpoint).get(self._place, {})
        index = torch.from_numpy(places)
        for name in _row_states(own, checkpoint['state_dict'][self.name]):
            moved = torch.zeros_like(fresh, dtype=own[name].dtype)
            moved[index] = own[name][:len(places)].to(moved.device)
            own[name] = moved
        for state_dict, name in self._state_dicts(checkpoint):
            if name in state_dict:
                moved = fresh.clone()
                moved[index] = state_dict[name][:len(places)].to(moved)
                state_dict[name] = moved

    def _state_dicts(self, checkpoint: dict) -> list[tuple[dict[str, Tensor], str]]:
        """Where the class weights are in a checkpoint, and their names there."""
        # mmengine's EMAHook keeps averages of all parameters, under the names of its wrapper.
        return [(checkpoint.get('state_dict', checkpoint), self.name),
                (checkpoint.get('ema_state_dict', {}), f'module.{self.name}')]

    def _all_states(self, checkpoint: dict) -> dict[int, dict[str, Any]]:
        """What the optimizer of the head keeps, by the places of parameters; {} if not saved."""
        saved = checkpoint.get('optimizer') or {}
        # With several optimizers there is a dict for each; PICOptimWrapperConstructor names them.
        saved = saved.get('class_weights', saved)
        for part in ([saved] if 'state' in saved else saved.values()):
            if isinstance(part, dict) and sum(
                    len(group['params']) for group in part['param_groups']) == self._num_parameters:
                return part['state']
        return {}


def _row_states(state: dict[str, Any], weight: Tensor) -> list[str]:
    """What an optimizer keeps for each row of a parameter, by name."""
    return sorted(name for name, value in state.items()
                  if isinstance(value, Tensor) and value.shape == weight.shape)


def _stacked(tensors: list[Tensor], start: int, end: int) -> np.ndarray:
    """(R, P, d): some rows of all tensors, in float32 or wider."""
    parts = [tensor[start:end] for tensor in tensors]
    return torch.stack([part.to(torch.promote_types(part.dtype, torch.float32)) for part in parts],
                       dim=1).cpu().numpy()
