# SPDX-License-Identifier: Apache-2.0
"""PICHead(refresh_returning) through the Runner: what it turns, when, and after a resume."""
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.runner import Runner

from pic_plugin.bank import initial_rows
from toys.training import FEAT_DIM, assert_equal, bank_paths, make_config, snapshot, train

STILL = dict(optimizer=dict(type='SGD', lr=0.0, momentum=0.9))  # nothing moves but by refresh


def features_of(runner):
    """(N, d) projected features of all images, which are not augmented."""
    dataset = runner.train_dataloader.dataset
    model = runner.model
    batch = model.data_preprocessor(default_collate([dataset[i] for i in range(len(dataset))]))
    with torch.no_grad():
        return model.neck(model.backbone(batch['inputs']))[-1]


@pytest.mark.parametrize('num_negatives', [16, None])
def test_rows_point_to_the_features_and_keep_their_length(tmp_path, num_negatives):
    runner = train(tmp_path, max_epochs=1, seed=3, augment=False, optim_wrapper=STILL,
                   head=dict(num_negatives=num_negatives, refresh_returning=1.0))
    head = runner.model.head
    rows = head.class_weights(range(50))
    visited = head._sampled.last_visits.steps >= 0
    start = torch.from_numpy(initial_rows(np.arange(50), FEAT_DIM, seed=runner.seed))
    assert 16 < visited.sum() < 50  # more than K, so some rows are stored
    cosine = torch.cosine_similarity(rows, features_of(runner))
    torch.testing.assert_close(cosine[visited], torch.ones(int(visited.sum())))
    torch.testing.assert_close(rows.norm(dim=1), start.norm(dim=1))
    torch.testing.assert_close(rows[~visited], start[~visited])


def test_without_the_option_no_row_moves(tmp_path):
    runner = train(tmp_path, max_epochs=1, seed=3, augment=False, optim_wrapper=STILL)
    start = torch.from_numpy(initial_rows(np.arange(50), FEAT_DIM, seed=runner.seed))
    assert torch.equal(runner.model.head.class_weights(range(50)), start)


@pytest.mark.parametrize('options, steps', [
    (dict(), 5),  # two windows of 20 images, 8 images a step
    (dict(num_images=48, accumulate=3), 2),
    (dict(head=dict(returning_after=7)), 7),
])
def test_an_absence_is_two_windows_long(tmp_path, options, steps):
    head = dict(refresh_returning=0.5, **options.pop('head', {}))
    runner = train(tmp_path, max_epochs=1, head=head, **options)
    assert runner.model.head._sampled.refresh == (0.5, steps)


def test_a_window_that_the_batch_decides_is_known(tmp_path):
    """Left open it is half of the 50 images here, of which a tenth were less than four steps."""
    config = make_config(tmp_path, max_epochs=1, head=dict(refresh_returning=0.5))
    config['train_dataloader']['sampler'] = dict(type='SlidingWindowSampler')
    runner = Runner.from_cfg(Config(config))
    runner.train()
    assert runner.train_dataloader.sampler.window_size == 25
    assert runner.model.head._sampled.refresh.away == 7  # 2 * 25 images of 8 a step


@pytest.mark.parametrize('num_negatives', [16, None])
def test_two_epochs_and_two_are_four(tmp_path, num_negatives):
    """A resumed run knows when images were visited; else each would count as returning."""
    options = dict(seed=5, head=dict(num_negatives=num_negatives, refresh_returning=0.7))
    whole = train(tmp_path / 'whole', **options)
    saved, folder = tmp_path / 'whole' / 'epoch_2.pth', tmp_path / 'part'
    folder.mkdir()
    for path in [saved, *bank_paths(saved)]:
        shutil.copy(path, folder)
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_2.pth'))
    part = train(folder, resume=True, **options)
    assert_equal(snapshot(part), snapshot(whole))
    assert part.losses == whole.losses[-len(part.losses):]
