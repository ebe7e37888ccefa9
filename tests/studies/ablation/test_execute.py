# SPDX-License-Identifier: Apache-2.0
"""Grids that are really trained: interrupted, resumed, failed, counted."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from pic_plugin.studies.ablation import execute, training
from pic_plugin.studies.ablation.grid import read_grid, set_length

TOY = Path(__file__).with_name('toy_grid.py')
ROOT = Path(__file__).resolve().parents[3]
SAME = ('knn20', 'knn200', 'knn20_train', 'linear', 'images', 'passes', 'steps')


def start(work_dir, *options):
    return subprocess.Popen(
        [sys.executable, '-m', 'pic_plugin.tools.ablation', 'run', str(TOY), '--work-dir',
         str(work_dir), '--seeds', '0', *options],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, 'OMP_NUM_THREADS': '1'})


def results(work_dir):
    found = {}
    for training_ in read_grid(str(TOY), seeds=[0]).trainings:
        file = work_dir / training_.name / 'result.json'
        found[training_.labels['rate']] = json.loads(file.read_text()) if file.is_file() else None
    return found


def test_killed_in_the_middle_it_goes_on_and_ends_the_same(tmp_path, work_dir, capsys):
    for training_ in read_grid(str(TOY), seeds=[0]).trainings:
        execute.prepare(training_, tmp_path / 'whole' / training_.name, None)
        training.train(tmp_path / 'whole' / training_.name)
    expected = results(tmp_path / 'whole')
    # 160 images are 4 epochs of 40.
    assert expected['low']['images'] == expected['low']['passes'] == 160
    assert expected['low']['steps'] == 20 and expected['low']['ms_per_image'] > 0
    assert expected['low']['peak_mb'] >= expected['low']['base_mb'] > 50
    assert not list((tmp_path / 'whole').glob('*/work')), 'checkpoints are not kept'

    # Killed, without warning, when the first training has a checkpoint of its second epoch.
    parts = tmp_path / 'parts'
    first = start(parts, '--jobs', '1')
    deadline = time.monotonic() + 600
    while not list(parts.glob('*/work/epoch_2.pth')):
        assert first.poll() is None and time.monotonic() < deadline, first.stdout.read()
        time.sleep(0.01)
    first.send_signal(signal.SIGTERM)
    output, _ = first.communicate(timeout=600)
    assert first.returncode != 0 and 'Traceback' not in output
    assert results(parts) == dict(low=None, high=None)
    again = start(parts, '--jobs', '1')
    output, _ = again.communicate(timeout=600)
    assert again.returncode == 0 and '0 of 2 trainings are done' in output, output
    for rate, result in results(parts).items():
        assert {key: result[key] for key in SAME} == {key: expected[rate][key] for key in SAME}
    log = '\n'.join(file.read_text() for file in parts.glob('*/output.log'))
    assert log.count('Epoch(train) [1][5/5]') == 2, 'one of them was resumed'

    # Nothing is left to do, and what is done is not touched.
    before = {file: file.stat().st_mtime for file in parts.glob('*/result.json')}
    assert execute.run_all(read_grid(str(TOY), seeds=[0]).trainings, parts) == []
    assert '2 of 2 trainings are done' in capsys.readouterr().out
    assert {file: file.stat().st_mtime for file in parts.glob('*/result.json')} == before


def test_a_training_that_fails_is_named_and_the_others_go_on(tmp_path):
    left = read_grid(str(TOY), seeds=[0]).trainings
    folder = tmp_path / left[0].name
    folder.mkdir()
    (folder / 'work').write_text('no folder')
    process = start(tmp_path, '--jobs', '1')
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1
    assert 'FAILED in' in output and f'see {folder / "output.log"}' in output
    assert '1 trainings failed' in output
    assert results(tmp_path)['low'] is None and results(tmp_path)['high'] is not None


def test_two_processes_in_one_folder_are_refused(tmp_path):
    with execute._only_one(tmp_path), pytest.raises(RuntimeError, match='another process trains'):
        execute.run_all(read_grid(str(TOY)).trainings, tmp_path)


def test_folder_of_images_may_be_given_anew(tmp_path):
    """The first was wrong, or the images have moved since."""
    training_ = read_grid('compare_methods_clothing').trainings[0]
    for name in ('first', 'second'):
        images = tmp_path / name
        images.mkdir()
        execute.prepare(training_, tmp_path / 'training', str(images))
        cfg = Config.fromfile(tmp_path / 'training' / 'config.py')
        assert cfg.train_dataloader.dataset.data_root == str(images)


def test_bad_arguments(tmp_path):
    trainings = read_grid(str(TOY)).trainings
    with pytest.raises(ValueError, match='jobs must be at least 1, not 0'):
        execute.run_all(trainings, tmp_path, jobs=0)
    cfg = Config(dict(train_dataloader=dict(dataset=dict(data_root=None)),
                      val_dataloader=dict(dataset=dict(datasets=[dict(data_root=None), {}]))))
    for folder in (None, str(tmp_path / 'gone')):
        with pytest.raises(ValueError, match='--data-root'):
            execute.with_data_root(cfg, folder)
    given = execute.with_data_root(cfg, str(tmp_path))
    assert given.train_dataloader.dataset.data_root == str(tmp_path)
    assert given.val_dataloader.dataset.datasets[0].data_root == str(tmp_path)
    assert cfg.train_dataloader.dataset.data_root is None


def test_leave_one_out_in_a_loop():
    generator = torch.Generator().manual_seed(0)
    feats = torch.nn.functional.normalize(torch.randn(40, 6, generator=generator), dim=1)
    labels = torch.randint(3, (40, ), generator=generator)
    correct = 0
    for i in range(40):
        others = [(float(feats[i] @ feats[j]), int(labels[j])) for j in range(40) if j != i]
        votes = [0.0, 0.0, 0.0]
        for similarity, label in sorted(others, reverse=True)[:5]:
            votes[label] += 2.718281828459045**(similarity / 0.07)
        correct += votes.index(max(votes)) == labels[i]
    assert training.leave_one_out(feats, labels, k=5) == pytest.approx(100 * correct / 40)


class Features:
    """A model whose features are its inputs."""

    def eval(self):
        pass

    def data_preprocessor(self, batch, train):
        return batch

    def extract_feat(self, inputs):
        return (inputs[:, :, None, None], )


def batch(feats, marks):
    from mmpretrain.structures import DataSample
    samples = []
    for i, mark in enumerate(marks):
        samples.append(DataSample().set_gt_label(i % 2))
        if mark:
            samples[-1].set_field(True, 'reference')
    return [dict(inputs=feats, data_samples=samples)]


def test_evaluation_keeps_references_and_others_apart():
    # Two directions, one for each label.
    feats = torch.eye(2)[torch.arange(460) % 2] + 0.01 * torch.rand(460, 2)
    marks = [i < 400 for i in range(460)]
    assert training.evaluate(Features(), batch(feats, marks)) == dict(
        knn20=100, knn200=100, knn20_train=100, linear=100)
    swapped = torch.cat([feats[:400], feats[400:].flip(1)])
    measured = training.evaluate(Features(), batch(swapped, marks))
    assert (measured['knn20'], measured['knn20_train'], measured['linear']) == (0, 100, 0)
    with pytest.raises(ValueError, match='460 of 460 samples are marked'):
        training.evaluate(Features(), batch(feats, [True] * 460))
    with pytest.raises(ValueError, match='not finite'):
        training.evaluate(Features(), batch(feats * float('nan'), marks))


@pytest.mark.parametrize('method, views', [('PIC', 1), ('SimCLR', 2), ('MoCo v2', 2)])
def test_methods_train_and_their_passes_are_counted(tmp_path, work_dir, method, views):
    chosen = next(t for t in read_grid('compare_methods', images=40).trainings
                  if t.labels['method'] == method)
    cfg = chosen.cfg
    cfg.num_images = 128
    set_length(cfg, 20 * 128)
    cfg.train_dataloader.dataset.indices = list(range(0, 5000, 40))[:128] + [1, 2, 3]
    references, others = cfg.val_dataloader.dataset.datasets
    references.indices, others.indices = list(range(0, 5000, 20)), list(range(0, 1000, 50))
    execute.prepare(chosen, tmp_path, None)
    result = training.train(tmp_path)
    steps = 128 // cfg.train_dataloader.batch_size * 20
    assert result['steps'] == steps
    assert result['images'] == steps * cfg.train_dataloader.batch_size == 2560
    assert result['passes'] == views * 2560, 'the second encoder of MoCo included'
    # 20 pictures of ten classes: none may be right.
    assert 0 <= result['knn20'] <= 100 and 0 <= result['linear'] <= 100
