# SPDX-License-Identifier: Apache-2.0
"""Class weights by one optimizer and the network by another, against two dense optimizers."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import ApexOptimWrapper
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from torch import nn
from torch.nn import functional as F

from pic_plugin.bank import initial_rows
from pic_plugin.engine import PICOptimWrapper, PICOptimWrapperConstructor
from pic_plugin.models import PICHead
from toys.overflows import BreakGradients, allow_amp_on_cpu, no_autocast, steps_with_a_scaler
from toys.processes import run_ranks
from toys.training import FEAT_DIM, make_config, train

SGD = dict(type='SGD', lr=0.5, momentum=0.9, weight_decay=1e-2)
ADAMW = dict(type='AdamW', lr=1e-2, weight_decay=0.05)
LARS = dict(type='LARS', lr=0.3, momentum=0.9, weight_decay=1e-4)


def two_optimizers(network=ADAMW, class_weights=SGD, **options):
    return dict(
        constructor='PICOptimWrapperConstructor', optimizer=dict(network),
        class_weights_optimizer=dict(class_weights), **options)


class DenseTwin(Hook):
    """Trains a copy of the network, and all N class weights, by the same two optimizers."""

    priority = 'NORMAL'  # after InstanceBankHook; before the schedule moves the learning rates

    def before_train(self, runner):
        self.wrapper = runner.optim_wrapper
        self.model = runner.model
        num_instances = self.model.head.bank.num_instances
        self.network = nn.ModuleDict({
            'backbone': MODELS.build(dict(type='ToyBackbone', dropout=0.0)),
            'neck': MODELS.build(dict(type='ToyNeck'))})
        self.network['backbone'].load_state_dict(self.model.backbone.state_dict())
        self.network['neck'].load_state_dict(self.model.neck.state_dict())
        self.weight = nn.Parameter(torch.from_numpy(
            initial_rows(np.arange(num_instances), FEAT_DIM, runner.seed)))
        self.optimizers = {}
        for name, parameters in (('network', self.network.parameters()),
                                 ('class_weights', [self.weight])):
            twin = self.wrapper[name].optimizer
            self.optimizers[name] = type(twin)(parameters, **{
                key: value for key, value in twin.defaults.items()
                if key not in ('decoupled_weight_decay', )})
        self.recent, self.rates = [], []
        self.row_error = self.network_error = 0.0

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        ids = [sample.sample_idx for sample in data_batch['data_samples']]
        for i in ids:
            self.recent = [j for j in self.recent if j != i] + [i]
        self.recent = self.recent[-self.model.head.num_negatives:]
        self.targets = torch.tensor([self.recent.index(i) for i in ids])
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]['lr'] = self.wrapper[name].optimizer.param_groups[0]['lr']
        self.rates.append({name: optimizer.param_groups[0]['lr']
                           for name, optimizer in self.optimizers.items()})

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        images = self.model.data_preprocessor(data_batch, training=True)['inputs']
        features = F.normalize(self.network['neck'](self.network['backbone'](images))[0])
        logits = features @ F.normalize(self.weight[self.recent]).t() / 0.2
        count = self.wrapper['network']._accumulative_counts
        loss = F.cross_entropy(logits, self.targets)
        (loss / count).backward()
        assert outputs['loss'].item() == pytest.approx(loss.item(), rel=1e-3)
        if (runner.iter + 1) % count:
            return
        for name, optimizer in self.optimizers.items():
            if self.wrapper[name].clip_grad_kwargs:
                nn.utils.clip_grad_norm_(optimizer.param_groups[0]['params'],
                                         **self.wrapper[name].clip_grad_kwargs)
            optimizer.step()
            optimizer.zero_grad()
        rows = self.model.head.class_weights(range(len(self.weight)))
        self.row_error = max(self.row_error, error(rows, self.weight))
        for ours, twins in zip(self.model.neck.parameters(), self.network['neck'].parameters()):
            self.network_error = max(self.network_error, error(ours, twins))


def error(got, expected):
    return float((got - expected).detach().norm() / expected.detach().norm())


def train_beside_twin(work_dir, wrapper, **overrides):
    torch.set_num_threads(1)
    overrides.setdefault('param_scheduler', [
        dict(type='LinearLR', start_factor=0.1, end=10, by_epoch=False),
        dict(type='CosineAnnealingLR', T_max=14, begin=10, end=24, by_epoch=False)])
    config = make_config(work_dir, augment=False, seed=0, optim_wrapper=wrapper, batch_size=6,
                         default_hooks=dict(checkpoint=None), **overrides)
    # float64, as in the other comparisons, would need another preprocessor: errors are float32's.
    runner = Runner.from_cfg(Config(config))
    twin = DenseTwin()
    runner.register_hook(twin)
    runner.train()
    return runner, twin


CASES = dict(
    adamw_and_sgd={},
    lars_and_sgd=dict(network=LARS),
    sgd_and_adamw=dict(network=SGD, class_weights=dict(ADAMW, lr=1e-3)),
    accumulation=dict(accumulative_counts=4),
    clipping=dict(clip_grad=dict(max_norm=0.05)),
    mixed_precision=dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=8.0),
    mixed_precision_and_more=dict(type='AmpOptimWrapper', dtype='bfloat16', accumulative_counts=4,
                                  clip_grad=dict(max_norm=0.05)),
)


@pytest.mark.parametrize('case', CASES)
def test_equals_two_dense_optimizers(work_dir, case, monkeypatch):
    if 'mixed' in case:
        allow_amp_on_cpu(monkeypatch)
        # What remains of mixed precision: the scale and its bookkeeping, which must cancel.
        monkeypatch.setattr('mmengine.runner.amp.autocast', no_autocast)
    runner, twin = train_beside_twin(work_dir, two_optimizers(**CASES[case]))
    assert isinstance(runner.optim_wrapper, PICOptimWrapper)
    # float32 over 24 steps and more, some of them of AdamW, which magnifies small gradients.
    assert twin.row_error < 1e-4
    assert twin.network_error < 1e-4
    count = CASES[case].get('accumulative_counts', 1)
    assert runner.model.head.bank.step == runner.iter // count
    first, peak, last = (twin.rates[i] for i in (0, 10, -1))
    kinds = dict(network=CASES[case].get('network', ADAMW),
                 class_weights=CASES[case].get('class_weights', SGD))
    for name, options in kinds.items():
        assert first[name] == pytest.approx(0.1 * options['lr'])
        assert peak[name] > 5 * last[name] and peak[name] > 5 * first[name]


@pytest.mark.parametrize('of, steps', [('class_weights', 33), ('network', 36)])
def test_gradients_that_overflow(work_dir, of, steps, monkeypatch):
    """That optimizer's step is skipped, the scale halves, and both stay finite."""
    allow_amp_on_cpu(monkeypatch)
    wrapper = two_optimizers(type='AmpOptimWrapper', dtype='bfloat16', loss_scale='dynamic')
    config = make_config(work_dir, augment=False, seed=0, optim_wrapper=wrapper, batch_size=6,
                         default_hooks=dict(checkpoint=None))
    runner = Runner.from_cfg(Config(config))
    runner.register_hook(BreakGradients(of))
    runner.train()
    assert runner.iter == 36
    assert runner.model.head.bank.step == steps
    scales = {wrapper.loss_scaler.get_scale() for wrapper in runner.optim_wrapper.values()}
    assert scales == {2.0**16 / 8}
    for parameter in runner.model.parameters():
        assert torch.isfinite(parameter).all()


def test_processes_with_shards_skip_together(work_dir, monkeypatch):
    """Gradients of a shard alone overflow, those of the class weights being the largest."""
    allow_amp_on_cpu(monkeypatch)  # or skip, which another process cannot
    wrapper = two_optimizers(
        class_weights=dict(SGD, lr=0.01), type='AmpOptimWrapper', dtype='bfloat16',
        loss_scale=dict(init_scale=2.0**120, growth_interval=1))
    options = dict(
        seed=1, batch_size=5, max_epochs=4, augment=False, head=dict(sharded=True),
        param_scheduler=None, optim_wrapper=wrapper,
        custom_hooks=[dict(type='InstanceBankHook'), dict(type='LargeNetwork')])
    steps = run_ranks(steps_with_a_scaler, 2, str(work_dir), options)
    assert steps[0] == steps[1] and 0 < steps[0] < 20


def test_resume_is_exact(work_dir):
    schedules = dict(network=[dict(type='ConstantLR', factor=0.5, end=20, by_epoch=False)],
                     class_weights=[dict(type='CosineAnnealingLR', T_max=24, end=24,
                                         by_epoch=False)])
    options = dict(seed=0, optim_wrapper=two_optimizers(), param_scheduler=schedules)
    whole = train(work_dir / 'whole', max_epochs=4, **options)
    train(work_dir / 'parts', max_epochs=2, **options)
    resumed = train(work_dir / 'parts', max_epochs=4, resume=True, **options)
    assert resumed.iter == whole.iter
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    everyone = range(50)
    assert torch.equal(whole.model.head.class_weights(everyone),
                       resumed.model.head.class_weights(everyone))
    rates = resumed.optim_wrapper.get_lr()
    assert rates == whole.optim_wrapper.get_lr()
    # Each follows its own schedule.
    assert rates['network.lr'] == [ADAMW['lr']]
    assert rates['class_weights.lr'][0] < 0.01 * SGD['lr']


@pytest.mark.parametrize('saved, resumed', [
    (two_optimizers(), dict(optimizer=dict(ADAMW))),
    (two_optimizers(), dict(optimizer=dict(SGD))),
    (dict(optimizer=dict(SGD)), two_optimizers()),
])
def test_resume_with_another_number_of_optimizers(work_dir, saved, resumed):
    scheduler = dict(param_scheduler=None)
    train(work_dir, max_epochs=1, seed=0, optim_wrapper=saved, **scheduler)
    with pytest.raises(ValueError, match="cannot be resumed.*SGD beside the network's"):
        train(work_dir, max_epochs=2, seed=0, resume=True, optim_wrapper=resumed, **scheduler)


@pytest.mark.parametrize('saved, resumed, message', [
    (ADAMW, SGD, 'has amsgrad, betas, .* and SGD of this run has dampening, momentum'),
    (SGD, ADAMW, 'and AdamW of this run has amsgrad, betas'),
    (SGD, LARS, 'and LARS of this run has eta: set the optimizer'),
])
def test_resume_with_another_optimizer_of_the_network(work_dir, saved, resumed, message):
    train(work_dir, max_epochs=1, seed=0, optim_wrapper=two_optimizers(saved))
    with pytest.raises(ValueError, match=f'cannot be resumed: .*{message}'):
        train(work_dir, max_epochs=2, seed=0, resume=True, optim_wrapper=two_optimizers(resumed))


def build(model=None, paramwise_cfg=None, **cfg):
    model = model or nn.ModuleDict(dict(
        backbone=nn.Linear(2, 3), bn=nn.BatchNorm1d(3), head=PICHead(feat_dim=4, num_negatives=5)))
    return model, PICOptimWrapperConstructor(cfg, paramwise_cfg)(model)


def test_every_parameter_is_in_one_optimizer():
    model, wrapper = build(
        optimizer=dict(ADAMW), class_weights_optimizer=dict(SGD),
        paramwise_cfg=dict(norm_decay_mult=0.0))
    assert isinstance(wrapper['network'].optimizer, torch.optim.AdamW)
    assert isinstance(wrapper['class_weights'].optimizer, torch.optim.SGD)
    held = {name: [parameter for group in one.optimizer.param_groups
                   for parameter in group['params']] for name, one in wrapper.items()}
    assert len(held['class_weights']) == 1 and held['class_weights'][0] is model['head'].weight
    assert {id(one) for one in held['network']} == {
        id(one) for one in model.parameters() if one is not model['head'].weight}
    decays = {group['weight_decay'] for group in wrapper['network'].optimizer.param_groups}
    assert decays == {0.0, 0.05}


@pytest.mark.parametrize('options, message', [
    (dict(optimizer=dict(ADAMW)), 'needs a second optimizer'),
    (dict(optimizer=dict(ADAMW), class_weights_optimizer=dict(SGD), type='ApexOptimWrapper'),
     "write type='AmpOptimWrapper'"),
    (dict(optimizer=dict(ADAMW), class_weights_optimizer=dict(SGD), type=ApexOptimWrapper),
     "write type='AmpOptimWrapper'"),
    (dict(optimizer=dict(ADAMW), class_weights_optimizer=dict(SGD),
          paramwise_cfg=dict(custom_keys={'head.weight': dict(lr_mult=2)})), 'head.weight'),
    (dict(optimizer=dict(ADAMW), class_weights_optimizer=dict(SGD),
          paramwise_cfg=dict(custom_keys={'backbone': {}, 'none': {}, 'head': dict(lr_mult=2)})),
     "custom key 'head' that no parameter has but the class weights"),
    (dict(optimizer=dict(ADAMW), class_weights_optimizer=dict(SGD), model=nn.Linear(2, 2)),
     'one PICHead, this one has 0'),
])
def test_configs_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_layer_wise_rates_of_the_network():
    model = MODELS.build(dict(
        type='PIC',
        backbone=dict(type='VisionTransformer', img_size=32, patch_size=16, arch=dict(
            embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)),
        neck=dict(type='MoCoV2Neck', in_channels=16, hid_channels=8, out_channels=4,
                  with_avg_pool=False),
        head=dict(type='PICHead', feat_dim=4, num_negatives=5)))
    _, wrapper = build(
        model, dict(layer_decay_rate=0.5), optimizer=dict(ADAMW), class_weights_optimizer=dict(SGD),
        network_constructor='LearningRateDecayOptimWrapperConstructor')
    rates = {group['lr'] for group in wrapper['network'].optimizer.param_groups}
    assert len(rates) == 4 and max(rates) == ADAMW['lr'], 'embedding, two layers, and the rest'
    held = [one for group in wrapper['network'].optimizer.param_groups for one in group['params']]
    assert not any(one is model.head.weight for one in held)
    assert wrapper['class_weights'].optimizer.param_groups[0]['lr'] == SGD['lr']
