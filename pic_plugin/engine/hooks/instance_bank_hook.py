# SPDX-License-Identifier: Apache-2.0
"""The hook that drives PIC's sampled class weights from mmengine's Runner."""
from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from mmpretrain.utils import get_ori_model

from pic_plugin.bank import InstanceBank, SampledClassWeights
from pic_plugin.datasets.instance_numbers import number_instances
from pic_plugin.engine.checkpoint.bank_checkpoint import BankCheckpoint
from pic_plugin.engine.checkpoint.checkpoint_file import guard_loading
from pic_plugin.engine.checkpoint.instance_keys import instance_keys
from pic_plugin.engine.checkpoint.plain_checkpoint import to_plain_message_hub, with_history_buffers
from pic_plugin.engine.checkpoint.resumed_network import take_trained
from pic_plugin.engine.evaluation_checks import check_evaluation
from pic_plugin.engine.head_setup import (
    absence,
    find_head,
    resize_head,
    sample_class_weights,
)
from pic_plugin.engine.preflight import (
    check_dataset_ids,
    check_drawn_ids,
    check_first_batch,
    check_runner,
    checkpoint_notices,
    describe_plan,
    loader_notices,
)
from pic_plugin.engine.random_state import seed_iteration
from pic_plugin.engine.ranks import images_of_a_step, on_all_ranks
from pic_plugin.engine.row_prefetch import RowPrefetcher
from pic_plugin.engine.row_statistics import RowStatistics, is_time_to_log
from pic_plugin.engine.runner_private import (
    accumulative_counts,
    end_workers,
    find_wrapper,
    has_loaded,
    is_training,
    restart_workers,
)
from pic_plugin.engine.same_images import check_same_images
from pic_plugin.engine.schedule_checks import schedule_length_notices
from pic_plugin.engine.sharded_head import prepare_sharded_head
from pic_plugin.engine.single_images import leave_out_single_images
from pic_plugin.engine.stream_position import StreamPosition, epoch_and_batch
from pic_plugin.engine.train_loader import skipped_notice
from pic_plugin.models.pic_head import instance_ids


@HOOKS.register_module()
class InstanceBankHook(Hook):
    """Brings the batch's classes into the softmax before each step, and saves the bank.

    :class:`pic_plugin.bank.SampledClassWeights` does the work; this hook calls it at the right
    moments of mmengine's Runner, checks the config before the first step, and logs the state of
    the class weights.

    Its checkpoints resume exactly: the bank is written beside the ``.pth``, which holds plain
    containers only and appears under its name when it is complete. The random numbers of each
    iteration are a function of (seed, iteration, rank), as with a ``PlainCheckpointHook``.

    Args:
        log_interval (int, optional): Iterations between two updates of the logged scalars (active
            classes, staleness of returning rows in optimizer steps, mean norm of active class
            weights). Defaults to None: the LoggerHook's interval.
        id_key (str, optional): Entry of a data info that identifies an image once and for all, so
            that a resumed run finds each image's class weight again when images were added, or
            are listed in another order. Defaults to 'img_path', which is taken relative to the
            data set's folder. None, or a data set without it: images are known by their place.

    Raises:
        ValueError: At the start of training, if the data set's ids may collide, processes see
            different images, the head's sizes do not fit, no correction is known for the
            optimizer, the runner is not mmengine's Runner, or the hook is there twice.
    """

    # Before hooks of NORMAL priority, so that these see the classes of the step.
    priority = 'ABOVE_NORMAL'

    def __init__(self, log_interval: int | None = None, id_key: str | None = 'img_path') -> None:
        if log_interval is not None and log_interval < 1:
            raise ValueError(f'log_interval must be at least 1 iteration, not {log_interval}.')
        self.log_interval = log_interval
        self.id_key = id_key
        self.class_weights: SampledClassWeights | None = None
        self.prefetcher: RowPrefetcher | None = None
        self._checked_batch = False

    def before_run(self, runner: Runner) -> None:
        """Make the bank; take over how checkpoints are written and resumed."""
        if self.class_weights is not None:
            return  # validation or test after training: the bank is that of the training
        guard_loading(runner)
        if not is_training(runner):
            return  # testing: the head is only looked at
        check_runner(runner, self)
        self.head = find_head(runner.model)
        loader = runner.train_dataloader
        keys = instance_keys(loader.dataset, self.id_key)
        # Before anything that would fail in one process alone, for which the others would wait.
        check_same_images(loader.dataset, keys, self.id_key)
        num_instances = check_dataset_ids(loader.dataset, self.head.num_instances)
        if number_instances(loader.dataset).renumbered:
            restart_workers(runner)
        wrapper = find_wrapper(runner, self.head.weight)
        resize_head(self.head, num_instances,
                    (accumulative_counts(wrapper) - 1) * images_of_a_step(loader),
                    wrapped=is_model_wrapper(runner.model))
        prepare_sharded_head(runner, self.head, wrapper)
        self.class_weights = sample_class_weights(runner, self.head, wrapper.optimizer)
        self.head.attach(self.class_weights)
        self.statistics = RowStatistics(self.class_weights)
        self.checkpoint = BankCheckpoint(runner, self.class_weights, get_ori_model(runner.model),
                                         keys)
        self.stream = StreamPosition(runner)
        check_evaluation(runner, runner.val_loop)
        self.checkpoint.take_over()
        if RowPrefetcher.is_of_use(self.class_weights, loader):
            self.prefetcher = RowPrefetcher(self.class_weights, loader)
        for notice in loader_notices(runner) + checkpoint_notices(runner):
            runner.logger.warning(notice)

    @property
    def bank(self) -> InstanceBank:
        """The bank of all class weights."""
        return self.head.bank

    def before_train(self, runner: Runner) -> None:
        """Fill the head for a training that begins, and say what is about to happen."""
        assert self.class_weights is not None, 'before_run has made them'
        self.stream.restore(runner)
        self.class_weights.refresh = self.class_weights.refresh._replace(
            away=absence(runner, self.head))
        if self.checkpoint.restored:
            on_all_ranks(self.class_weights.resume)
        else:
            if runner.iter:
                raise RuntimeError(
                    f'training continues at iteration {runner.iter}, but the class weights were '
                    'not restored: resume with resume=True (and load_from=CHECKPOINT), not by '
                    'loading parts of a checkpoint. A second train() needs a Runner of its own.')
            if has_loaded(runner):
                runner.logger.info('load_from: the class weights start anew; only resume=True '
                                   'continues with those of the checkpoint.')
            on_all_ranks(self.class_weights.start)
        runner.logger.info(describe_plan(runner, self.head))
        notices = [*schedule_length_notices(runner), leave_out_single_images(runner)]
        for notice in filter(None, notices):
            runner.logger.warning(notice)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed all random generators for the epoch."""
        self.stream.begin_epoch(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch: dict | None = None) -> None:
        """Bring the batch's classes into the softmax."""
        assert self.class_weights is not None and data_batch is not None, 'training is under way'
        place = epoch_and_batch(runner, batch_idx)
        if not self._checked_batch:
            check_first_batch(data_batch, self.head, get_ori_model(runner.model))
            check_drawn_ids(runner, *place, instance_ids(data_batch['data_samples']))
            self._checked_batch = True
        seed_iteration(runner)
        if self.prefetcher is not None:
            self.prefetcher.advance(*place)
        ids = instance_ids(data_batch['data_samples'])
        if runner.cfg.get('compile') not in (None, False):  # it would have to look into this
            self.class_weights.sample(ids)
        else:
            self.head.sample_later(ids)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Log what cannot be seen in the loss."""
        self.head.sample_later(None)  # a batch that was left out has had no loss
        if is_time_to_log(self, runner, batch_idx, self.log_interval):
            self.statistics.log(runner)

    def after_train(self, runner: Runner) -> None:
        """Let no thread and no worker outlive the training; say what it had to leave out."""
        notice = skipped_notice(runner.train_dataloader)
        if notice is not None:
            runner.logger.warning(notice)
        if self.prefetcher is not None:
            self.prefetcher.close()
        end_workers(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Plain containers only, and with them what belongs to the bank."""
        to_plain_message_hub(checkpoint)
        self.stream.save(checkpoint)
        self.checkpoint.add_state(checkpoint)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn the plain containers back; refuse to resume what does not fit."""
        with_history_buffers(checkpoint)
        if self.class_weights is not None:
            take_trained(runner, checkpoint)
            self.checkpoint.check_state(checkpoint)
            self.stream.load(runner, checkpoint)
