# SPDX-License-Identifier: Apache-2.0
"""Several processes without a GPU."""
from __future__ import annotations

import atexit
import gc
from typing import TypeVar

import torch.distributed as dist
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from .runner_private import launcher

_Result = TypeVar('_Result')


@RUNNERS.register_module()
class CPURunner(Runner):
    """mmengine's Runner, able to start with ``--launcher pytorch`` on CPUs.

    mmengine 0.10 asks for a GPU for each process whatever the backend is, and torch's SyncBN runs
    on GPUs only. On a GPU, and in a single process, it is the Runner itself. The tools of this
    package choose it where there is no GPU; for those of other packages:
    ``--cfg-options runner_type=CPURunner``.
    """

    def setup_env(self, env_cfg: dict) -> None:
        """Join the processes through gloo, then do as the Runner does."""
        if self._on_cpus() and not dist.is_initialized():
            dist.init_process_group('gloo')
            # Else a process may abort at its end, when gloo's threads outlive what they work on.
            atexit.register(_leave)
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None,
                   model: nn.Module) -> nn.parallel.DistributedDataParallel | nn.Module:
        """Wrap without device numbers; BN, of each process for itself, in the place of SyncBN."""
        if self._on_cpus():
            self.logger.warning('CPUs have no SyncBN: BN statistics are those of each process.')
            model = revert_sync_batchnorm(model)
            wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False,
                           find_unused_parameters=self.cfg.get('find_unused_parameters', False))
            model_wrapper_cfg = {**wrapper, **(model_wrapper_cfg or {}), 'device_ids': None}
        return super().wrap_model(model_wrapper_cfg, model)

    def train(self) -> nn.Module:
        """Train, and end when all processes have."""
        return self._together(super().train())

    def val(self) -> dict[str, float]:
        """Validate, and end when all processes have."""
        return self._together(super().val())

    def test(self) -> dict[str, float]:
        """Test, and end when all processes have."""
        return self._together(super().test())

    def _together(self, result: _Result) -> _Result:
        # A process that leaves at once closes connections that a slower one still reads from.
        if self._on_cpus():
            dist.barrier()
        return result

    def _on_cpus(self) -> bool:
        return launcher(self) != 'none' and get_device() == 'cpu'


def _leave() -> None:
    # DistributedDataParallel, which a Runner's rings keep alive, has the group of processes too.
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()
