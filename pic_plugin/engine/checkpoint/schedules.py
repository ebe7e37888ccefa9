# SPDX-License-Identifier: Apache-2.0
"""Whether the schedules of a checkpoint still fit the run that resumes it."""
from __future__ import annotations

from typing import Any

from mmengine.runner import EpochBasedTrainLoop, Runner

from pic_plugin.engine.ranks import images_of_a_step
from pic_plugin.wording import counted

#: How to train on with another schedule.
FURTHER = ('start from the network, with new class weights: load_from=CHECKPOINT and resume=False '
           '(`pretrain DATA --from WORK --out NEW`)')


def schedule_notices(runner: Runner, checkpoint: dict[str, Any]) -> list[str]:
    """Whether saved schedulers, which count iterations, still fit a run that is resumed.

    Args:
        runner (Runner): Of the run that resumes.
        checkpoint (dict): Its ``meta`` says how many epochs and iterations it has seen, and
            ``pic_stream`` how far into the next epoch.
    """
    meta = checkpoint.get('meta', {})
    epochs, iterations = meta.get('epoch', 0), meta.get('iter', 0)
    num_batches = len(runner.train_dataloader)
    # Saved within an epoch: what is done of it is not of the whole epochs.
    stream = checkpoint.get('pic_stream')
    begun = stream.get('offset') if isinstance(stream, dict) else 0
    begun = begun if isinstance(begun, int) else 0
    iterations -= begun // images_of_a_step(runner.train_dataloader)
    if not epochs or iterations == epochs * num_batches or not isinstance(
            runner.train_loop, EpochBasedTrainLoop):
        return []
    return [f'An epoch had {iterations / epochs:.0f} iterations and has {num_batches} now. '
            'Learning-rate schedules go on as they were planned, by iterations, and so end before '
            f'or after the training does. To plan them anew, {FURTHER}.']


def check_schedulers(runner: Runner, checkpoint: dict[str, Any]) -> None:
    """Refuse a checkpoint without the state of the optimizer or of the schedulers that a run has.

    mmengine goes on with schedulers that start anew on the learning rate that was saved: a warm-up
    from a hundredth then multiplies it by a hundred.

    Raises:
        ValueError: If the optimizer's state or schedulers are missing, or there are others than the
            run's.
    """
    if 'optimizer' not in checkpoint:
        raise ValueError(
            'this checkpoint cannot be resumed: it was saved without the state of the optimizer. '
            'Start from its network alone with load_from=CHECKPOINT and resume=False, or resume '
            'from another one.')
    own, saved = _counts(runner.param_schedulers), _counts(checkpoint.get('param_schedulers'))
    if any(own) and not any(saved):
        raise ValueError(
            'this checkpoint cannot be resumed: it was saved without its learning-rate schedulers '
            '(CheckpointHook(save_param_scheduler=False)), and the rate would not go on as it was '
            f'planned. Resume from a checkpoint that has them, or {FURTHER}.')
    if sum(own) != sum(saved) or (any(own) and own != saved):
        raise ValueError(
            'this checkpoint cannot be resumed: it was saved with '
            f'{counted(sum(saved), "learning-rate scheduler")}, and this run has '
            f'{sum(own)}: set param_scheduler as it was, or, to train further with other '
            f'schedulers, {FURTHER}.')


def _counts(schedulers: Any) -> list[int]:
    """Schedulers of each optimizer."""
    if isinstance(schedulers, dict):
        return [len(part) for _, part in sorted(schedulers.items())]
    return [len(schedulers or [])]
