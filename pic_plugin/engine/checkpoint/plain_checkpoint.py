# SPDX-License-Identifier: Apache-2.0
"""mmengine's run state as plain containers.

mmengine 0.10 pickles its ``HistoryBuffer`` objects into checkpoints, which torch >= 2.6 refuses to
load, since loading them could run code. Allowing that is no remedy; saving plain values is.
"""
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log


def to_plain_message_hub(checkpoint: dict) -> None:
    """In place: history buffers become dicts of tensors, numpy values Python's own."""
    hub = checkpoint.get('message_hub')
    if hub:
        hub['log_scalars'] = {
            key: _pack(buffer) if isinstance(buffer, HistoryBuffer) else buffer
            for key, buffer in hub['log_scalars'].items()
        }
        hub['runtime_info'] = _plain(hub['runtime_info'])
        hub['resumed_keys'] = dict(hub['resumed_keys'])
    checkpoint['meta'] = _plain(checkpoint['meta'])


def with_history_buffers(checkpoint: dict) -> None:
    """In place: the reverse, for a checkpoint that was loaded."""
    hub = checkpoint.get('message_hub')
    if isinstance(hub, dict) and 'log_scalars' in hub:
        hub['log_scalars'] = {
            key: _unpack(value) if isinstance(value, dict) else value
            for key, value in hub['log_scalars'].items()
        }


def _pack(buffer: HistoryBuffer) -> dict:
    values, counts = buffer.data
    return dict(
        values=torch.from_numpy(np.asarray(values, dtype=np.float64)),
        counts=torch.from_numpy(np.asarray(counts, dtype=np.float64)),
        max_length=buffer.max_length)


def _unpack(packed: dict) -> HistoryBuffer:
    values, counts = packed['values'].cpu().numpy(), packed['counts'].cpu().numpy()
    return HistoryBuffer(values, counts, max_length=packed['max_length'])


def _plain(entries: dict[str, Any]) -> dict[str, Any]:
    """The entries that can be saved, as plain values."""
    plain = {}
    for key, value in entries.items():
        try:
            plain[key] = _to_plain(value)
        except TypeError as error:
            print_log(
                f'{key} is left out of the checkpoint: {error}, and torch would not load the file.',
                logger='current',
                level=30)
    return plain


def _to_plain(value: Any) -> Any:
    if value is None or type(value) in (str, bool, int, float, bytes):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_to_plain, value)) if type(value) in (list, tuple) else list(
            map(_to_plain, value))
    raise TypeError(f'it holds a {type(value).__name__}')
