# SPDX-License-Identifier: Apache-2.0
"""Class weights of all instances: the active set, the stored rows, lazy SGD. No mmengine here."""
from .active_set import ActiveSet
from .bank_file import BankFileError, read_bank, write_bank
from .initial_rows import initial_rows
from .instance_bank import InstanceBank, Planes
from .lazy_sgd import TransitionLog, sgd_transition
from .row_codec import RowCodec
from .row_store import RowStore
from .slot_shards import SlotShards, num_shard_rows

__all__ = [
    'ActiveSet', 'BankFileError', 'InstanceBank', 'Planes', 'RowCodec', 'RowStore', 'SlotShards',
    'TransitionLog', 'initial_rows', 'num_shard_rows', 'read_bank', 'sgd_transition', 'write_bank'
]
