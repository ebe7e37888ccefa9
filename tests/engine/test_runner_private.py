# SPDX-License-Identifier: Apache-2.0
"""The private parts of mmengine's Runner that the plugin relies on, and what it makes of them.

Kept to seconds: .ci/run runs it with every version of mmengine that setup.py allows.
"""
import multiprocessing
from types import SimpleNamespace

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.model import ImgDataPreprocessor
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmpretrain.models import ClsDataPreprocessor, SelfSupDataPreprocessor
from torch.utils.data import DataLoader

from pic_plugin.engine import runner_private
from pic_plugin.engine.stream_position import EndlessIterator
from pic_plugin.models import AugmentPreprocessor
from toys.training import assert_equal, make_config, snapshot, train

VERSION = tuple(int(part) for part in mmengine.__version__.split('.')[:3])


def test_the_version_is_one_that_setup_allows():
    assert (0, 10, 3) <= VERSION < (0, 11)


def test_what_a_runner_says_of_itself(work_dir):
    runner = Runner.from_cfg(Config(make_config(work_dir, max_epochs=1, validate=True)))
    assert not runner_private.is_training(runner)
    assert runner_private.iterations_done(runner) == 0
    assert not runner_private.has_loaded(runner) and not runner_private.resumes(runner)
    assert runner_private.load_from(runner) is None
    assert runner_private.launcher(runner) == 'none'
    runner.train()
    assert runner_private.is_training(runner) and runner_private.iterations_done(runner) == 7
    wrapper = runner_private.find_wrapper(runner, runner.model.head.weight)
    assert wrapper is runner.optim_wrapper and runner_private.accumulative_counts(wrapper) == 1
    with pytest.raises(ValueError, match='no optimizer holds the class weights'):
        runner_private.find_wrapper(runner, torch.nn.Parameter(torch.zeros(1)))
    assert runner_private.last_checkpoint_file(runner).read_text() == str(work_dir / 'epoch_1.pth')


def test_one_hook_alone_is_called(work_dir):

    class Count(Hook):
        calls = 0

        def after_val_iter(self, runner, *args, **kwargs):
            self.calls += 1

    outside, inside = Count(), Count()
    runner = Runner.from_cfg(Config(make_config(work_dir, max_epochs=1, validate=True)))
    runner.register_hook(outside)
    with runner_private.only_hook(runner, inside):
        runner.val_loop.run()
    assert (outside.calls, inside.calls) == (0, 5)
    runner.val_loop.run()
    assert (outside.calls, inside.calls) == (5, 5)


def test_a_method_is_wrapped_for_one_runner(work_dir):
    runner = Runner.from_cfg(Config(make_config(work_dir)))
    seen = []

    def load(method, filename, *args, **kwargs):
        seen.append(filename)
        return 'loaded'

    runner_private.wrap_method(runner, 'load_checkpoint', load)
    assert runner.load_checkpoint('a.pth') == 'loaded' and seen == ['a.pth']
    assert 'load_checkpoint' not in vars(Runner.from_cfg(Config(make_config(work_dir))))


def test_a_checkpoint_is_resumed_from_on_the_host(work_dir, monkeypatch):
    """Where mmengine takes the network's device, which a machine without a GPU refuses."""
    options = dict(seed=0, optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)))
    train(work_dir, max_epochs=1, **options)
    runner = Runner.from_cfg(Config(make_config(work_dir, max_epochs=2, resume=True, **options)))
    monkeypatch.setattr('mmengine.runner.runner.get_device', lambda: 'cuda')
    runner.train()
    assert runner.iter == 14
    steps = {value['step'].device.type
             for value in runner.optim_wrapper.optimizer.state_dict()['state'].values()}
    assert steps == {'cpu'}


def test_workers_are_started_anew(work_dir):
    runner = Runner.from_cfg(Config(make_config(work_dir, validate=True)))
    loader = runner.build_dataloader(dict(
        runner.cfg.val_dataloader, num_workers=1, persistent_workers=True))
    next(iter(loader))
    assert loader._iterator is not None
    runner_private.forget_workers(loader)
    assert loader._iterator is None


def test_workers_that_persist_are_started_anew_too():
    """What they have from the run that began (data set, seed, signals) has changed since."""
    loader = DataLoader(range(4), num_workers=1, persistent_workers=True)
    loop = SimpleNamespace(dataloader_iterator=EndlessIterator(loader))
    before, state = loader._iterator, torch.get_rng_state()
    runner_private.restart_workers(SimpleNamespace(train_loop=loop, train_dataloader=loader))
    assert loader._iterator is not before and next(loop.dataloader_iterator) == 0
    assert torch.equal(torch.get_rng_state(), state)  # the weights are drawn after it


@pytest.mark.parametrize('by_epoch', [False, True])
def test_no_worker_outlives_the_training(work_dir, by_epoch):
    """Else torch waits five seconds for each when the Runner becomes garbage."""
    config = make_config(work_dir, max_epochs=1, validate=True, param_scheduler=[])
    if not by_epoch:
        config['train_cfg'] = dict(by_epoch=False, max_iters=3)
    config = Config(config)
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.update(num_workers=1, persistent_workers=True)
    before = set(multiprocessing.active_children())
    runner = Runner.from_cfg(config)
    runner.train()
    assert set(multiprocessing.active_children()) <= before
    runner.val()  # starts them again


def test_the_loader_of_a_runner_is_replaced(work_dir):
    config = Config(make_config(work_dir, max_epochs=1))
    config.randomness = dict(seed=1, diff_rank_seed=True)
    runner = Runner.from_cfg(config)
    cfg = runner_private.train_loader_config(runner)
    assert cfg['sampler']['type'] == 'SlidingWindowSampler'
    assert runner_private.ranks_draw_differently(runner)
    loader = runner.build_dataloader(cfg)
    runner_private.replace_train_loader(runner, loader)
    assert runner_private.train_loader_config(runner) is None
    runner.train()
    assert runner.train_dataloader is loader
    runner_private.count_epoch(runner.train_loop)
    assert runner.epoch == 2


def test_parts_of_optimizer_wrappers():
    weight = torch.nn.Parameter(torch.zeros(2))
    wrapper = OptimWrapper(torch.optim.SGD([weight], lr=1.0), clip_grad=dict(max_norm=1.0))
    runner_private.set_inner_count(wrapper, 7)
    assert wrapper.inner_count == 7
    weight.grad = torch.tensor([3.0, 4.0])
    runner_private.clip_gradients(wrapper)
    # Up to the 1e-6 that torch adds to the norm.
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]), atol=1e-6, rtol=0)


def test_config_files(tmp_path):
    plain, lazy = tmp_path / 'plain.py', tmp_path / 'lazy.py'
    plain.write_text("name = '{{ fileBasenameNoExtension }}'\n")
    lazy.write_text('from mmengine.config import read_base\nwith read_base():\n    pass\n')
    assert not runner_private.is_lazy_config(plain) and runner_private.is_lazy_config(lazy)
    runner_private.fill_in_predefined(plain, tmp_path / 'copy.py')
    assert (tmp_path / 'copy.py').read_text() == "name = 'plain'\n"


@pytest.mark.parametrize('by_epoch', [True, False])
def test_a_cut_run_goes_on_bit_for_bit(tmp_path, by_epoch):
    loop = dict(by_epoch=True, max_epochs=4) if by_epoch else dict(
        type='IterBasedTrainLoop', max_iters=28)
    hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=by_epoch,
                                 interval=2 if by_epoch else 14))
    options = dict(seed=3, augment=by_epoch, train_cfg=loop, default_hooks=hooks)
    whole = train(tmp_path / 'whole', **options)
    name = 'epoch_2.pth' if by_epoch else 'iter_14.pth'
    resumed = train(tmp_path / 'parts', resume=True, load_from=str(tmp_path / 'whole' / name),
                    **options)
    assert runner_private.has_loaded(resumed) and runner_private.resumes(resumed)
    assert_equal(snapshot(resumed), snapshot(whole))
    np.testing.assert_array_equal(resumed.losses, whole.losses[14:])


def test_the_order_of_channels_that_a_preprocessor_hands_on():
    for preprocessor, expected in (
            (ImgDataPreprocessor(mean=[0.0] * 3, std=[1.0] * 3, bgr_to_rgb=True), True),
            (ImgDataPreprocessor(mean=[0.0] * 3, std=[1.0] * 3), False),
            (SelfSupDataPreprocessor(mean=[0.0] * 3, std=[1.0] * 3, to_rgb=True), True),
            (ClsDataPreprocessor(mean=[0.0] * 3, std=[1.0] * 3, to_rgb=False), False),
            (AugmentPreprocessor(mean=[0.0] * 3, std=[1.0] * 3, to_rgb=True), True)):
        assert runner_private.gives_rgb(preprocessor) is expected


def test_what_a_subset_of_a_data_set_picks():
    rows = [dict(img_path=f'{i}.png') for i in range(5)]

    class Rows(BaseDataset):
        def load_data_list(self):
            return rows

    picked = Rows(indices=[3, 1, 3], serialize_data=False)
    assert list(picked._indices) == [3, 1, 3] and len(picked) == 3
    assert Rows(serialize_data=False)._indices is None
