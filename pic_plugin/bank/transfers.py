# SPDX-License-Identifier: Apache-2.0
"""Copies between host and device that the host does not wait for."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A host array on a device; on a GPU a copy, queued behind the work that it has already.

    Through pinned memory, which torch keeps until the copy is done: from ordinary memory the host
    would wait for the GPU.
    """
    tensor = torch.from_numpy(array)
    if device.type != 'cuda':
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class HostCopy:
    """A tensor on the host: the tensor itself, or a copy from a GPU that may still be under way.

    Args:
        tensor (Tensor): On any device. Nobody changes it before :meth:`wait` has returned.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if tensor.device.type != 'cuda':
            self._tensor = tensor.cpu()
            return
        self._tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._tensor.copy_(tensor, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> Tensor:
        """The copy, when it is complete."""
        if self._event is not None:
            self._event.synchronize()
            self._event = None
        return self._tensor
