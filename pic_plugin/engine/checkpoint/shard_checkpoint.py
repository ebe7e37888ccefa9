# SPDX-License-Identifier: Apache-2.0
"""The rows of a sharded head in checkpoints: in the bank files, since no process has them all."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pic_plugin.bank import BankFileError, InstanceBank, initial_rows, read_bank
from pic_plugin.engine.checkpoint.bank_state import check_bank_header
from pic_plugin.engine.checkpoint.head_rows import HeadRows

CHUNK_ROWS = 65536  # 64 MB with momentum, d = 128
STATES = 'head_states'  # in the bank's state: what the optimizer keeps for each row in bank files

Chunks = Iterator[Tuple[np.ndarray, np.ndarray]]


class ShardCheckpoint:
    """Writes this process's rows of the head, and gives a loaded checkpoint the rows it lacks.

    Rows go by their slot in the whole head, so another number of processes, or one that holds the
    head in one piece, goes on with them, and the reverse.

    Args:
        bank (InstanceBank): Knows which slots are held here.
        head_rows (HeadRows): Where the rows are in a checkpoint.
        weight (nn.Parameter): The head's, of which this process has its part.
        optimizer (Optimizer): That trains it.
    """

    def __init__(self, bank: InstanceBank, head_rows: HeadRows, weight: nn.Parameter,
                 optimizer: Optimizer) -> None:
        self.bank, self.head_rows = bank, head_rows
        self.weight, self.optimizer = weight, optimizer

    def rows(self) -> Chunks:
        """What the bank file holds: slots (R,) int64 and values (R, 1 + states, d)."""
        state = self.optimizer.state.get(self.weight, {})
        planes = [self.weight.detach(), *(state[name] for name in self._state_names(state))]
        slots = self.bank.shards.slots(self.bank.num_slots)
        for start in range(0, len(slots), CHUNK_ROWS):
            chunk = slots[start:start + CHUNK_ROWS]
            values = [_exact(plane[start:start + len(chunk)]) for plane in planes]
            yield chunk, torch.stack(values, dim=1).cpu().numpy()

    def strip(self, checkpoint: dict) -> List[str]:
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
             new_ids: Optional[np.ndarray]) -> None:
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
        num_saved = state['num_instances'] if bank.is_full else bank.num_slots
        names = state.get(STATES)
        chunks = self._from_files(paths, state, num_saved)
        if names is None:
            names, chunks = self._from_one_piece(checkpoint)
        planes = [torch.zeros_like(self.weight.detach()) for _ in range(1 + len(names))]
        own = bank.shards.slots(bank.num_slots)
        if bank.is_full and bank.num_instances > state['num_instances']:
            for start in range(0, len(own), CHUNK_ROWS):
                ids = own[start:start + CHUNK_ROWS]
                planes[0][start:start + len(ids)] = torch.from_numpy(
                    initial_rows(ids, bank.feat_dim, state['seed'])).to(planes[0])
        filled = np.zeros(len(own), dtype=bool)
        for slots, values in chunks:
            if values.shape[1:] != (len(planes), bank.feat_dim):
                raise BankFileError(f'rows of shape {values.shape[1:]} were saved where '
                                    f'{(len(planes), bank.feat_dim)} fit: {_ADVICE}')
            slots = new_ids[slots] if bank.is_full and new_ids is not None else slots
            held = bank.shards.holds(slots)
            places = bank.shards.rows(slots[held])
            filled[places] = True
            rows = torch.from_numpy(places).to(self.weight.device)
            for plane, value in zip(planes, torch.from_numpy(values[held]).unbind(dim=1)):
                plane[rows] = value.to(plane)
        saved = np.arange(num_saved)
        saved = new_ids[saved] if bank.is_full and new_ids is not None else saved
        missing = np.setdiff1d(saved, own[filled])
        missing = missing[bank.shards.holds(missing)]
        if len(missing):
            raise BankFileError(f'{len(missing)} rows of the soft-max are in none of the bank '
                                f'files: {_ADVICE}')
        checkpoint['state_dict'][self.head_rows.name] = planes[0]
        if names:
            self.head_rows.all_states(checkpoint).setdefault(
                self.head_rows.place, {}).update(zip(names, planes[1:]))

    def _from_files(self, paths: Iterable[Path], state: dict, num_saved: int) -> Chunks:
        for path in paths:
            for kind, values, arrays in read_bank(path):
                if kind == 'header':
                    check_bank_header(path, values, state)
                if kind == 'head':
                    slots = arrays['slots']
                    if len(slots) and not 0 <= slots.min() <= slots.max() < num_saved:
                        raise BankFileError(f'{path} has rows for slots that are none: {_ADVICE}')
                    yield slots, arrays['values']

    def _from_one_piece(self, checkpoint: dict) -> Tuple[List[str], Chunks]:
        weight = self.head_rows.weight(checkpoint)
        own = self.head_rows.all_states(checkpoint).get(self.head_rows.place, {})
        names = self._state_names(own, weight)
        planes = [weight, *(own[name] for name in names)]

        def chunks() -> Chunks:
            for start in range(0, len(weight), CHUNK_ROWS):
                values = [_exact(plane[start:start + CHUNK_ROWS]) for plane in planes]
                yield (np.arange(start, start + len(values[0])),
                       torch.stack(values, dim=1).cpu().numpy())

        return names, chunks()

    def _state_names(self, state: Dict[str, Any], like: Optional[Tensor] = None) -> List[str]:
        shape = (self.weight if like is None else like).shape
        return sorted(name for name, value in state.items()
                      if isinstance(value, Tensor) and value.shape == shape)


_ADVICE = ('copy the bank files that were saved with this checkpoint beside it, or resume from '
           'another one.')


def _exact(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
