# SPDX-License-Identifier: Apache-2.0
"""Whether the schedules of a checkpoint still fit the run that resumes it."""
from __future__ import annotations

from mmengine.runner import EpochBasedTrainLoop, Runner


def schedule_notices(runner: Runner, meta: dict) -> list[str]:
    """Whether saved schedulers, which count iterations, still fit a run that is resumed.

    Args:
        runner (Runner): Of the run that resumes.
        meta (dict): Of the checkpoint: how many epochs and iterations it has seen.
    """
    epochs, iterations = meta.get('epoch', 0), meta.get('iter', 0)
    num_batches = len(runner.train_dataloader)
    if not epochs or iterations == epochs * num_batches or not isinstance(
            runner.train_loop, EpochBasedTrainLoop):
        return []
    return [f'An epoch had {iterations / epochs:.0f} iterations and has {num_batches} now. '
            'Learning-rate schedules go on as they were planned, by iterations, and so end before '
            'or after the training does. To plan them anew, start from the network: '
            'load_from=CHECKPOINT and resume=False, which begins new class weights.']
