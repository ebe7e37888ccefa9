# SPDX-License-Identifier: Apache-2.0
"""Training through the real Runner against a dense optimizer on the class weights of all N images.

The network and the head's parameter are float64 here, so losses and rows differ from the oracle's
only in that rows outside the active set are stored as float32.
"""
from __future__ import annotations

import uuid

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import default_collate
from mmengine.hooks import Hook
from mmengine.model import BaseDataPreprocessor
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.data import DataLoader

from pic_plugin.bank import TransitionLog, initial_rows
from pic_plugin.engine import InstanceBankHook
from pic_plugin.models import PIC, PICHead
from toys.sampled import FUSES_ON_CPUS

N, D, BATCH, ITERS, SEED = 23, 6, 4, 50, 3
NEVER_VISITED = 3  # the last ids, in no batch: dense SGD shrinks and moves their rows all the same
SGD = dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=1e-2)
ADAMW = dict(type='AdamW', lr=0.01, weight_decay=0.1)


class Images(torch.utils.data.Dataset):
    """N images of noise, in several views; image ``broken`` is not finite."""

    def __init__(self, num_views=1, id_of=int, broken=None):
        self.views = torch.randn(N, num_views, 3, 2, 2, dtype=torch.float64,
                                 generator=torch.Generator().manual_seed(0))
        if broken is not None:
            self.views[broken, 0, 0, 0, 0] = torch.nan
        self.id_of = id_of

    def __len__(self):
        return N

    def __getitem__(self, index):
        views = list(self.views[index])
        sample = DataSample()
        sample.set_field(self.id_of(index), 'sample_idx', field_type='metainfo')
        return dict(inputs=views if len(views) > 1 else views[0], data_samples=sample)


class Layer(nn.Module):
    """Backbone or neck: flattens what it gets; a tuple out."""

    def __init__(self, num_inputs, num_outputs):
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_outputs)

    def forward(self, inputs):
        tensor = inputs[-1] if isinstance(inputs, tuple) else inputs
        return (self.linear(tensor.flatten(1)).tanh(), )


class SkippingOptimWrapper(OptimWrapper):
    """Does at some steps what a gradient scaler does that found an overflow: nothing."""

    def __init__(self, *args, skipped=(), **kwargs):
        super().__init__(*args, **kwargs)
        self.skipped, self.num_calls = skipped, 0

    def step(self, **kwargs):
        self.num_calls += 1
        if self.num_calls not in self.skipped:
            super().step(**kwargs)


class FusedOptimWrapper(SkippingOptimWrapper):
    """Calls a fused optimizer as a gradient scaler does: always, with what it has found."""

    def step(self, **kwargs):
        self.num_calls += 1
        self.optimizer.grad_scale = None
        self.optimizer.found_inf = torch.tensor(float(self.num_calls in self.skipped))
        OptimWrapper.step(self, **kwargs)
        del self.optimizer.grad_scale, self.optimizer.found_inf


class DenseOracle(Hook):
    """Trains a copy of the model with all N rows in one dense optimizer, and compares each step.

    Nothing is copied back from the model under test but the learning rate, so that an error of one
    step stays.
    """

    priority = 'NORMAL'  # after InstanceBankHook; before the schedule moves the learning rate

    def __init__(self, skipped=()):
        self.skipped = skipped
        self.num_steps, self.loss_error, self.row_error = 0, 0.0, 0.0

    def before_train(self, runner):
        self.wrapper = runner.optim_wrapper
        model = self.model = runner.model
        torch.manual_seed(1)
        self.backbone, self.neck = Layer(12, 10).double(), Layer(10, D).double()
        self.backbone.load_state_dict(model.backbone.state_dict())
        self.neck.load_state_dict(model.neck.state_dict())
        self.weight = nn.Parameter(torch.from_numpy(initial_rows(np.arange(N), D, SEED)).double())
        self.parameters = [*self.backbone.parameters(), *self.neck.parameters(), self.weight]
        optimizer = self.wrapper.optimizer
        self.optimizer = type(optimizer)(self.parameters, **self.options(optimizer))
        self.num_negatives = min(model.head.num_negatives or N, N)
        self.recent = list(range(N)) if self.num_negatives == N else []

    @staticmethod
    def options(optimizer):
        return {key: value for key, value in optimizer.defaults.items()
                if key not in ('fused', 'foreach', 'decoupled_weight_decay')}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        ids = [sample.sample_idx for sample in data_batch['data_samples']]
        for i in ids:
            self.recent = [j for j in self.recent if j != i] + [i]
        self.recent = self.recent[-self.num_negatives:]
        assert sorted(self.recent) == sorted(self.model.head.active_ids.tolist())
        self.targets = torch.tensor([self.recent.index(i) for i in ids])
        self.optimizer.param_groups[0]['lr'] = self.wrapper.optimizer.param_groups[0]['lr']

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        loss = self.loss(data_batch['inputs'])
        self.step(loss, batch_idx)
        self.loss_error = max(self.loss_error, abs(outputs['loss'].item() - loss.item()))
        rows = self.model.head.class_weights(torch.arange(N))
        self.row_error = max(self.row_error, relative_error(rows, self.weight.detach()))

    def loss(self, inputs):
        losses = []
        for i, view in enumerate(inputs if isinstance(inputs, list) else [inputs]):
            weight = self.weight if i < self.model.num_update_views else self.weight.detach()
            features = F.normalize(self.neck(self.backbone(view))[0])
            logits = features @ F.normalize(weight[self.recent]).t() / 0.2
            losses.append(F.cross_entropy(logits, self.targets))
        return torch.stack(losses).mean()

    def step(self, loss, batch_idx):
        count = self.wrapper._accumulative_counts
        in_last = batch_idx >= ITERS - ITERS % count
        (loss / (ITERS % count if in_last else count)).backward()
        if (batch_idx + 1) % count and batch_idx + 1 < ITERS:
            return
        self.num_steps += 1
        if self.num_steps not in self.skipped:
            if self.wrapper.clip_grad_kwargs:
                nn.utils.clip_grad_norm_(self.parameters, **self.clip_options())
            before = self.rows_and_states()
            self.optimizer.step()
            if not self.model.head.correct_weights and self.num_negatives < N:
                self.put_back_absent(before)
        self.optimizer.zero_grad()

    def clip_options(self):
        return {key: value for key, value in self.wrapper.clip_grad_kwargs.items()
                if key != 'type'}

    def rows_and_states(self):
        state = self.optimizer.state.get(self.weight, {})
        return dict(weight=self.weight.detach().clone(), **{
            name: value.clone() for name, value in state.items()
            if torch.is_tensor(value) and value.shape == self.weight.shape})

    def put_back_absent(self, before):
        """Uncorrected sampling: the optimizer never touches a class outside the softmax."""
        absent = [i for i in range(N) if i not in self.recent]
        self.weight.data[absent] = before['weight'][absent]
        for name, value in self.optimizer.state[self.weight].items():
            if torch.is_tensor(value) and value.shape == self.weight.shape:
                value[absent] = before[name][absent] if name in before else 0


def relative_error(got, expected):
    return float((got - expected).norm() / expected.norm())


def id_stream(repeats):
    """Ids that come back after short and long times, without the never visited ones."""
    rng = np.random.default_rng(7)
    pool = N - NEVER_VISITED
    if repeats:
        return rng.integers(0, pool, ITERS * BATCH).tolist()
    return np.concatenate([rng.choice(pool, BATCH, replace=False) for _ in range(ITERS)]).tolist()


def make_runner(work_dir, optimizer=None, head=None, dataset=None, hooks=None, num_views=1,
                num_update_views=1, wrapper=None, repeats=False, ids=None, batch=BATCH):
    torch.manual_seed(0)
    model = PIC(
        Layer(12, 10), Layer(10, D), PICHead(**dict(dict(feat_dim=D, num_negatives=9),
                                                    **(head or {}))),
        num_update_views=num_update_views,
        data_preprocessor=BaseDataPreprocessor()).double()
    loader = DataLoader(
        dataset or Images(num_views), batch, sampler=ids or id_stream(repeats),
        collate_fn=default_collate)
    optimizer = dict(optimizer or SGD)
    kind = getattr(torch.optim, optimizer.pop('type'))
    return Runner(
        model,
        str(work_dir),
        loader,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=(FusedOptimWrapper if optimizer.get('fused') else SkippingOptimWrapper)(
            kind(model.parameters(), **optimizer), **(wrapper or {})),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, begin=0, end=8, by_epoch=False),
            dict(type='CosineAnnealingLR', T_max=ITERS - 8, begin=8, end=ITERS, by_epoch=False)
        ],
        custom_hooks=[InstanceBankHook()] + (hooks or []) if hooks is not False else [],
        default_hooks=dict(checkpoint=None),
        default_scope='mmpretrain',
        experiment_name=uuid.uuid4().hex,
        log_level='WARNING',
        randomness=dict(seed=SEED))


def compare(work_dir, **kwargs):
    """Train beside the oracle; both."""
    oracle = DenseOracle(kwargs.get('wrapper', {}).get('skipped', ()))
    runner = make_runner(work_dir, hooks=[oracle], **kwargs)
    runner.train()
    return runner, oracle


ACCUMULATE = dict(accumulative_counts=3)
CLIP = dict(clip_grad=dict(max_norm=0.5, norm_type=2))
SKIP = dict(skipped=(1, 2, 9, 16))
CASES = dict(
    plain={},
    no_momentum=dict(optimizer=dict(SGD, momentum=0.0)),
    no_weight_decay=dict(optimizer=dict(SGD, weight_decay=0.0)),
    dampening=dict(optimizer=dict(SGD, dampening=0.5)),
    nesterov=dict(optimizer=dict(SGD, nesterov=True)),
    accumulation=dict(wrapper=ACCUMULATE),
    skipped_steps=dict(wrapper=SKIP),
    clipping=dict(wrapper=CLIP),
    repeated_ids=dict(repeats=True),
    three_views=dict(num_views=3, num_update_views=2),
    one_view_of_two=dict(num_views=2),
    batch_fills_active_set=dict(head=dict(num_negatives=BATCH)),
    all_visited_but_one=dict(head=dict(num_negatives=N - NEVER_VISITED - 1)),
    as_many_as_instances=dict(head=dict(num_negatives=N)),
    more_than_instances=dict(head=dict(num_negatives=2 * N)),
    full_softmax=dict(head=dict(num_negatives=None)),
    full_softmax_accumulation=dict(head=dict(num_negatives=None), wrapper=ACCUMULATE),
    full_softmax_adam=dict(head=dict(num_negatives=None),
                           optimizer=dict(type='Adam', lr=0.01, weight_decay=1e-2)),
    memory_mapped=dict(head=dict(storage=dict(type='mmap'))),
    all_at_once=dict(
        optimizer=dict(SGD, nesterov=True), repeats=True, num_views=3, num_update_views=2,
        head=dict(num_negatives=5), wrapper=dict(ACCUMULATE, **CLIP, **SKIP)),
    adamw=dict(optimizer=ADAMW),
    adamw_betas_of_transformers=dict(optimizer=dict(ADAMW, betas=(0.9, 0.95), eps=1e-6)),
    adamw_no_weight_decay=dict(optimizer=dict(ADAMW, weight_decay=0.0)),
    adamw_maximize=dict(optimizer=dict(ADAMW, maximize=True, lr=1e-3)),
    adamw_foreach=dict(optimizer=dict(ADAMW, foreach=True)),
    adamw_fused=dict(optimizer=dict(ADAMW, fused=True), wrapper=dict(skipped=(2, 9, 16))),
    adamw_accumulation=dict(optimizer=ADAMW, wrapper=ACCUMULATE),
    adamw_skipped_steps=dict(optimizer=ADAMW, wrapper=SKIP),
    adamw_clipping=dict(optimizer=ADAMW, wrapper=CLIP),
    adamw_three_views=dict(optimizer=ADAMW, num_views=3, num_update_views=2),
    adamw_batch_fills_active_set=dict(optimizer=ADAMW, head=dict(num_negatives=BATCH)),
    adamw_as_many_as_instances=dict(optimizer=ADAMW, head=dict(num_negatives=N)),
    adamw_memory_mapped=dict(optimizer=ADAMW, head=dict(storage=dict(type='mmap'))),
    adamw_all_at_once=dict(
        optimizer=dict(ADAMW, betas=(0.9, 0.98)), repeats=True, num_views=3, num_update_views=2,
        head=dict(num_negatives=5), wrapper=dict(ACCUMULATE, **CLIP, **SKIP)),
    adam_without_decay=dict(optimizer=dict(type='Adam', lr=0.01)),
    uncorrected_adamw=dict(head=dict(correct_weights=False), optimizer=ADAMW),
    uncorrected=dict(head=dict(correct_weights=False)),
    uncorrected_adam=dict(head=dict(correct_weights=False),
                          optimizer=dict(type='Adam', lr=0.01, weight_decay=1e-2)),
)


@pytest.mark.parametrize('case', CASES)
def test_every_step_equals_dense_training(work_dir, case):
    if case == 'adamw_fused' and not FUSES_ON_CPUS:
        pytest.skip('this torch fuses on GPUs alone')
    assert_equals_dense_training(work_dir, **CASES[case])


@pytest.mark.skipif(not FUSES_ON_CPUS, reason='this torch fuses on GPUs alone')
def test_fused_optimizer_that_is_called_in_a_skipped_step(work_dir):
    # Not the first: torch leaves the momentum of all parameters uninitialised after that.
    assert_equals_dense_training(work_dir, optimizer=dict(SGD, fused=True),
                                 wrapper=dict(skipped=(2, 9, 16)))


def assert_equals_dense_training(work_dir, **kwargs):
    runner, oracle = compare(work_dir, **kwargs)
    head, bank = runner.model.head, runner.model.head.bank
    exact = bank.is_full
    # Rows are stored as float32 (1e-7) a few times each; a full softmax stores none.
    tolerance = 1e-12 if exact else 3e-6
    assert oracle.loss_error < tolerance
    assert oracle.row_error < tolerance
    skipped = len(kwargs.get('wrapper', {}).get('skipped', ()))
    assert bank.step == oracle.num_steps - skipped
    assert oracle.num_steps == -(-ITERS // oracle.wrapper._accumulative_counts)
    if not exact:
        assert 0 < len(head.active_ids) < N and bank.store is not None
    for name, expected in oracle.rows_and_states().items():
        got = np.stack([state_row(runner, i, name) for i in range(N)])
        assert relative_error(torch.from_numpy(got), expected) < tolerance, name


def state_row(runner, i, name):
    """A row of the weight or of an optimizer's state, where it is now."""
    weight, bank = runner.model.head.weight, runner.model.head.bank
    state = dict(runner.optim_wrapper.optimizer.state[weight], weight=weight.detach())
    slot = i if bank.is_full else int(bank.active_set.slots_of(np.array([i]))[0])
    if slot >= 0:
        return state[name][slot].numpy()
    names = ['weight'] + sorted(key for key, value in state.items() if key != 'weight'
                                and torch.is_tensor(value) and value.shape == weight.shape)
    values = bank.stored.fetch(np.array([i]), bank.step)
    return values[0, names.index(name)].astype(np.float64)


def test_a_wrong_correction_is_noticed(work_dir, monkeypatch):
    append = TransitionLog.append
    monkeypatch.setattr(TransitionLog, 'append', lambda self, _: append(self, np.eye(2)))
    _, oracle = compare(work_dir)
    assert oracle.row_error > 0.05


def test_a_wrong_correction_of_adamw_is_noticed(work_dir, monkeypatch):
    monkeypatch.setattr('pic_plugin.bank.adamw_correction.sum_of_quotients',
                        lambda r, c, x: np.zeros_like(r))
    _, oracle = compare(work_dir, optimizer=ADAMW)
    assert oracle.row_error > 0.05


def test_uncorrected_rows_differ_from_dense_training(work_dir):
    runner, oracle = compare(work_dir, head=dict(correct_weights=False))
    never = np.arange(N - NEVER_VISITED, N)
    rows = runner.model.head.class_weights(never)
    assert torch.equal(rows.float(), torch.from_numpy(initial_rows(never, D, SEED)))
    other = make_runner(work_dir / 'corrected')
    other.train()
    everyone = torch.arange(N)
    assert relative_error(runner.model.head.class_weights(everyone),
                          other.model.head.class_weights(everyone)) > 0.05


def test_initial_rows_do_not_depend_on_the_softmax(work_dir):

    class AtStart(Hook):

        def before_train(self, runner):
            runner.start = runner.model.head.class_weights(range(N))

    starts = []
    for num_negatives in (None, N, 9):
        runner = make_runner(work_dir / str(num_negatives), hooks=[AtStart()],
                             head=dict(num_negatives=num_negatives))
        runner.train()
        starts.append(runner.start)
    for start in starts:
        assert torch.equal(start, torch.from_numpy(initial_rows(np.arange(N), D, SEED)).double())


@pytest.mark.parametrize('optimizer', [
    dict(type='Adam', lr=0.01, weight_decay=0.1), dict(type='RMSprop', lr=0.01)
], ids=lambda optimizer: optimizer['type'])
def test_optimizers_without_a_correction(work_dir, optimizer):
    with pytest.raises(ValueError, match='(?s)SGD and torch.optim.AdamW only.*' + optimizer['type']
                       + '.*type="AdamW".*PICOptimWrapperConstructor.*num_negatives=None.*'
                       'correct_weights=False'):
        make_runner(work_dir, optimizer=optimizer).train()


def test_head_without_hook(work_dir):
    line = r"custom_hooks = \[dict\(type='InstanceBankHook'\)\]"
    with pytest.raises(RuntimeError, match=line):
        make_runner(work_dir, hooks=False).train()


def test_batch_larger_than_active_set(work_dir):
    with pytest.raises(ValueError, match='global batch of 4 instances.*num_negatives=3'):
        make_runner(work_dir, head=dict(num_negatives=3)).train()


@pytest.mark.parametrize('at', [0, BATCH * 2], ids=['first batch', 'later batch'])
@pytest.mark.parametrize('num_negatives', [9, None])
@pytest.mark.parametrize('bad_id', [N, -1])
def test_ids_outside_the_range(work_dir, at, num_negatives, bad_id):
    ids = list(range(N))
    dataset = Images(id_of=lambda index: bad_id if index == ids[at] else index)
    with pytest.raises(ValueError, match=rf'\[{bad_id}\] lie outside the {N} instances'):
        make_runner(work_dir, dataset=dataset, ids=ids,
                    head=dict(num_negatives=num_negatives)).train()


class AfterEachStep(Hook):
    """Remembers all parameters and class weights after the last complete step."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        model = runner.model
        self.network = {name: value.clone() for name, value in model.state_dict().items()
                        if name != 'head.weight'}
        self.rows = model.head.class_weights(range(N))


@pytest.mark.parametrize('num_negatives', [9, None])
def test_loss_that_is_not_finite(work_dir, num_negatives):
    kept = AfterEachStep()
    runner = make_runner(work_dir, dataset=Images(broken=18), ids=list(range(N - 3)), hooks=[kept],
                         head=dict(num_negatives=num_negatives))
    parts = ('iteration 5, optimizer step 5.*pixels of view 0, backbone features of view 0, '
             r'projected features of view 0\.')
    with pytest.raises(FloatingPointError, match=parts):
        runner.train()
    model = runner.model
    for name, value in kept.network.items():
        assert torch.equal(model.state_dict()[name], value), name
    # The classes of the batch have changed places, through float32.
    torch.testing.assert_close(model.head.class_weights(range(N)), kept.rows, rtol=1e-6, atol=1e-8)
