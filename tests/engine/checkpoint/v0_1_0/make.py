# SPDX-License-Identifier: Apache-2.0
"""Makes the checkpoints of version 0.1.0 beside this file, and what that version made of them.

In a checkout of version 0.1.0 (commit abf3e7f), with its environment:

    PYTHONPATH=.:tests/engine python THIS_FOLDER/make.py
"""
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
OPTIONS = dict(seed=11, augment=False)
CASES = dict(
    single=dict(),
    disk=dict(head=dict(storage=dict(type='mmap', dtype='float16'))),
    two=dict(batch_size=4),
    sharded=dict(batch_size=4, head=dict(sharded=True)))
KEPT = ('class_weights', 'active_ids', 'step', 'ids', 'stamps', 'active')


def main():
    from toy_processes import run_ranks, train_rank
    from toy_training import bank_paths, snapshot, train
    for name, options in CASES.items():
        options = dict(OPTIONS, **options)
        with tempfile.TemporaryDirectory() as folder:
            if 'batch_size' in options:
                results = run_ranks(train_rank, 2, folder, options)
                losses, states = zip(*results)
                losses, state = np.mean(losses, axis=0), states[0]
            else:
                runner = train(folder, **options)
                losses, state = runner.losses, snapshot(runner)
            checkpoint = Path(folder, 'epoch_2.pth')
            target = HERE / name
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            for file in (checkpoint, *bank_paths(checkpoint)):
                shutil.copy(file, target)
        momenta = {key: value for key, value in state.items() if key.startswith('momentum')}
        np.savez_compressed(target / 'epoch_4.npz', losses=losses[-len(losses) // 2:], **momenta,
                            **{key: state[key] for key in KEPT})


if __name__ == '__main__':
    sys.exit(main())
