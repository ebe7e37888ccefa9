# SPDX-License-Identifier: Apache-2.0
"""Head of PIC: the class weights in the softmax and the loss over them."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from pic_plugin.bank import GlobalBatch, InstanceBank, SampledClassWeights, Slots
from pic_plugin.bank.row_codec import DTYPES
from pic_plugin.bank.transfers import to_device
from pic_plugin.communication import communicator
from pic_plugin.losses import Shards

HOOK_LINE = "custom_hooks = [dict(type='InstanceBankHook')]"
NO_BANK = ('PICHead has no bank of class weights: nothing moves the classes of a batch into the '
           f'softmax. Add to your config: {HOOK_LINE}')


@MODELS.register_module()
class PICHead(BaseModule):
    """Cosine softmax over the instance classes that were sampled most recently.

    ``weight`` is an ordinary parameter that holds the rows of the active classes; an
    ``InstanceBankHook`` moves rows between it and the bank of all classes around each step. Memory
    on the device and the time of a step depend on ``num_negatives`` alone.

    Args:
        feat_dim (int): d, width of the projected features. Defaults to 128.
        num_instances (int, optional): N, images in the training data set. Defaults to None: taken
            from the data set before the first step. Needed for a full softmax under
            DistributedDataParallel, which fixes the parameter's size when it wraps the model.
        num_negatives (int, optional): K, classes in the softmax, the batch's own included. None or
            at least N: all instances. Defaults to 65536.
        loss (dict): Config of the loss, of CosineSoftmaxLoss if it has no type. Its module is
            called with features (B, d), class weights (A, d) and targets (B,), and may have
            ``with_accuracy`` of the same arguments that gives the top-1 accuracy too. One that
            spans processes says ``takes_shards = True``, and its ``with_accuracy`` takes
            ``shards`` as well.
        correct_weights (bool): Whether a class that returns to the softmax gets the momentum and
            weight decay of the steps that it missed. False leaves rows as they were (the
            uncorrected variant of the paper's Table 2). Defaults to True.
        storage (dict): Where the other rows are: ``dict(type='memory')``, the default, or
            ``dict(type='mmap', path=...)`` for a sparse scratch file of N records (``path``
            defaults to ``class_weights.bank`` in the work directory). With
            ``dtype='float16'`` or ``'bfloat16'`` they are rounded to take half the space; the
            rows in the softmax are not. ``dtype`` defaults to 'float32'.
        pending_rows (int): Room for classes that leave the softmax before the optimizer has
            applied their gradient; 0 without gradient accumulation. Set
            automatically before training, except under DistributedDataParallel, where it has to
            be given: (accumulative_counts - 1) * global batch size. Defaults to 0.
        sharded (bool): Whether each process holds, and trains, a part of the active classes only:
            1 / (number of processes) of the memory, and no all-reduce of their gradient; features
            are gathered instead. For K so large that K * d is more than a device or the network
            between them should carry. ``num_instances`` and ``pending_rows`` need not be given.
            Without effect in a single process. Defaults to False.
        refresh_returning (float): Share, 0 to 1, by which the row of an image that comes back
            after an absence is turned to the image's present feature before the loss. Only
            its direction changes, and the optimizer's state for it is cleared. 0: rows are
            exactly as the optimizer makes them. Defaults to 0.
        returning_after (int, optional): Optimizer steps of absence beyond which an image counts as
            having been away, whatever K is. Defaults to None: those of two windows of the
            SlidingWindowSampler, which visits in neighbouring windows never exceed; 0, so every
            visit in a later step, with other samplers and a window of all images.
        init_cfg (dict, optional): mmengine's; the class weights are not subject to it.

    Raises:
        ValueError: If a size is not positive or the share is outside of 0 to 1.
    """

    def __init__(self,
                 feat_dim: int = 128,
                 num_instances: int | None = None,
                 num_negatives: int | None = 65536,
                 loss: dict | None = None,
                 correct_weights: bool = True,
                 storage: dict | None = None,
                 pending_rows: int = 0,
                 sharded: bool = False,
                 refresh_returning: float = 0.0,
                 returning_after: int | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        for name, value, least in (('feat_dim', feat_dim, 1), ('num_instances', num_instances, 1),
                                   ('num_negatives', num_negatives, 1),
                                   ('pending_rows', pending_rows, 0),
                                   ('returning_after', returning_after, 0)):
            if value is not None and (type(value) is not int or value < least):
                raise ValueError(f'{name} must be an integer of at least {least}, not {value!r}.')
        if not isinstance(refresh_returning, (int, float)) or not 0 <= refresh_returning <= 1:
            raise ValueError('refresh_returning is the share of 0 to 1 by which a row is turned, '
                             f'not {refresh_returning!r}.')
        self.feat_dim = feat_dim
        self.num_instances = num_instances
        self.num_negatives = num_negatives
        self.correct_weights = correct_weights
        self.pending_rows = pending_rows
        self.sharded = sharded
        self.refresh_returning = refresh_returning
        self.returning_after = returning_after
        self.storage = _check_storage(storage or dict(type='memory'))
        self.loss_module = MODELS.build({'type': 'CosineSoftmaxLoss', **(loss or {})})
        self.weight = nn.Parameter(torch.zeros(self.slots.num_rows, feat_dim))
        self._sampled: SampledClassWeights | None = None
        self._coming: np.ndarray | None = None
        self._checked: tuple[Sequence[Any], GlobalBatch] | None = None

    @property
    def is_full(self) -> bool:
        """Whether the softmax runs over all instances, as far as N is known."""
        return self.num_negatives is None or (self.num_instances is not None
                                              and self.num_negatives >= self.num_instances)

    @property
    def num_slots(self) -> int:
        """Places for classes; 0 while that depends on an N that is not known."""
        if self.is_full:
            return self.num_instances or 0
        assert self.num_negatives is not None, 'else the softmax is full'
        return self.num_negatives + self.pending_rows

    @property
    def slots(self) -> Slots:
        """The slots of ``weight`` in all processes."""
        return Slots(self.num_slots, communicator(), self.sharded)

    @property
    def bank(self) -> InstanceBank:
        """The bank of all class weights; no attribute before a hook has attached one."""
        if self._sampled is None:
            raise AttributeError('bank')  # replaced by that of __getattr__
        return self._sampled.bank

    def __getattr__(self, name: str) -> Any:
        # nn.Module's own would hide why a property has no value yet.
        if name == 'bank':
            raise AttributeError(NO_BANK)
        return super().__getattr__(name)

    def __getstate__(self) -> dict[str, Any]:
        # A copy, such as that of averaged weights, is only looked at: it has no bank of its own.
        return dict(self.__dict__, _sampled=None, _coming=None, _checked=None)

    def attach(self, class_weights: SampledClassWeights) -> None:
        """Take what keeps this head's parameter, the optimizer and the stored rows in step.

        Raises:
            ValueError: If the loss cannot be computed on a sharded head.
        """
        if class_weights.bank.slots.is_sharded:
            if not getattr(self.loss_module, 'takes_shards', False):
                raise ValueError(
                    f'a sharded head needs a loss that spans processes (takes_shards = True), and '
                    f"{type(self.loss_module)} does not: choose loss=dict(type="
                    "'CosineSoftmaxLoss'), or PICHead(sharded=False).")
        self._sampled, self._coming = class_weights, None

    def sample_later(self, ids: np.ndarray | None) -> None:
        """Bring classes into the softmax when :meth:`loss` is called, and not before.

        On a GPU that hides the time which it takes: the backbone's forward pass is queued by then,
        and the device busy. Until then ``weight`` holds the classes of the step before: an
        algorithm that reads it before the loss calls :meth:`SampledClassWeights.sample` itself.

        Args:
            ids (np.ndarray, optional): (B,) int64, instance classes of this process's batch; None
                to forget those of a batch that will have no loss.
        """
        self._coming = ids

    @property
    def active_ids(self) -> Tensor:
        """(A,) int64, ids of the classes in the softmax, in the order of its rows.

        With several processes, which bring classes in together, they are those of the step before
        until a step's loss is computed.
        """
        sampled = self._attached()
        if sampled.bank.slots.processes.size == 1:
            self._sample_coming()
        return sampled.active_ids

    def class_weights(self, ids: Tensor | np.ndarray | Sequence[int]) -> Tensor:
        """Rows as dense training would hold them after the last optimizer step.

        With several processes all of them have to call this together, with the same ids.

        Args:
            ids (Tensor): (M,) int64 instance classes: active, stored or never visited.

        Returns:
            Tensor: (M, d) float32, on the device of ``weight``, detached.

        Raises:
            ValueError: If an id is outside [0, N).
        """
        return self._attached().rows(ids)

    def loss(self, feats: Tensor | tuple[Tensor, ...], data_samples: list[Any],
             train_weights: bool = True) -> dict[str, Tensor]:
        """Loss of one view.

        Args:
            feats (Tensor | tuple): (B, d) projected features, or a tuple that ends with them.
            data_samples (list[DataSample]): B samples with ``sample_idx``.
            train_weights (bool): Whether the class weights receive a gradient. Defaults to True.

        Returns:
            dict[str, Tensor]: ``loss`` and, if the loss module gives it, ``instance_acc``: top-1
            accuracy among the active classes, percent. The loss is the mean over the batch; with
            several processes it is weighted so that its mean over them is that over all images.

        Raises:
            RuntimeError: If no hook has attached a bank, or several processes have not been told
                what batch they have together.
            ValueError: If the features do not have d columns and one row for each sample.
        """
        sampled = self._attached()
        self._sample_coming()
        features = feats[-1] if isinstance(feats, (tuple, list)) else feats  # (B, d)
        if features.shape != (len(data_samples), self.feat_dim):
            raise ValueError(
                f'PICHead expects projected features of shape ({len(data_samples)}, '
                f'{self.feat_dim}), (samples, feat_dim), and got {tuple(features.shape)}: set '
                'out_channels of the neck and feat_dim of the head to the same number.')
        batch = self._batch_of(data_samples)
        if train_weights:
            sampled.turn_returning(features)
        class_weights = sampled.active if train_weights else sampled.active.detach()  # (A, d)
        targets = sampled.targets if batch is sampled.batch else to_device(
            sampled.bank.targets(batch), features.device)
        inputs: list[Any] = [features, class_weights, targets]
        if sampled.bank.slots.is_sharded:
            inputs.append(Shards(sampled.bank.slots.processes, batch.sizes))
        if hasattr(self.loss_module, 'with_accuracy'):
            loss, accuracy = self.loss_module.with_accuracy(*inputs)
            losses = dict(loss=loss, instance_acc=accuracy)
        else:
            losses = dict(loss=self.loss_module(*inputs))
        if batch.loss_factor != 1:
            losses['loss'] = losses['loss'] * batch.loss_factor
        return losses

    def _attached(self) -> SampledClassWeights:
        if self._sampled is None:
            raise RuntimeError(NO_BANK)
        return self._sampled

    def _sample_coming(self) -> None:
        if self._coming is not None:
            ids, self._coming = self._coming, None
            self._attached().sample(ids)

    def _batch_of(self, data_samples: Sequence[Any]) -> GlobalBatch:
        """The batch of all processes that holds these samples; read once for all views of it."""
        sampled = self._attached()
        if self._checked is not None and self._checked[0] is data_samples:
            return self._checked[1]
        batch, ids = sampled.batch, instance_ids(data_samples)
        if batch is None or not np.array_equal(batch.own_ids, ids):
            if sampled.bank.slots.processes.size > 1:
                raise RuntimeError('the samples of this loss are not those that the processes have '
                                   f'told each other of before the step: {HOOK_LINE} does that.')
            batch = GlobalBatch(ids, [len(ids)])
        self._checked = data_samples, batch
        return batch

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # A head that is only looked at (evaluation, export) takes the rows that a checkpoint has.
        saved = state_dict.get(prefix + 'weight')
        if saved is not None and self._sampled is None and saved.shape[1:] == self.weight.shape[1:]:
            self.weight.data = self.weight.data.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(feat_dim={self.feat_dim}, num_instances='
                f'{self.num_instances}, num_negatives={self.num_negatives}, '
                f'correct_weights={self.correct_weights}, sharded={self.sharded}, '
                f'loss={self.loss_module})')


def instance_ids(data_samples: Sequence[Any]) -> np.ndarray:
    """Instance classes of samples: their indices in the training data set.

    Returns:
        np.ndarray: (B,) int64.

    Raises:
        ValueError: If a sample has no integer ``sample_idx``.
    """
    ids = []
    for sample in data_samples:
        sample_idx = getattr(sample, 'sample_idx', None)
        if sample_idx is None:
            raise ValueError(
                'a sample has no sample_idx, so its instance class is unknown: end the pipeline '
                "with dict(type='PackInputs', meta_keys=('sample_idx', )) and let the data set be "
                "mmengine's BaseDataset or give sample_idx itself.")
        if int(sample_idx) != sample_idx:
            raise ValueError(f'sample_idx must be an integer, not {sample_idx!r}.')
        ids.append(int(sample_idx))
    return np.array(ids, dtype=np.int64)


def _check_storage(storage: dict) -> dict:
    if not isinstance(storage, dict):
        storage = dict(type=storage)
    storage = {'type': 'memory', **storage}
    storage.pop('_scope_', None)
    kinds = dict(memory={'type', 'dtype'}, mmap={'type', 'dtype', 'path'})
    known: set = kinds.get(str(storage.get('type')), set())
    if not known or set(storage) - known or storage.get('dtype', 'float32') not in DTYPES:
        raise ValueError(f"storage {storage} is unknown: choose dict(type='memory') or "
                         "dict(type='mmap', path=...), if wanted with dtype= one of "
                         f'{", ".join(DTYPES)}.')
    return storage
