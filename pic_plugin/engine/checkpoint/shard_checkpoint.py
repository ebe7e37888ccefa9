# SPDX-License-Identifier: Apache-2.0
"""Rows of a sharded head in checkpoints: in the bank files, since no process has them all."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pic_plugin.bank import BankFileError, SampledClassWeights, initial_rows

from .bank_files import ADVICE, read_bank_files
from .head_rows import HeadRows

CHUNK_ROWS = 65536  # 64 MB with momentum, d = 128
STATES = 'head_states'  # in the bank's state: what the optimizer keeps for each row in bank files

Chunks = Iterator[tuple[np.ndarray, np.ndarray]]


class ShardCheckpoint:
    """Writes this process's rows of the head, and gives a loaded checkpoint the rows it lacks.

    Rows go by their slot in the whole head, so another number of processes, or one that holds the
    head in one piece, goes on with them, and the reverse.

    Args:
        class_weights (SampledClassWeights): Of the training.
        head_rows (HeadRows): Where the rows are in a checkpoint.
    """

    def __init__(self, class_weights: SampledClassWeights, head_rows: HeadRows) -> None:
        self.bank, self.head_rows = class_weights.bank, head_rows
        self.weight, self.optimizer = class_weights.weight, class_weights.optimizer

    def rows(self) -> Chunks:
        """Chunks for the bank file: slots (R,) int64 and values (R, 1 + states, d)."""
        state = self.optimizer.state.get(self.weight, {})
        tensors = [self.weight.detach(), *(state[name] for name in self._state_names(state))]
        slots = self.bank.slots.held(self.bank.slots.num_slots)
        for start in range(0, len(slots), CHUNK_ROWS):
            chunk = slots[start:start + CHUNK_ROWS]
            values = [_exact(tensor[start:start + len(chunk)]) for tensor in tensors]
            yield chunk, torch.stack(values, dim=1).cpu().numpy()

    def strip(self, checkpoint: dict) -> list[str]:
        """Take this process's rows out of a checkpoint, which would be taken for all rows.

        Returns:
            list[str]: Names under which the optimizer keeps tensors of the rows' shape.
        """
        del checkpoint['state_dict'][self.head_rows.name]
        states = self.head_rows.all_states(checkpoint)
        own = states.get(self.head_rows.place, {})
        names = self._state_names(own)
        if names:
            # A copy: the optimizer works with the dict itself.
            states[self.head_rows.place] = {
                key: value for key, value in own.items() if key not in names}
        return names

    def fill(self, checkpoint: dict, state: dict, paths: Iterable[Path],
             new_ids: np.ndarray | None) -> None:
        """Put the rows for this process's slots into a checkpoint that is being loaded.

        Args:
            checkpoint (dict): As it was loaded; changed in place.
            state (dict): What it says of the bank.
            paths (Iterable[Path]): Its bank files, those of all its processes.
            new_ids (np.ndarray, optional): (N,) int64, ids in this run of saved ids, where they
                have changed.

        Raises:
            BankFileError: If a bank file is missing, damaged or of another checkpoint.
        """
        bank = self.bank
        # Both have been compared with this run's.
        num_saved = state['num_instances'] if bank.is_full else bank.slots.num_slots
        names = state.get(STATES)
        chunks: Chunks = ((arrays['slots'], arrays['values'])
                          for kind, _, arrays in read_bank_files(paths, state)
                          if kind == 'head')
        if names is None:
            names, chunks = self._from_one_piece(checkpoint)
        tensors = [torch.zeros_like(self.weight.detach()) for _ in range(1 + len(names))]
        own = bank.slots.held(bank.slots.num_slots)
        if bank.is_full and bank.num_instances > state['num_instances']:
            for start in range(0, len(own), CHUNK_ROWS):
                ids = own[start:start + CHUNK_ROWS]
                tensors[0][start:start + len(ids)] = torch.from_numpy(
                    initial_rows(ids, bank.feat_dim, state['seed'])).to(tensors[0])
        filled = np.zeros(len(own), dtype=bool)
        for slots, values in chunks:
            if values.shape[1:] != (len(tensors), bank.feat_dim):
                raise BankFileError(f'rows of shape {values.shape[1:]} were saved where '
                                    f'{(len(tensors), bank.feat_dim)} fit: {ADVICE}')
            slots = new_ids[slots] if bank.is_full and new_ids is not None else slots
            held = bank.slots.holds(slots)
            places = bank.slots.rows(slots[held])
            filled[places] = True
            rows = torch.from_numpy(places).to(self.weight.device)
            for tensor, value in zip(tensors, torch.from_numpy(values[held]).unbind(dim=1)):
                tensor[rows] = value.to(tensor)
        saved = np.arange(num_saved)
        saved = new_ids[saved] if bank.is_full and new_ids is not None else saved
        missing = np.setdiff1d(saved, own[filled])
        missing = missing[bank.slots.holds(missing)]
        if len(missing):
            raise BankFileError(f'{len(missing)} rows of the softmax are in none of the bank '
                                f'files: {ADVICE}')
        checkpoint['state_dict'][self.head_rows.name] = tensors[0]
        if names:
            self.head_rows.all_states(checkpoint).setdefault(
                self.head_rows.place, {}).update(zip(names, tensors[1:]))

    def _from_one_piece(self, checkpoint: dict) -> tuple[list[str], Chunks]:
        weight = self.head_rows.weight(checkpoint)
        own = self.head_rows.all_states(checkpoint).get(self.head_rows.place, {})
        names = self._state_names(own, weight)
        tensors = [weight, *(own[name] for name in names)]

        def chunks() -> Chunks:
            for start in range(0, len(weight), CHUNK_ROWS):
                values = [_exact(tensor[start:start + CHUNK_ROWS]) for tensor in tensors]
                yield (np.arange(start, start + len(values[0])),
                       torch.stack(values, dim=1).cpu().numpy())

        return names, chunks()

    def _state_names(self, state: dict[str, Any], like: Tensor | None = None) -> list[str]:
        shape = (self.weight if like is None else like).shape
        return sorted(name for name, value in state.items()
                      if isinstance(value, Tensor) and value.shape == shape)


def _exact(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
