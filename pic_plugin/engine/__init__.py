# SPDX-License-Identifier: Apache-2.0
"""mmengine's side of a training: hooks, and a Runner that works on CPUs."""
from pic_plugin.engine.cpu_runner import CPURunner
from pic_plugin.engine.hooks.compare_with_untrained_hook import CompareWithUntrainedHook
from pic_plugin.engine.hooks.instance_bank_hook import InstanceBankHook
from pic_plugin.engine.hooks.online_measures_hook import OnlineMeasuresHook
from pic_plugin.engine.hooks.plain_checkpoint_hook import PlainCheckpointHook
from pic_plugin.engine.hooks.save_on_interrupt_hook import SaveOnInterruptHook
from pic_plugin.engine.two_optimizers import PICOptimWrapper, PICOptimWrapperConstructor

__all__ = [
    'CPURunner', 'CompareWithUntrainedHook', 'InstanceBankHook', 'OnlineMeasuresHook',
    'PICOptimWrapper', 'PICOptimWrapperConstructor', 'PlainCheckpointHook', 'SaveOnInterruptHook'
]
