# SPDX-License-Identifier: Apache-2.0
"""What happens around a step: hooks for mmengine's Runner, and one that runs on CPUs."""
from .compare_with_untrained_hook import CompareWithUntrainedHook
from .cpu_runner import CPURunner
from .instance_bank_hook import InstanceBankHook
from .plain_checkpoint_hook import PlainCheckpointHook

__all__ = ['CPURunner', 'CompareWithUntrainedHook', 'InstanceBankHook', 'PlainCheckpointHook']
