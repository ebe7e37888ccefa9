# SPDX-License-Identifier: Apache-2.0
"""The hook that keeps the head's active classes, the optimizer and the stored rows in step."""
from __future__ import annotations

from typing import Any, Optional

import mmengine.dist as dist
import numpy as np
import torch
from mmengine.hooks import LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS
from torch import Tensor
from torch.optim import Optimizer

from pic_plugin.bank import InstanceBank, Planes, sgd_transition
from pic_plugin.collectives import sum_over_ranks
from pic_plugin.datasets.instance_numbers import number_instances
from pic_plugin.engine.checkpoint.bank_checkpoint import BankCheckpoint
from pic_plugin.engine.checkpoint.checkpoint_file import guard_loading
from pic_plugin.engine.checkpoint.head_rows import HeadRows
from pic_plugin.engine.checkpoint.instance_keys import instance_keys
from pic_plugin.engine.checkpoint.shard_checkpoint import ShardCheckpoint
from pic_plugin.engine.head_setup import (
    check_hooks,
    check_optimizer,
    clip_over_shards,
    find_head,
    find_model,
    find_wrapper,
    group_of,
    resize_head,
)
from pic_plugin.engine.hooks.plain_checkpoint_hook import PlainCheckpointHook
from pic_plugin.engine.preflight import (
    check_dataset_ids,
    check_first_batch,
    checkpoint_notices,
    describe_plan,
    loader_notices,
)
from pic_plugin.engine.ranks import gather_batch, move_rows, on_all_ranks, share_slots
from pic_plugin.engine.row_prefetch import RowPrefetcher
from pic_plugin.engine.shard_clipping import check_elementwise
from pic_plugin.models.pic_head import instance_ids

# Decay of rows between visits, as lr / (1 - momentum) * weight decay * steps. The authors' setting
# is at 2.4 for the image that waits longest; from 7 on, norms were seen to leap to 40.
MAX_DECAY = 3.0


@HOOKS.register_module()
class InstanceBankHook(PlainCheckpointHook):
    """Moves class weights between the head and the bank around each step, and saves both.

    Before a step it gathers the ids of the global batch, brings their rows into the head's
    parameter and moves the longest-unsampled ones out, each with its row of the optimizer's state.
    It counts the optimizer steps that were really taken (not those that gradient accumulation
    postpones or a gradient scaler skips), with the transition each one means for absent rows.

    It also makes checkpoints that a resumed run continues from exactly: the bank is written beside
    the ``.pth``, which holds plain containers only and appears under its name when it is complete.
    The random numbers of each epoch are a function of (seed, epoch, rank), as with a
    ``PlainCheckpointHook``.

    Args:
        log_interval (int, optional): Iterations between two updates of the logged scalars (active
            classes, staleness of returning rows in optimizer steps, mean norm of active class
            weights). Defaults to None: the LoggerHook's interval.
        id_key (str, optional): Entry of a data info that tells an image from all others for good,
            so that a resumed run finds each image's class weight again when images were added, or
            are listed in another order. Defaults to 'img_path', which is taken relative to the
            data set's folder. None, or a data set without it: images are known by their place.

    Raises:
        ValueError: At the start of training, if the data set's ids may collide, the head's sizes
            do not fit, or the optimizer is none whose effect on absent rows is known.
    """

    # Before hooks of NORMAL priority, so that these see the classes of the step.
    priority = 'ABOVE_NORMAL'

    def __init__(self, log_interval: Optional[int] = None,
                 id_key: Optional[str] = 'img_path') -> None:
        if log_interval is not None and log_interval < 1:
            raise ValueError(f'log_interval must be at least 1 iteration, not {log_interval}.')
        self.log_interval = log_interval
        self.id_key = id_key
        self._restored = False
        self._checked_batch = False
        self._warned = False

    def before_run(self, runner: Runner) -> None:
        """Prepare the head; make the bank; take over how checkpoints are written and resumed."""
        if isinstance(runner._train_loop, dict) or runner._train_loop is None:
            guard_loading(runner)
            return  # testing: the head is only looked at
        if hasattr(self, 'bank'):
            return  # validation or test after training: the bank is that of the training
        guard_loading(runner)
        self.head = find_head(runner.model)
        num_instances = check_dataset_ids(runner.train_dataloader.dataset,
                                          self.head.num_instances)
        if number_instances(runner.train_dataloader.dataset).renumbered:
            _restart_workers(runner)
        wrapper = find_wrapper(runner, self.head.weight)
        self.optimizer, accumulative_counts = wrapper.optimizer, wrapper._accumulative_counts
        global_batch = (runner.train_dataloader.batch_size or 1) * dist.get_world_size()
        resize_head(self.head, num_instances, (accumulative_counts - 1) * global_batch,
                     wrapped=is_model_wrapper(runner.model))
        correct = self.head.correct_weights and not self.head.is_full
        if correct:
            check_optimizer(self.optimizer)
        if self.head.is_sharded:
            check_hooks(runner)
            check_elementwise(self.optimizer)
            clip_over_shards(wrapper, self.head.weight)
        self.bank = self._make_bank(runner, num_instances, correct)
        self.head.attach(self.bank)
        self.optimizer.register_step_pre_hook(self._before_step)
        self.optimizer.register_step_post_hook(self._after_step)
        head_rows = HeadRows(find_model(runner.model), self.head.weight, self.optimizer)
        self.checkpoint = BankCheckpoint(
            runner, self.bank, head_rows,
            ShardCheckpoint(self.bank, head_rows, self.head.weight, self.optimizer),
            instance_keys(runner.train_dataloader.dataset, self.id_key))
        self.checkpoint.take_over(on_resumed=self._after_resume)
        self.prefetcher: Optional[RowPrefetcher] = None
        if RowPrefetcher.is_of_use(self.bank, runner.train_dataloader):
            self.prefetcher = RowPrefetcher(self.bank, runner.train_dataloader)
        for notice in loader_notices(runner) + checkpoint_notices(runner):
            runner.logger.warning(notice)

    def _make_bank(self, runner: Runner, num_instances: int, correct: bool) -> InstanceBank:
        path = None
        if self.head.storage['type'] == 'mmap':
            path = self.head.storage.get('path') or f'{runner.work_dir}/class_weights.bank'
            path = f'{path}-{dist.get_rank()}of{dist.get_world_size()}'
        return InstanceBank(
            num_instances,
            self.head.num_negatives,
            self.head.num_slots,
            self.head.feat_dim,
            seed=runner.seed,
            correct=correct,
            num_states=1 if type(self.optimizer) is torch.optim.SGD else None,
            path=path,
            dtype=self.head.storage.get('dtype', 'float32'),
            rank=dist.get_rank(),
            world_size=dist.get_world_size(),
            exchange=move_rows,
            shards=share_slots() if self.head.is_sharded else None)

    def _after_resume(self, runner: Runner) -> None:
        self._restored = True
        _reseed_loader(runner, self.checkpoint.restored_sampler_seed)

    def before_train(self, runner: Runner) -> None:
        """Fill the head for a training that begins, and say what is about to happen."""
        if not self._restored:
            if runner.iter:
                raise RuntimeError(
                    f'training continues at iteration {runner.iter}, but the class weights were '
                    'not restored: resume with resume=True (and load_from=CHECKPOINT), not by '
                    'loading parts of a checkpoint.')
            if runner._has_loaded:
                runner.logger.info('load_from: the class weights start anew; only resume=True '
                                   'continues with those of the checkpoint.')
            with torch.no_grad():
                self.bank.start(self._planes())
        on_all_ranks(self.bank.open_store)
        runner.logger.info(describe_plan(runner, self.head))

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch: Optional[dict] = None) -> None:
        """Bring the batch's classes into the soft-max."""
        if not self._checked_batch:
            check_first_batch(data_batch, self.head, find_model(runner.model))
            self._checked_batch = True
        assert data_batch is not None, 'the train loop passes it'
        batch, pending = gather_batch(instance_ids(data_batch['data_samples']),
                                      self._has_pending_gradient())
        self.head.begin(batch)
        if self.prefetcher is not None:
            by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
            self.prefetcher.advance(*(
                (runner.epoch, batch_idx) if by_epoch else
                divmod(runner.iter, len(runner.train_dataloader))))
        with torch.no_grad():
            self._staleness = self.bank.sample(batch.ids, self._planes(), pending)

    def after_train(self, runner: Runner) -> None:
        """Let no thread outlive the training."""
        if self.prefetcher is not None:
            self.prefetcher.close()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        """Log what cannot be seen in the loss."""
        interval = self.log_interval or self._logger_interval(runner)
        if self.every_n_inner_iters(batch_idx, interval) or self.end_of_epoch(
                runner.train_dataloader, batch_idx):
            weights = self.head.weight.detach()[self.bank.softmax_rows]
            sums = torch.tensor([float(weights.norm(dim=1).sum()), len(weights),
                                 float(self._staleness.sum()), len(self._staleness)],
                                dtype=torch.float64)
            if self.bank.is_sharded:
                sums = sum_over_ranks(sums, 'logging')
            norms, num_active, missed, num_returned = sums.tolist()
            scalars = dict(
                class_weight_norm=norms / num_active,
                active_classes=int(num_active),
                row_staleness=missed / num_returned if num_returned else 0.0)
            for name, value in scalars.items():
                runner.message_hub.update_scalar(f'train/{name}', value)
            self._warn_of_decay(runner, scalars['row_staleness'])

    def _warn_of_decay(self, runner: Runner, staleness: float) -> None:
        """Say once that rows come back as almost nothing; see docs/numerical_health.md."""
        group = group_of(self.optimizer, self.head.weight)
        decay = (staleness * float(group['lr']) * group.get('weight_decay', 0)
                 / (1 - group.get('momentum', 0)))
        if self.bank.correct and decay > MAX_DECAY and not self._warned:
            self._warned = True
            runner.logger.warning(
                f'Class weights that return to the soft-max have missed {staleness:.0f} steps on '
                f'average, in which weight decay shrinks them by exp(-{decay:.1f}), as it would '
                'without sampling. From so short a weight a step leaps far. Let images return '
                'sooner (a smaller window_size), or lower the weight decay of class weights: '
                "optim_wrapper=dict(paramwise_cfg=dict(custom_keys={'head.weight': "
                'dict(decay_mult=0)})).')

    @staticmethod
    def _logger_interval(runner: Runner) -> int:
        return next((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 10)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Plain containers only, and with them what belongs to the bank."""
        super().before_save_checkpoint(runner, checkpoint)
        self.checkpoint.add_state(checkpoint)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn the plain containers back; refuse to resume what does not fit."""
        super().after_load_checkpoint(runner, checkpoint)
        if hasattr(self, 'checkpoint'):
            self.checkpoint.check_state(checkpoint)

    def _planes(self) -> Planes:
        weight = self.head.weight
        state = self.optimizer.state.get(weight, {})
        return Planes(weight.detach(), [
            state[name] for name in sorted(state)
            if isinstance(state[name], Tensor) and state[name].shape == weight.shape
        ])

    def _has_pending_gradient(self) -> bool:
        # None after zero_grad, which comes also after a step that the gradient scaler skipped.
        grad = self.head.weight.grad
        return grad is not None and bool(grad.any())

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Before the optimizer makes its momentum buffer: the first step differs."""
        if not self.bank.correct:
            self._transition = np.eye(2)
            return
        group = group_of(optimizer, self.head.weight)
        first = optimizer.state.get(self.head.weight, {}).get('momentum_buffer') is None
        self._transition = sgd_transition(
            float(group['lr']), float(group['momentum']), float(group['dampening']),
            float(group['weight_decay']), group['nesterov'], first)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self.head.weight.grad is None:
            return  # the optimizer has left the class weights alone
        # A fused optimizer is called even where the gradient scaler found an overflow.
        overflow = getattr(optimizer, 'found_inf', None)
        if overflow is None or not float(overflow):
            self.bank.record_step(self._transition)


def _reseed_loader(runner: Runner, sampler_seed: Optional[int]) -> None:
    """Let sampler and workers of a resumed run draw what the saved run would have drawn.

    A run without a seed in its config has drawn one, which is in the checkpoint; the loader was
    built before that was read.
    """
    loader = runner.train_dataloader
    if sampler_seed is not None and hasattr(loader.sampler, 'seed'):
        loader.sampler.seed = sampler_seed
    keywords = getattr(loader.worker_init_fn, 'keywords', {})
    if 'seed' in keywords:
        keywords['seed'] = runner.seed
    _restart_workers(runner)


def _restart_workers(runner: Runner) -> None:
    """Let workers that an iteration-based loop started when it was built start again.

    They have fetched samples already, from the data set and with the seed as they were then.
    """
    iterator = getattr(runner.train_loop, 'dataloader_iterator', None)
    if iterator is not None:
        runner.train_loop.dataloader_iterator = type(iterator)(runner.train_dataloader)
