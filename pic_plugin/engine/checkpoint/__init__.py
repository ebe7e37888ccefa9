# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a PIC training: what is in them, and where each part is written and read.

A checkpoint is a ``.pth`` and, where not all rows of the class weights are in it, one bank file
beside it for each process. One that no run continues from (the best so far, without the optimizer's
state) has no bank files.

The ``.pth``, which ``torch.load(..., weights_only=True)`` reads:

==================== =============================================================================
``meta``,            mmengine's, as plain containers: :mod:`.plain_checkpoint`
``message_hub``
``state_dict``       network and head; the rows of a sharded head are taken out: :mod:`.head_rows`;
                     whether it is the network of the run that resumes: :mod:`.resumed_network`
``optimizer``        likewise
``param_schedulers`` mmengine's; whether they fit the run that resumes: :mod:`.schedules`
``ema_state_dict``   mmengine's EMAHook's
``pic_bank``         :class:`.bank_state.BankState`
``pic_stream``       place in the stream of images: :mod:`pic_plugin.engine.stream_position`
==================== =============================================================================

A bank file, one section after another (:mod:`pic_plugin.bank.bank_file`; checked, written and read
by :mod:`.bank_files`):

==================== =============================================================================
``header``           which save, run and process: :meth:`.bank_state.BankState.file_header`
``transitions``      optimizer steps that stored rows are owed: :class:`pic_plugin.bank.Correction`
``rows``             stored rows: :class:`pic_plugin.bank.stored_rows.StoredRows`
``head``             rows in the softmax, of a sharded head: :mod:`.head_rows`
==================== =============================================================================

:class:`.bank_checkpoint.BankCheckpoint` saves and resumes. All bank files are read by
:func:`.bank_files.read_bank_files`, for resume and for the analysis of class weights alike.
"""
