# SPDX-License-Identifier: Apache-2.0
"""One option each for TensorBoard, Weights & Biases and MLflow, all without a network."""
import json

import pytest

from pic_plugin.tools import pretrain
from toys.pictures import write_pictures

SMALL = ['--backbone', 'resnet18', '--image-size', '32', '--batch-size', '8', '--device', 'cpu',
         '--no-report', '--epochs', '1']


def run(tmp_path, work_dir, name):
    data = write_pictures(tmp_path / 'data', 32)
    pretrain.main([str(data), '--out', str(work_dir), *SMALL, '--log', name])
    vis_data = next(work_dir.glob('*/vis_data'))
    losses = [entry['loss'] for entry in map(json.loads, (
        vis_data / 'scalars.json').read_text().splitlines()) if 'loss' in entry]
    return vis_data, losses


def test_tensorboard(tmp_path, work_dir, quick):
    pytest.importorskip('tensorboard', reason="pip install '.[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    vis_data, losses = run(tmp_path, work_dir, 'tensorboard')
    events = EventAccumulator(str(vis_data))
    events.Reload()
    assert [point.value for point in events.Scalars('loss')] == pytest.approx(losses, rel=1e-5)


def test_wandb_offline(tmp_path, work_dir, quick, monkeypatch):
    pytest.importorskip('wandb', reason='pip install wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    vis_data, losses = run(tmp_path, work_dir, 'wandb')
    files = list(vis_data.rglob('run-*.wandb'))
    assert len(files) == 1
    # A record of the last step's loss, as JSON in a binary log.
    assert repr(losses[-1])[:7].encode() in files[0].read_bytes()


def test_mlflow_in_a_folder(tmp_path, work_dir, quick, monkeypatch):
    pytest.importorskip('mlflow', reason='pip install mlflow')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    vis_data, losses = run(tmp_path, work_dir, 'mlflow')
    files = list(tmp_path.rglob('metrics/loss'))
    assert len(files) == 1
    logged = [float(line.split()[1]) for line in files[0].read_text().splitlines()]
    assert logged == pytest.approx(losses, rel=1e-5)
