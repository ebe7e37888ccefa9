# SPDX-License-Identifier: Apache-2.0
"""What happens around a step: hooks for mmengine's Runner, and one that runs on CPUs."""
from pic_plugin.engine.cpu_runner import CPURunner
from pic_plugin.engine.hooks.compare_with_untrained_hook import CompareWithUntrainedHook
from pic_plugin.engine.hooks.instance_bank_hook import InstanceBankHook
from pic_plugin.engine.hooks.plain_checkpoint_hook import PlainCheckpointHook
from pic_plugin.engine.hooks.save_on_interrupt_hook import SaveOnInterruptHook

__all__ = [
    'CPURunner', 'CompareWithUntrainedHook', 'InstanceBankHook', 'PlainCheckpointHook',
    'SaveOnInterruptHook'
]
