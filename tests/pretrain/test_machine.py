# SPDX-License-Identifier: Apache-2.0
"""What a training may use of a machine: of a container its share, of several hosts this one's."""
import os

import pytest
import torch

from pic_plugin.pretrain import machine
from pic_plugin.pretrain.machine import find_machine

GIB = 2**30


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """Writes the files of a container's limits."""
    monkeypatch.setattr(machine, 'CGROUP', tmp_path)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: set(range(64)), raising=False)
    return lambda **files: [(tmp_path / name.replace('_', '.', 1)).write_text(content)
                            for name, content in files.items()]


@pytest.mark.parametrize('limit, cores', [
    ('max 100000', 64), ('400000 100000', 4), ('150000 100000', 1), ('50000 100000', 1)])
def test_cores_of_a_container(cgroup, tmp_path, limit, cores):
    assert find_machine(tmp_path, 'cpu').num_cores == 64  # no container
    cgroup(cpu_max=limit)
    assert find_machine(tmp_path, 'cpu').num_cores == cores


def test_memory_of_a_container(cgroup, tmp_path):
    """Pictures that were read stay in the system's cache as long as nobody needs the room."""
    whole = find_machine(tmp_path, 'cpu').host_bytes
    assert whole > 0
    cgroup(memory_max='2000000', memory_current='1900000',
           memory_stat='anon 100000\ninactive_file 1800000\nactive_file 7\n')
    assert find_machine(tmp_path, 'cpu').host_bytes == 1900000
    cgroup(memory_max='max')
    assert find_machine(tmp_path, 'cpu').host_bytes == pytest.approx(whole, rel=0.2)


def test_processes_of_several_hosts(cgroup, tmp_path, monkeypatch):
    for name, answer in dict(is_available=True, device_count=8, mem_get_info=(GIB, GIB),
                             get_device_name='GPU', get_device_capability=(8, 0)).items():
        monkeypatch.setattr(torch.cuda, name, lambda answer=answer: answer)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '8')
    found = find_machine(tmp_path, num_processes=16)
    assert found.num_processes == 16 and found.num_cores == 8
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '16')
    with pytest.raises(ValueError, match='16 processes and 8 GPUs'):
        find_machine(tmp_path, num_processes=16)
