# SPDX-License-Identifier: Apache-2.0
"""Class weights of all instances: the active set, the stored rows, the correction.

Needs torch and numpy alone: :class:`SampledClassWeights` works in any training loop.
"""
from .active_set import ActiveSet
from .adamw_correction import AdamWCorrection
from .bank_file import BankFileError, read_bank, write_bank
from .correction import Correction, NoCorrection
from .corrections import correction_for, group_of, no_correction_for
from .global_batch import GlobalBatch, gather_batch
from .initial_rows import initial_rows
from .instance_bank import InstanceBank, SlotTensors
from .refresh import LastVisits, Refresh
from .row_codec import RowCodec
from .row_store import RowStore
from .sampled_class_weights import SampledClassWeights
from .sgd_correction import SGDCorrection, TransitionLog, sgd_transition
from .slots import Slots
from .stored_rows import Storage, StoredRows

__all__ = [
    'ActiveSet', 'AdamWCorrection', 'BankFileError', 'Correction', 'GlobalBatch',
    'InstanceBank', 'LastVisits', 'NoCorrection', 'Refresh', 'RowCodec', 'RowStore',
    'SGDCorrection', 'SampledClassWeights', 'SlotTensors', 'Slots', 'Storage', 'StoredRows',
    'TransitionLog', 'correction_for', 'gather_batch', 'group_of', 'initial_rows',
    'no_correction_for', 'read_bank', 'sgd_transition', 'write_bank'
]
