# SPDX-License-Identifier: Apache-2.0
"""Whether optimizers and schedules of a checkpoint still fit the run that resumes it."""
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
        ValueError: If the optimizer's state or schedulers are missing, or they are of another
            optimizer or of other schedulers than the run's.
    """
    if 'optimizer' not in checkpoint:
        raise ValueError(
            'this checkpoint cannot be resumed: it was saved without the state of the optimizer. '
            'Start from its network alone with load_from=CHECKPOINT and resume=False, or resume '
            'from another one.')
    _check_optimizers(runner.optim_wrapper, checkpoint['optimizer'])
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


def _check_optimizers(wrapper: Any, saved: dict[str, Any]) -> None:
    """Tell optimizers by their options, those of the class weights and of a network beside them."""
    several = hasattr(wrapper, 'optim_wrappers')
    for name, one in wrapper.items() if several else [('', wrapper)]:
        group = (saved.get(name, {}) if several else saved).get('param_groups', [{}])[0]
        missing = sorted(set(one.optimizer.defaults) - set(group))
        unknown = sorted(set(group) - set(one.optimizer.param_groups[0]))
        # Another version of torch may know of more options, or of fewer.
        if missing and unknown:
            raise ValueError(
                f'this checkpoint cannot be resumed: it was saved with an optimizer that has '
                f'{", ".join(unknown)}, and {type(one.optimizer).__name__} of this run has '
                f'{", ".join(missing)}: set the optimizer as it was, or {FURTHER}.')


def _counts(schedulers: Any) -> list[int]:
    """Schedulers of each optimizer."""
    if isinstance(schedulers, dict):
        return [len(part) for _, part in sorted(schedulers.items())]
    return [len(schedulers or [])]
