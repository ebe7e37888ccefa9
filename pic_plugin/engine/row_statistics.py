# SPDX-License-Identifier: Apache-2.0
"""Logged scalars of class weights, and the warning that rows return as almost nothing."""
from __future__ import annotations

import torch
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner

from pic_plugin.bank import SampledClassWeights
from pic_plugin.bank.correction import MAX_DECAY


def is_time_to_log(hook: Hook, runner: Runner, batch_idx: int, interval: int | None) -> bool:
    """Whether a hook logs in this iteration: at its interval or the LoggerHook's, or at the end."""
    interval = interval or next(
        (one.interval for one in runner.hooks if isinstance(one, LoggerHook)), 10)
    return hook.every_n_inner_iters(batch_idx, interval) or hook.end_of_epoch(
        runner.train_dataloader, batch_idx)


class RowStatistics:
    """Logs what cannot be seen in the loss.

    Scalars: ``active_classes``, ``class_weight_norm`` (mean norm of the active class weights),
    ``row_staleness`` (optimizer steps that the rows which returned in this step had missed, mean)
    and ``row_decay`` (weight decay shrinks a row by exp(-this) in that time, at the present rate).

    Args:
        class_weights (SampledClassWeights): Of the training.
    """

    def __init__(self, class_weights: SampledClassWeights) -> None:
        self.class_weights = class_weights
        self._warned = False

    def log(self, runner: Runner) -> None:
        """Put the scalars of this step into the message hub; warn once of a strong decay."""
        weights = self.class_weights.active.detach()
        missed = self.class_weights.missed
        processes = self.class_weights.bank.slots.processes
        sums = torch.tensor([float(weights.norm(dim=1).sum()), len(weights),
                             float(missed.sum()), len(missed)], dtype=torch.float64)
        norms, num_active, num_missed, num_returned = processes.sum(sums, 'logging').tolist()
        # Unsharded, each process has counted all of them.
        copies = processes.size // self.class_weights.bank.slots.num_shards
        staleness = num_missed / num_returned if num_returned else 0.0
        decay = self.class_weights.bank.correction.decay(self.class_weights.group, staleness)
        for name, value in dict(class_weight_norm=norms / num_active,
                                active_classes=round(num_active / copies),
                                row_staleness=staleness, row_decay=decay).items():
            runner.message_hub.update_scalar(f'train/{name}', value)
        if decay > MAX_DECAY and not self._warned:  # see docs/numerical_health.md
            self._warned = True
            runner.logger.warning(
                f'Class weights that return to the softmax have missed {staleness:.0f} steps on '
                f'average, in which weight decay shrinks them by exp(-{decay:.1f}), as it would '
                'without sampling. A step turns so short a weight too far. Let images return '
                'sooner (a smaller window_size), or lower the weight decay of class weights: '
                "optim_wrapper=dict(paramwise_cfg=dict(custom_keys={'head.weight': "
                'dict(decay_mult=0)})).')
