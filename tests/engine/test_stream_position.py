# SPDX-License-Identifier: Apache-2.0
"""A training that is cut anywhere goes on at the next position of the stream, exactly."""
import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from pic_plugin.engine import stream_position
from toys.training import assert_equal, bank_paths, make_config, snapshot, train

BY_ITER = dict(
    logger=dict(type='LoggerHook', interval=3),
    checkpoint=dict(type='CheckpointHook', interval=5, by_epoch=False))
# 14 iterations are two epochs of 50 images in batches of 8.
ENDLESS = dict(
    train_cfg=dict(by_epoch=False, max_iters=14),
    param_scheduler=[dict(type='CosineAnnealingLR', T_max=14, by_epoch=False)])
EPOCHS = dict(
    max_epochs=2,
    param_scheduler=[dict(type='CosineAnnealingLR', T_max=2, end=2, by_epoch=True,
                          convert_to_iter_based=True)])


def run(work_dir, loader=None, **kwargs):
    torch.set_num_threads(1)
    config = make_config(work_dir, default_hooks=BY_ITER, seed=3, **kwargs)
    config['train_dataloader'].update(loader or {})
    runner = Runner.from_cfg(Config(config))
    runner.train()
    runner.train_loop.dataloader_iterator = None  # its workers end now, not some time later
    return runner


def copy_checkpoint(source, folder, name):
    folder.mkdir()
    for path in [source / f'{name}.pth', *bank_paths(source / f'{name}.pth')]:
        shutil.copy(path, folder)
    (folder / 'last_checkpoint').write_text(str(folder / f'{name}.pth'))


def sampler(endless):
    return dict(type='SlidingWindowSampler', window_size=20, stride=5, endless=endless)


@pytest.mark.parametrize('endless, num_workers, persistent', [
    (True, 0, False), (True, 1, True), (False, 0, False), (False, 1, False), (False, 1, True)])
@pytest.mark.parametrize('iteration', [5, 10])  # in the first pass over the data, and the second
def test_cut_and_resumed_is_not_cut(tmp_path, monkeypatch, endless, num_workers, persistent,
                                    iteration):
    """With augmentation and dropout, both random."""
    monkeypatch.setattr('mmengine.runner.loops.time.sleep',
                        lambda seconds: pytest.fail('a loader has ended'))
    loader = dict(sampler=sampler(endless), num_workers=num_workers, persistent_workers=persistent)
    options = dict(ENDLESS if endless else EPOCHS, loader=loader)
    whole = run(tmp_path / 'whole', **options)
    copy_checkpoint(tmp_path / 'whole', tmp_path / 'part', f'iter_{iteration}')
    part = run(tmp_path / 'part', resume=True, **options)
    assert len(whole.losses) == 14 and len(set(whole.losses)) == 14
    assert part.losses == whole.losses[iteration:]
    assert_equal(snapshot(part), snapshot(whole))


def test_a_resumed_endless_run_loads_nothing_twice(tmp_path, monkeypatch):
    options = dict(ENDLESS, loader=dict(sampler=sampler(True)))
    run(tmp_path / 'whole', **options)
    copy_checkpoint(tmp_path / 'whole', tmp_path / 'part', 'iter_10')
    loaded = []
    load = stream_position.SlidingWindowSampler._make_chunks

    def make_chunks(self, seed, positions):
        for chunk in load(self, seed, positions):
            for index in chunk:
                loaded.append(int(index))
                yield [index]

    monkeypatch.setattr(stream_position.SlidingWindowSampler, '_make_chunks', make_chunks)
    part = run(tmp_path / 'part', resume=True, **options)
    expected = part.train_dataloader.sampler.ids_at(10 * 8, 14 * 8).tolist()
    assert loaded == expected


def test_another_batch_size_goes_on_at_the_same_position(tmp_path):
    whole = run(tmp_path / 'whole', loader=dict(sampler=sampler(False)), **EPOCHS)
    assert torch.load(tmp_path / 'whole/iter_10.pth')['pic_stream'] == dict(
        seed=3, window_size=20, stride=5, offset=24)
    assert torch.load(tmp_path / 'whole/iter_5.pth')['pic_stream']['offset'] == 40
    copy_checkpoint(tmp_path / 'whole', tmp_path / 'part', 'iter_10')
    part = run(tmp_path / 'part', resume=True, batch_size=4,
               loader=dict(sampler=sampler(False)), **EPOCHS)
    # 26 of 50 images were left in the second epoch.
    assert len(part.losses) == 7 and part.epoch == whole.epoch == 2


def test_a_loader_that_ended_becomes_endless(tmp_path):
    """In a run that has been resumed before, where the stream is at the same position."""
    for max_iters, endless in ((5, False), (10, False), (11, True)):
        part = run(tmp_path, resume=max_iters > 5, loader=dict(sampler=sampler(endless)),
                   **dict(ENDLESS, train_cfg=dict(by_epoch=False, max_iters=max_iters)))
    # An epoch of 50 images is 7 batches; 3 of the next.
    assert part.train_dataloader.sampler.offset == 50 + 3 * 8


def test_the_last_gradients_of_another_batch_size_are_applied(tmp_path):
    """The wrapper has to know which iteration is the last."""
    run(tmp_path / 'whole', loader=dict(sampler=sampler(False)), **EPOCHS)
    copy_checkpoint(tmp_path / 'whole', tmp_path / 'part', 'iter_10')
    part = run(tmp_path / 'part', resume=True, batch_size=16, accumulate=5,
               loader=dict(sampler=sampler(False)), **EPOCHS)
    assert len(part.losses) == 2  # of 26 images, where whole epochs have 4 and 24 make 1
    assert part.model.head.bank.step == 10 + 1


def test_the_epochs_end_is_no_position_within(tmp_path):
    train(tmp_path, seed=3, max_epochs=1)
    assert torch.load(tmp_path / 'epoch_1.pth')['pic_stream']['offset'] == 0


def test_window_left_open_is_saved_and_continued(tmp_path):
    """A tenth of 200 images would be less than four batches."""
    loader = dict(sampler=dict(type='SlidingWindowSampler'))
    runner = run(tmp_path, num_images=200, loader=loader, max_epochs=1)
    assert (runner.train_dataloader.sampler.window_size,
            runner.train_dataloader.sampler.stride) == (32, 4)
    saved = torch.load(tmp_path / 'iter_25.pth')
    assert saved['pic_stream']['window_size'] == 32
    # A larger batch, whose own default would be 64 images.
    part = run(tmp_path, num_images=200, loader=loader, max_epochs=2, batch_size=16, resume=True,
               accumulate=1)
    assert part.train_dataloader.sampler.window_size == 32
    # As version 0.1.0 has saved it: its defaults, of which 200 images leave 200.
    del saved['pic_stream']
    torch.save(saved, tmp_path / 'iter_25.pth')
    part = run(tmp_path, num_images=200, loader=loader, max_epochs=2, resume=True,
               load_from=str(tmp_path / 'iter_25.pth'))
    assert (part.train_dataloader.sampler.window_size,
            part.train_dataloader.sampler.stride) == (200, 200)


def test_window_left_open_reaches_an_iteration_based_loop(tmp_path):
    """Its workers start before anything can know the batch."""
    loader = dict(sampler=dict(type='SlidingWindowSampler', endless=True), num_workers=1)
    options = dict(ENDLESS, num_images=200, loader=loader)
    given = dict(loader, sampler=dict(type='SlidingWindowSampler', window_size=32, stride=4,
                                      endless=True))
    open_, named = (run(tmp_path / name, **dict(options, loader=one))
                    for name, one in (('open', loader), ('named', given)))
    assert open_.losses == named.losses


def test_endless_in_an_epoch_based_loop_is_refused(tmp_path):
    with pytest.raises(ValueError, match='endless=True.*by_epoch=False'):
        run(tmp_path, loader=dict(sampler=sampler(True)))


@pytest.mark.parametrize('state', [3, dict(offset=-1), dict(window_size='a')])
def test_a_damaged_entry_is_refused(tmp_path, state):
    options = dict(ENDLESS, loader=dict(sampler=sampler(True)))
    run(tmp_path, **options)
    saved = torch.load(tmp_path / 'iter_5.pth')
    torch.save(dict(saved, pic_stream=state), tmp_path / 'iter_5.pth')
    with pytest.raises(ValueError, match='cannot be resumed: its pic_stream is'):
        run(tmp_path, resume=True, load_from=str(tmp_path / 'iter_5.pth'), **options)


@pytest.mark.parametrize('missing, match', [
    ('param_schedulers', r'without its learning-rate schedulers .*save_param_scheduler=False'),
    ('optimizer', 'without the state of the optimizer'),
])
def test_resume_without_what_the_rate_needs_is_refused(tmp_path, missing, match):
    run(tmp_path, **EPOCHS)
    saved = torch.load(tmp_path / 'iter_5.pth')
    del saved[missing]
    torch.save(saved, tmp_path / 'iter_5.pth')
    with pytest.raises(ValueError, match=match):
        run(tmp_path, resume=True, load_from=str(tmp_path / 'iter_5.pth'), **EPOCHS)


def test_resume_with_other_schedulers_is_refused(tmp_path):
    run(tmp_path, **EPOCHS)
    options = dict(EPOCHS, param_scheduler=EPOCHS['param_scheduler'] * 2)
    with pytest.raises(ValueError, match='saved with 1 learning-rate scheduler, .* has 2: .*'
                       'pretrain DATA --from WORK --out NEW'):
        run(tmp_path, resume=True, load_from=str(tmp_path / 'iter_5.pth'), **options)
