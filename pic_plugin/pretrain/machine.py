# SPDX-License-Identifier: Apache-2.0
"""The machine as the rules see it: device, cores, memory and the number of processes."""
from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import torch

from pic_plugin.wording import counted

CGROUP = Path('/sys/fs/cgroup')  # in a container its own


class Machine(NamedTuple):
    """Hardware that one training may use.

    Attributes:
        device (str): 'cuda', 'mps' or 'cpu'.
        device_name (str): For people.
        device_bytes (int): Free memory of one device; 0 if unknown or a CPU.
        num_devices (int): GPUs that this process sees; 0 without one.
        num_processes (int): Processes of the training, one for each GPU.
        num_cores (int): Cores that this process and its loader workers may use.
        host_bytes (int): Free memory of the host, bytes; 0 if unknown.
        disk_bytes (int): Free space where the work folder is, bytes.
        bfloat16 (bool): Whether the device computes in bfloat16 natively.
    """

    device: str = 'cpu'
    device_name: str = 'CPU'
    device_bytes: int = 0
    num_devices: int = 0
    num_processes: int = 1
    num_cores: int = 1
    host_bytes: int = 0
    disk_bytes: int = 0
    bfloat16: bool = False


def find_machine(out: str | Path, device: str | None = None,
                 num_processes: int = 1) -> Machine:
    """Look at the machine.

    Args:
        out (str | Path): The work folder; it need not exist.
        device (str, optional): 'cuda', 'mps' or 'cpu'. Defaults to None: the best there is.
        num_processes (int): Of the training. Defaults to 1.

    Raises:
        ValueError: If the device is not there, or there are fewer GPUs than processes.
    """
    num_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    # torchrun's, where there are several hosts.
    local = min(num_processes, int(os.environ.get('LOCAL_WORLD_SIZE', num_processes)))
    kind = device or ('cuda' if num_devices else 'cpu')
    if kind not in ('cuda', 'mps', 'cpu'):
        raise ValueError(f'--device is cuda, mps or cpu, not {device}. Choose among several GPUs '
                         'with the environment variable CUDA_VISIBLE_DEVICES, as in '
                         'CUDA_VISIBLE_DEVICES=1.')
    if kind == 'cuda' and not num_devices:
        raise ValueError('--device cuda, but torch finds no GPU: install a build of torch for this '
                         "machine's CUDA (python -c 'import torch; print(torch.version.cuda)' "
                         'says which it has), or leave --device out to train on the CPU.')
    if kind == 'mps' and not torch.backends.mps.is_available():
        raise ValueError('--device mps, but torch finds no Apple GPU: leave --device out.')
    if kind == 'cuda' and local > num_devices:
        raise ValueError(f'{counted(local, "process", "processes")} and '
                         f'{counted(num_devices, "GPU")}: start as many '
                         'processes as there are GPUs (torchrun --nproc_per_node).')
    name, free, bfloat16 = 'CPU', 0, False
    if kind == 'cuda':
        free = torch.cuda.mem_get_info()[0]
        name = torch.cuda.get_device_name()
        bfloat16 = torch.cuda.get_device_capability() >= (8, 0)
    return Machine(kind, name, free, num_devices, num_processes,
                   max(1, _num_cores() // local), _host_bytes(),
                   shutil.disk_usage(_existing(Path(out))).free, bfloat16)


def _num_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else (
        os.cpu_count() or 1)
    try:
        quota, period = (CGROUP / 'cpu.max').read_text(encoding='ascii').split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or 'max'
        return cores


def _host_bytes() -> int:
    """Memory that can be had without swapping; of a container, no more than its limit leaves."""
    try:
        with open('/proc/meminfo', encoding='ascii') as stream:
            lines = dict(line.split(':', 1) for line in stream if ':' in line)
        free = int(lines['MemAvailable'].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0
    try:
        limit, used = (int((CGROUP / name).read_text(encoding='ascii'))
                       for name in ('memory.max', 'memory.current'))
        stat = dict(line.split() for line in (CGROUP / 'memory.stat').open(encoding='ascii'))
    except (OSError, ValueError):
        return free
    # What is cached of files gives way.
    return max(0, min(free, limit - used + int(stat['inactive_file'])))


def _existing(folder: Path) -> Path:
    folder = folder.expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
