# SPDX-License-Identifier: Apache-2.0
"""The correction for AdamW: its steps on classes that had no gradient, taken afterwards.

A row with zero gradient moves in step s by (torch.optim.AdamW, betas b1 and b2)

    m_s = b1 m_{s-1},   v_s = b2 v_{s-1},   q_s = sqrt(1 - b2^s)
    w  <-  (1 - lr_s wd_s) w  -  lr_s / (1 - b1^s) * m_s / (sqrt(v_s) / q_s + eps)

which is no product of 2x2 matrices, because of the root and of eps. Written from the step a at
which the row was left, with n = s - a and r = sqrt(v_a), one element of it has moved by

    w_T = D(a, T) w_a - m_a sum_n c_n / (r + x_n),
    c_n = D(a + n, T) lr_s q_s (b1 / sqrt(b2))^n / (1 - b1^s),   x_n = eps q_s b2^(-n/2)

where D is the decay between two steps, a difference of running sums of log(1 - lr wd). The terms
shrink by b1 / sqrt(b2) a step, so a bounded number of steps matters however long the absence (220
with torch's default betas), and c_n and x_n belong to a row as a whole: its elements differ in m_a
and r alone. quotient_sums.py makes few terms of many.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from .correction import Correction
from .quotient_sums import TOLERANCE, chebyshev, num_nodes, sum_of_quotients

MAX_STEPS = 2**15  # steps in which the momentum of a row may still matter
CHUNK_ROWS = 1024  # rows brought up to date together: tables of them x steps are in memory


class _Options(NamedTuple):
    """What may not change while a training runs."""

    beta1: float
    beta2: float
    eps: float


class AdamWCorrection(Correction):
    """What :class:`torch.optim.AdamW` does to a class weight that has no gradient in a step.

    Exact for any schedule of learning rate and weight decay, up to :data:`TOLERANCE`; computed in
    float64. ``torch.optim.Adam`` without weight decay is the same and works too, and so does
    ``maximize``, which concerns gradients alone.

    Memory: 16 bytes an optimizer step.
    """

    optimizers = ('AdamW',)
    state_names = ('exp_avg', 'exp_avg_sq')

    def __init__(self) -> None:
        self._log = _StepLog()
        self._options: _Options | None = None
        self._num_before = 0  # steps that the optimizer had taken before the first recorded one
        self._taken: tuple[float, float] | None = None

    def __len__(self) -> int:
        """Optimizer steps recorded."""
        return len(self._log)

    @classmethod
    def reason_against(cls, optimizer: Optimizer, group: dict[str, Any]) -> str | None:
        """See :class:`Correction`."""
        if type(optimizer) not in (Adam, AdamW):
            return f'the optimizer is {type(optimizer).__name__}'
        try:
            # Before torch 2.6 the class says what the option says now.
            _check_group(group, isinstance(optimizer, AdamW))
            _num_steps(_options(group))
        except ValueError as error:
            return str(error).rstrip('.')
        return None

    def before_step(self, group: dict[str, Any], state: dict[str, Any]) -> None:
        """Read the options of the step that is about to be taken.

        Args:
            group (dict): The optimizer's group with the class weights.
            state (dict): The optimizer's state of the class weights; empty before the first step.

        Raises:
            ValueError: If betas or eps are not those of the steps before, weights would change
                their sign, or other steps were taken than those that were recorded.
        """
        _check_group(group)
        options = _options(group)
        if self._options is None:
            _num_steps(options)
            self._options = options
        elif options != self._options:
            raise ValueError(
                f'AdamW goes on with {_show(options)} after steps with {_show(self._options)}: the '
                'correction of class weights holds for constant betas and eps. Leave them as they '
                'were (no momentum scheduler).')
        taken = state.get('step', 0)
        # Elsewhere than on the CPU a look at it would wait for the device in each step.
        if len(self) == 0:
            self._num_before = int(taken)
        elif (not isinstance(taken, Tensor) or taken.device.type == 'cpu') and (
                int(taken) != self._num_before + len(self)):
            raise ValueError(
                f'the optimizer has taken {int(taken)} steps and the correction of class weights '
                f'knows of {self._num_before + len(self)}: they belong to different trainings. '
                'Resume both from one checkpoint.')
        self._taken = self._step(group, self._num_before + len(self) + 1)

    def after_step(self) -> None:
        """Record that step: it was really taken."""
        if self._taken is None:
            raise RuntimeError('after_step() without before_step(): there is no step to record.')
        self._log.append(self._taken)
        self._taken = None

    def advance(self, rows: np.ndarray, since: np.ndarray) -> np.ndarray:
        """Bring rows up to date with the steps since they were stored.

        Args:
            rows (np.ndarray): (R, 3, d) float32 class weights, ``exp_avg`` and ``exp_avg_sq``.
            since (np.ndarray): (R,) int64, recorded steps that each row is as of.

        Returns:
            np.ndarray: (R, 3, d) float32, computed in float64 and rounded once.

        Raises:
            ValueError: If a step is negative or ahead of those recorded.
        """
        if len(since) and (since.min() < 0 or since.max() > len(self)):
            raise ValueError(f'steps {since.min()} to {since.max()} are outside the {len(self)} '
                             'optimizer steps taken: these rows belong to another run.')
        chunks = [self._advance(rows[start:start + CHUNK_ROWS].astype(np.float64),
                                since[start:start + CHUNK_ROWS]).astype(np.float32)
                  for start in range(0, len(rows), CHUNK_ROWS)]
        if len(chunks) == 1:
            return chunks[0]
        return np.concatenate(chunks) if chunks else np.array(rows, dtype=np.float32)

    def decay(self, group: dict[str, Any], num_steps: float) -> float:
        """e such that weight decay alone shrinks a row by exp(-e) in that many steps."""
        return float(group['lr']) * float(group['weight_decay']) * num_steps

    def state_dict(self) -> dict[str, np.ndarray]:
        """Arrays that :meth:`load_state_dict` continues from, bit for bit; all float64."""
        options = [] if self._options is None else [*self._options, self._num_before]
        return dict(options=np.array(options, dtype=np.float64), steps=self._log.entries.copy())

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Continue from another correction's state.

        Raises:
            ValueError: If the arrays are none of AdamW's.
        """
        if set(state) != {'options', 'steps'}:
            raise ValueError(f'they hold {", ".join(sorted(state)) or "nothing"}, and AdamW needs '
                             'options and steps: the saved run had another optimizer.')
        options, steps = (np.asarray(state[name], dtype=np.float64) for name in (
            'options', 'steps'))
        if options.shape not in ((0, ), (4, )) or steps.ndim != 2 or steps.shape[1] != 2 or (
                len(steps) and not len(options)):
            raise ValueError(f'options of shape {options.shape} and steps of shape {steps.shape} '
                             'are not what AdamW has recorded.')
        self._options, self._num_before = None, 0
        if len(options):
            self._options, self._num_before = _Options(*options[:3].tolist()), int(options[3])
            _num_steps(self._options)
        self._log = _StepLog(steps)
        self._taken = None

    def _step(self, group: dict[str, Any], step: int) -> tuple[float, float]:
        """lr q / (1 - b1^step) and log(1 - lr wd) of a step."""
        beta1, beta2, _ = _options(group)
        lr, weight_decay = float(group['lr']), float(group['weight_decay'])
        if lr * weight_decay >= 1:
            raise ValueError(
                f'the learning rate {lr:g} times the weight decay {weight_decay:g} is not below 1: '
                'AdamW would turn the sign of all class weights in each step. Lower one of them.')
        rate = lr * float(np.sqrt(1 - beta2**step)) / (1 - beta1**step)
        return rate, float(np.log1p(-lr * weight_decay))

    def _advance(self, rows: np.ndarray, since: np.ndarray) -> np.ndarray:
        """See :meth:`advance`, in place: (R, 3, d) float64."""
        missed = len(self) - since
        if not missed.any():
            return rows
        assert self._options is not None, 'steps have been recorded'
        weight, first, second = rows[:, 0], rows[:, 1], rows[:, 2]
        weight *= np.exp(self._log.log_decay(since))[:, None]
        num_steps = _num_steps(self._options)
        # A row that was never visited, or so long ago that its momentum is gone, only decays.
        moving = first.any(axis=1) & (missed > 0 if num_steps else False)
        # The bias correction of the first steps takes more nodes, the more the earlier they are.
        stage = np.log2(np.minimum(since + self._num_before, num_steps) + 1).astype(int) // 2
        for one in np.unique(stage[moving]):
            some: Any = moving & (stage == one)
            if some.all():
                some = slice(None)  # which copies nothing
            # Rows that left together share everything but their elements.
            starts, place = np.unique(since[some], return_inverse=True)
            c, x = self._quotients(starts, min(num_steps, int(missed[some].max())))
            moved = sum_of_quotients(np.sqrt(second[some]), c[place], x[place])
            moved *= first[some]
            weight[some] -= moved
        first *= float(self._options.beta1)**missed[:, None]
        second *= float(self._options.beta2)**missed[:, None]
        return rows

    def _quotients(self, starts: np.ndarray, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
        """c and x of the module's docstring, on fewer nodes than steps where that is possible.

        Args:
            starts (np.ndarray): (U,) int64 steps after which rows were left.
            num_steps (int): Steps after these to look at.

        Returns:
            tuple[np.ndarray, np.ndarray]: (U, M) float64 each.
        """
        assert self._options is not None, 'steps have been recorded'
        beta1, beta2, eps = self._options
        n = np.arange(1.0, num_steps + 1)
        log_growth = -0.5 * float(np.log(beta2))  # of x in a step
        rates, log_decays = self._log.after(starts, num_steps)
        c = rates * np.exp(log_decays + n * (np.log(beta1) + log_growth))
        first_step = starts + self._num_before
        count = num_nodes(num_steps, log_growth, int(first_step.min()))
        if count < num_steps:
            n, onto_nodes = chebyshev(num_steps, count)
            c = c @ onto_nodes
        # beta2 > beta1^2 > 0, so the steps have logarithms; the step number is a fraction at nodes.
        root = np.sqrt(-np.expm1(np.log(beta2) * (first_step[:, None] + n)))
        return c, eps * root * np.exp(log_growth * n)


class _StepLog:
    """Two numbers for each optimizer step, in arrays that grow by doubling."""

    def __init__(self, entries: np.ndarray | None = None) -> None:
        entries = np.empty((0, 2)) if entries is None else entries
        self._count = len(entries)
        # Element s belongs to step s, so that 0 is before the first step. Beyond the last one
        # rates are zero and the sum of log(1 - lr wd) does not count.
        self._rates = np.concatenate([[0.0], entries[:, 0], np.zeros(MAX_STEPS)])
        self._log_decays = np.concatenate([[0.0], entries[:, 1], np.zeros(MAX_STEPS)])

    def __len__(self) -> int:
        return self._count

    @property
    def entries(self) -> np.ndarray:
        """(steps, 2) float64: the rate, and the sum of log(1 - lr wd) up to there."""
        steps = slice(1, self._count + 1)
        return np.stack([self._rates[steps], self._log_decays[steps]], axis=1)

    def append(self, step: tuple[float, float]) -> None:
        """Add the rate and log(1 - lr wd) of the next step."""
        if self._count + 1 + MAX_STEPS == len(self._rates):
            self._rates, self._log_decays = (np.concatenate([array, np.zeros_like(array)])
                                             for array in (self._rates, self._log_decays))
        rate, log_decay = step
        self._rates[self._count + 1] = rate
        self._log_decays[self._count + 1] = self._log_decays[self._count] + log_decay
        self._count += 1

    def log_decay(self, since: np.ndarray) -> np.ndarray:
        """Sum of log(1 - lr wd) after steps, (R,) float64."""
        return self._log_decays[self._count] - self._log_decays[since]

    def after(self, starts: np.ndarray, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Rates of the steps after each start, and the log decay since each of them.

        Returns:
            tuple[np.ndarray, np.ndarray]: (U, num_steps) float64 each.
        """
        rates, log_decays = (sliding_window_view(array, num_steps)[starts + 1]
                             for array in (self._rates, self._log_decays))
        np.subtract(self._log_decays[self._count], log_decays, out=log_decays)
        return rates, log_decays


def _options(group: dict[str, Any]) -> _Options:
    beta1, beta2 = group['betas']
    return _Options(float(beta1), float(beta2), float(group['eps']))


def _show(options: _Options) -> str:
    return f'betas=({options.beta1:g}, {options.beta2:g}), eps={options.eps:g}'


def _check_group(group: dict[str, Any], decoupled: bool = True) -> None:
    """Refuse variants of AdamW that have no bounded correction.

    Args:
        group (dict): The optimizer's group with the class weights.
        decoupled (bool): Whether weight decay is decoupled where the group does not say.
    """
    if group['amsgrad']:
        raise ValueError('amsgrad keeps a maximum of past second moments, for which there is no '
                         "correction: write optimizer=dict(type='AdamW', amsgrad=False, ...).")
    if group['weight_decay'] != 0 and not group.get('decoupled_weight_decay', decoupled):
        raise ValueError(
            f'Adam with weight_decay={float(group["weight_decay"]):g} feeds the decay into its '
            'moments, so that a class without gradient never comes to rest: write '
            "optimizer=dict(type='AdamW', ...), whose decay is decoupled, or weight_decay=0.")


def _num_steps(options: _Options) -> int:
    """Steps after which the momentum of a row has moved it by all but :data:`TOLERANCE`.

    Raises:
        ValueError: If there is no bound on them, or they are more than :data:`MAX_STEPS`.
    """
    beta1, beta2, eps = options
    if not eps > 0:
        raise ValueError(f'AdamW with eps={eps:g} divides 0 by 0 for a class that was never '
                         'sampled: write eps=1e-8.')
    if beta1 == 0:
        return 0
    ratio = beta1 / beta2**0.5 if beta2 > 0 else np.inf
    num_steps = np.log(TOLERANCE * (1 - ratio)) / np.log(ratio) if ratio < 1 else np.inf
    if num_steps > MAX_STEPS:
        raise ValueError(
            f'with {_show(options)} the momentum of a class that is not sampled goes on to move '
            f'it for more than {MAX_STEPS} steps: beta1 has to be well below the root of beta2 '
            f'({beta2**0.5:g}), as in betas=(0.9, 0.999) or (0.9, 0.95).')
    return int(np.ceil(num_steps))
