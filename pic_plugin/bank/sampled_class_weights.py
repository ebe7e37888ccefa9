# SPDX-License-Identifier: Apache-2.0
"""Class weights with recent negatives for any training loop: no Runner, no registry."""
from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pic_plugin.communication import communicator

from .correction import Correction
from .corrections import correction_for, group_of, no_correction_for
from .global_batch import GlobalBatch, gather_batch
from .instance_bank import InstanceBank, SlotTensors
from .refresh import LastVisits, Refresh, refresh_rows
from .slots import Slots
from .step_hooks import keep_step_hooks
from .stored_rows import Storage
from .transfers import to_device


class SampledClassWeights:
    """Keeps a parameter of K class weights, its optimizer and the stored rows of N in step.

    The parameter is an ordinary one that the optimizer trains together with the network. Before
    each step :meth:`sample` brings the rows of the batch's classes into it, exact to the step, and
    moves the longest-unsampled ones out, each with its optimizer state. Hooks on the
    optimizer count the steps that were really taken. The softmax then runs over :attr:`active`,
    and everything is as if the optimizer trained all N rows.

    Args:
        weight (nn.Parameter): (S, d), S at least K (plus, with gradient accumulation, one row for
            each image of the batches before the last). It is filled by :meth:`start`.
        optimizer (Optimizer): Trains ``weight``; torch's SGD or AdamW.
        num_instances (int): N, images of the training data set.
        num_negatives (int, optional): K, classes in the softmax, the batch's own included. None, or
            at least N: all instances, and ``weight`` has N rows. Defaults to None.
        seed (int): Of the initial class weights. Defaults to 0.
        correction (Correction, optional): Defaults to None: the exact one for the optimizer.
        storage (Storage): Where the other rows are kept. Defaults to memory, in float32.
        slots (Slots, optional): For a parameter that is sharded over processes. Defaults to None:
            one slot for each row of ``weight``, the same in all processes of torch's default group
            (form it before).

    Raises:
        ValueError: If no correction is exact for the optimizer, it does not train ``weight``, or
            ``weight`` has too few rows.

    Example:
        >>> import torch
        >>> from pic_plugin.losses import cosine_softmax
        >>> network, weight = torch.nn.Linear(8, 4), torch.nn.Parameter(torch.empty(16, 4))
        >>> optimizer = torch.optim.SGD([*network.parameters(), weight], lr=0.1, momentum=0.9)
        >>> class_weights = SampledClassWeights(weight, optimizer, 100, num_negatives=16)
        >>> class_weights.start()
        >>> for ids in torch.arange(100).split(10):
        ...     optimizer.zero_grad()
        ...     targets = class_weights.sample(ids)
        ...     losses, _ = cosine_softmax(network(torch.randn(10, 8)), class_weights.active,
        ...                                targets)
        ...     losses.mean().backward()
        ...     optimizer.step()
        >>> class_weights.rows([0, 99]).shape, len(class_weights.active)
        (torch.Size([2, 4]), 16)
    """

    def __init__(self,
                 weight: nn.Parameter,
                 optimizer: Optimizer,
                 num_instances: int,
                 num_negatives: int | None = None,
                 seed: int = 0,
                 correction: Correction | None = None,
                 storage: Storage = Storage(),  # noqa: B008  it cannot be changed
                 slots: Slots | None = None) -> None:
        slots = slots or Slots(len(weight), communicator())
        if num_negatives is not None and num_negatives < 1:
            raise ValueError(f'num_negatives must be at least 1, or None for all instances; not '
                             f'{num_negatives!r}.')
        needed = min(num_negatives or num_instances, num_instances)
        if len(weight) < slots.num_rows or slots.num_slots < needed:
            raise ValueError(f'weight has {len(weight)} rows for a softmax over {needed} classes: '
                             f'give it at least {max(needed, slots.num_slots)}.')
        self.weight = weight
        self.optimizer = optimizer
        if correction is None:
            is_sampled = num_negatives is not None and num_negatives < num_instances
            correction = (correction_for(optimizer, weight) if is_sampled
                          else no_correction_for(optimizer, weight))
        self.bank = InstanceBank(num_instances, num_negatives, slots, weight.shape[1], seed,
                                 correction, storage)
        #: (E,) int64, optimizer steps that the rows had missed which the last sample brought in,
        #: of those that this process had stored.
        self.missed = np.empty(0, dtype=np.int64)
        self.batch: GlobalBatch | None = None
        #: What the last :meth:`sample` returned.
        self.targets = torch.empty(0, dtype=torch.int64)
        self._started = False
        self._has_gradient = False
        self.refresh = Refresh()
        #: When images were visited; None where no row is refreshed.
        self.last_visits: LastVisits | None = None
        self._returning = np.empty(0, dtype=np.int64)  # places in the batch of all processes
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(self._after_step)
        weight.register_post_accumulate_grad_hook(_notice_gradients(weakref.ref(self)))

    def refresh_with(self, refresh: Refresh) -> None:
        """Turn rows of images that come back to their present features, which is not exact.

        Args:
            refresh (Refresh): Which rows :meth:`turn_returning` turns, and how far.
        """
        self.refresh = refresh
        self.last_visits = LastVisits(self.bank.num_instances) if refresh.share else None

    @torch.no_grad()
    def start(self) -> None:
        """Begin a training: fill the parameter, and open the file of the store.

        Raises:
            RuntimeError: If it has begun, or a state was loaded: the parameter's rows would be
                lost.
        """
        if self._started:
            raise RuntimeError('start() begins a training, and this one has begun: call it once, '
                               'and not where load_state_dict() goes on from a state.')
        self.bank.start(self.tensors)
        self.resume()

    def resume(self) -> None:
        """Go on with a parameter and a bank that were restored, in the place of :meth:`start`."""
        self._started = True
        if not self.bank.is_full:
            self.bank.stored.open()

    def state_dict(self) -> dict[str, Any]:
        """Everything that :meth:`load_state_dict` continues from, bit for bit.

        Save it with the state dicts of the network, of ``weight`` and of the optimizer; each of
        several processes saves its own. It holds all stored rows in memory.

        Returns:
            dict: Plain values and tensors, which ``torch.load(..., weights_only=True)`` reads.
        """
        bank = self.bank
        state: dict[str, Any] = dict(
            num_instances=bank.num_instances, seed=bank.stored.seed, step=bank.step,
            **self._kind(),
            correction={name: torch.from_numpy(array.copy())
                        for name, array in bank.correction.state_dict().items()})
        if bank.active_set is not None:
            state['active_set'] = {name: torch.from_numpy(array.copy())
                                   for name, array in bank.active_set.state_dict().items()}
        if self.last_visits is not None:
            state['last_visits'] = torch.from_numpy(self.last_visits.steps.copy())
        if bank.store is not None:
            state['rows'] = [tuple(map(torch.from_numpy, part)) for part in bank.store.written()]
        return state

    def _kind(self) -> dict[str, Any]:
        """What a run that goes on from a state has in common with the one that saved it."""
        bank = self.bank
        return dict(correction_kind=type(bank.correction).__name__,
                    num_processes=bank.slots.processes.size,
                    num_negatives=None if bank.active_set is None else
                    bank.active_set.num_negatives)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, in the place of :meth:`start`.

        Args:
            state (dict): Of :meth:`state_dict`, from a run with the same images, K, optimizer,
                refresh and number of processes. Load ``weight`` and the optimizer as well.

        Raises:
            ValueError: If it is of a run with other images, another K, optimizer or number of
                processes.
        """
        bank = self.bank
        if state['num_instances'] != bank.num_instances or bank.is_full != (
                'active_set' not in state):
            raise ValueError(
                f'the state is of a run with {state["num_instances"]} images and this one has '
                f'{bank.num_instances}, or one of them has a softmax over all: go on with the same '
                'images and num_negatives.')
        for name, own in self._kind().items():
            if state.get(name, own) != own:
                raise ValueError(f'the state was saved with {name}={state[name]}, and this run has '
                                 f'{own}: go on with the same optimizer, num_negatives and number '
                                 'of processes.')
        bank.stored.clear()  # rows of a training that goes back to an earlier state
        bank.stored.seed, bank.step = state['seed'], state['step']
        if bank.active_set is not None:
            bank.active_set.load_state_dict(
                {name: tensor.numpy().copy() for name, tensor in state['active_set'].items()})
        bank.correction.load_state_dict(
            {name: tensor.numpy() for name, tensor in state['correction'].items()})
        if self.last_visits is not None and 'last_visits' in state:
            self.last_visits.steps[:] = state['last_visits'].numpy()
        size = bank.slots.processes.size
        for rows, steps, values in state.get('rows', ()):
            bank.stored.put(rows.numpy() * size + bank.slots.processes.rank, steps.numpy(),
                            values.numpy())
        self.resume()

    @torch.no_grad()
    def sample(self, ids: Tensor | np.ndarray | Sequence[int]) -> Tensor:
        """Bring the classes of this process's batch into the softmax; call it before each step.

        With several processes all of them call it together.

        Args:
            ids (Tensor): (B,) int64, index of each image in the training data set.

        Returns:
            Tensor: (B,) int64, the row of :attr:`active` for each image, on the device of the
            parameter; of all processes' images where slots are sharded, see
            :meth:`InstanceBank.targets`.

        Raises:
            RuntimeError: If :meth:`start` has not been called, or torch's group of processes was
                formed too late.
            TypeError: If ids are not integers.
            ValueError: If an id is outside [0, N), ids are not a list of numbers, or the global
                batch has more than K classes.
        """
        if not self._started:
            raise RuntimeError('call start() once before the first sample(): the class weights '
                               'have no values yet.')
        known, size = self.bank.slots.processes.size, communicator().size
        if known < size:
            raise RuntimeError(
                f'these class weights know of {known} of {size} processes, and each would train '
                "other classes in the same rows: form torch's process group before they are made.")
        own = _as_ids(ids)
        # Known without a look at it. After a step that a gradient scaler skipped there is one until
        # zero_grad has set it to None, as it does by default: call it before.
        pending = self._has_gradient and self.weight.grad is not None
        self.batch, pending = gather_batch(own, pending, self.bank.slots.processes)
        self.missed = self.bank.sample(self.batch.ids, self.tensors, pending)
        if self.last_visits is not None:
            self._returning = self.last_visits.visit(self.batch.ids, self.bank.step,
                                                     self.refresh.away)
        self.targets = to_device(self.bank.targets(self.batch), self.weight.device)
        return self.targets

    @torch.no_grad()
    def turn_returning(self, features: Tensor) -> None:
        """Turn the rows of images that have come back to their present features, if that is wanted.

        Call it after :meth:`sample` and before the loss, with the features of the first view; a
        second call for the same batch does nothing. With several processes all of them call it.

        Args:
            features (Tensor): (B, d) projected features of this process's batch, of any length.
        """
        places, self._returning = self._returning, self._returning[:0]
        if not len(places):
            return  # in all processes alike
        assert self.batch is not None, 'places are those of a batch'
        processes, own = self.bank.slots.processes, self.batch.own
        of = np.repeat(np.arange(processes.size), self.batch.sizes)[places]
        mine = to_device(places[of == processes.rank] - own.start, features.device)
        present = processes.gather_rows(
            features.detach()[mine],
            np.bincount(of, minlength=processes.size).tolist(), 'features')  # (R, d)
        held, rows = self.bank.rows_of(self.batch.ids[places])
        device = self.weight.device
        present = present[to_device(held, present.device)].to(device)
        refresh_rows(*self.tensors, to_device(rows, device), present, self.refresh.share)

    @property
    def active(self) -> Tensor:
        """(A, d) class weights in the softmax, through which the loss trains the parameter."""
        rows = self.bank.softmax_rows
        return self.weight[rows if isinstance(rows, slice) else to_device(rows, self.weight.device)]

    @property
    def active_ids(self) -> Tensor:
        """(A,) int64, the class of each row of :attr:`active`."""
        return self.bank.active_ids

    @torch.no_grad()
    def rows(self, ids: Tensor | np.ndarray | Sequence[int]) -> Tensor:
        """Class weights as dense training would hold them after the last optimizer step.

        With several processes all of them call it together, with the same ids.

        Args:
            ids (Tensor): (M,) int64 instance classes: active, stored or never visited.

        Returns:
            Tensor: (M, d) float32 or wider, on the device of the parameter.

        Raises:
            ValueError: If an id is outside [0, N).
        """
        return self.bank.class_weights(_as_ids(ids), self.weight)

    @property
    def tensors(self) -> SlotTensors:
        """The parameter and what the optimizer keeps for each of its rows."""
        state = self.optimizer.state.get(self.weight, {})
        return SlotTensors(self.weight.detach(), [
            state[name] for name in sorted(state)
            if isinstance(state[name], Tensor) and state[name].shape == self.weight.shape
        ])

    @property
    def group(self) -> dict[str, Any]:
        """The optimizer's group with the parameter: its learning rate, weight decay and so on."""
        # Looked up each time: loading an optimizer's state replaces its groups.
        return group_of(self.optimizer, self.weight)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Before the optimizer makes its states: the first step differs."""
        self.bank.correction.before_step(self.group, optimizer.state.get(self.weight, {}))

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self.weight.grad is None:
            return  # the optimizer has left the class weights alone
        self._has_gradient = False
        # A fused optimizer is called even where the gradient scaler found an overflow.
        overflow = getattr(optimizer, 'found_inf', None)
        if overflow is None or not float(overflow):
            self.bank.record_step()


def _notice_gradients(reference: weakref.ref[SampledClassWeights]) -> Callable[[Tensor], None]:
    """A hook that keeps nothing alive.

    A tensor's hooks are out of sight of Python's garbage collector: one that held its owner, which
    holds the tensor, would keep both and all that they hold until the process ends, among it
    process groups, whose threads abort the process if they live until then.
    """

    def hook(weight: Tensor) -> None:
        owner = reference()
        if owner is not None:
            owner._has_gradient = True
            keep_step_hooks(owner.optimizer)  # the forward pass may have compiled something

    return hook


def _as_ids(ids: Tensor | np.ndarray | Sequence[int]) -> np.ndarray:
    """(B,) int64, a copy: the caller may use its own again."""
    given = torch.as_tensor(ids)
    if given.dim() != 1:
        raise ValueError(f'ids must be one number for each image, not of shape '
                         f'{tuple(given.shape)}.')
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        if len(given):
            raise TypeError(f'ids must be integers, not {given.dtype}.')
    return given.to(torch.int64).cpu().numpy().copy()
