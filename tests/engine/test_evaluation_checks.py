# SPDX-License-Identifier: Apache-2.0
"""Labelled folders with faults: found before the first step, or passed over and counted."""
import shutil

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from torch import nn

from pic_plugin.engine.evaluation_checks import _classes_in_one
from pic_plugin.models import PIC
from pic_plugin.tools import train as train_tool
from toys.training import make_config


@MODELS.register_module()
class PictureToyBackbone(nn.Module):
    """(B, 3, H, W) to a tuple of (B, 16)."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, 16)

    def forward(self, images):
        return (self.linear(nn.functional.interpolate(images.float(), (8, 8)).flatten(1)), )


@MODELS.register_module()
class PredictingPIC(PIC):
    """With a classifier of its own, which says the first class."""

    def predict(self, inputs, data_samples=None):
        for sample in super().predict(inputs, data_samples):
            sample.set_pred_label(0)
        return data_samples


@pytest.fixture
def folder(tmp_path):
    """``train`` and ``val``, each with two classes of four pictures."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for label in ('cat', 'dog'):
            (tmp_path / split / label).mkdir(parents=True)
            for i in range(4):
                cv2.imwrite(str(tmp_path / split / label / f'{i}.png'),
                            rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    return tmp_path


@pytest.fixture
def said(monkeypatch):
    texts = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *args: texts.append(str(text)))
    log = MMLogger.log
    monkeypatch.setattr(MMLogger, 'log', lambda self, level, text, *args: (
        texts.append(str(text)), log(self, level, text, *args)))
    return texts


def config(folder, work_dir, topk=3, load='LoadImageFromFile', test_mode=False, nested=False):
    pack = dict(type='PackInputs', meta_keys=('sample_idx', 'reference', 'img_path'))
    cfg = make_config(
        work_dir, max_epochs=1, batch_size=4, seed=0,
        val_dataloader=dict(
            batch_size=3, num_workers=0, collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(type='ConcatDataset', datasets=[
                dict(type='CustomDataset', data_root=str(folder), data_prefix=split,
                     test_mode=test_mode, pipeline=[dict(type=load), *mark, pack])
                for split, mark in (('train', [dict(type='MarkReference')]), ('val', []))])),
        val_evaluator=dict(type='KNNMetric', topk=topk), val_cfg=dict())
    if nested:
        joined = cfg['val_dataloader']['dataset']
        joined['datasets'] = [dict(type='ConcatDataset', datasets=[one])
                              for one in joined['datasets']]
    cfg['model']['backbone'] = dict(type='PictureToyBackbone')
    cfg['train_dataloader']['dataset'] = dict(
        type='CustomDataset', data_root=str(folder / 'train'), with_label=False,
        pipeline=[dict(type='LoadImageFromFile'), pack])
    return Config(cfg)


def run(*args, **kwargs):
    runner = Runner.from_cfg(config(*args, **kwargs))
    runner.train()
    return runner


def test_fewer_references_than_neighbours(folder, work_dir):
    runner = Runner.from_cfg(config(folder, work_dir, topk=(3, 20)))
    with pytest.raises(ValueError, match=r'topk=\(3, 20\), but there are 8 references'):
        runner.train()
    assert runner.iter == 0


@pytest.mark.parametrize('metric', [
    dict(type='Accuracy', topk=(1, 5)), dict(type='RetrievalRecall', topk=1),
    [dict(type='KNNMetric', topk=3), dict(type='ConfusionMatrix')]])
def test_metrics_of_labels_that_are_not_predicted(folder, work_dir, metric):
    """mmpretrain's data sets bring them along: a KeyError at the first validation, hours later."""
    cfg = config(folder, work_dir)
    cfg.val_evaluator = metric
    runner = Runner.from_cfg(cfg)
    with pytest.raises(ValueError, match=r'\w+ compares predicted labels, and PIC predicts none'):
        runner.train()
    assert runner.iter == 0


def test_metrics_of_a_network_that_predicts(folder, work_dir):
    cfg = config(folder, work_dir)
    cfg.model.type = 'PredictingPIC'
    cfg.val_evaluator = dict(type='Accuracy')
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.message_hub.get_scalar('val/accuracy/top1').current() == 50.0


@pytest.mark.parametrize('load', ['LoadImageFromFile', 'LoadImageOrSkip'])
@pytest.mark.parametrize('test_mode', [False, True])
@pytest.mark.parametrize('content, nested', [(b'<html>', False), (b'', True)])
def test_broken_labelled_pictures_are_left_out(folder, work_dir, said, load, test_mode, content,
                                               nested):
    for name in ('val/dog/bad.png', 'train/cat/bad.png'):
        (folder / name).write_bytes(content)
    (folder / 'train/cat/bad.png').rename(folder / 'train/dog/bad.png')
    cfg = config(folder, work_dir, load=load, test_mode=test_mode, nested=nested)
    cfg.train_dataloader.dataset.data_root = str(folder / 'val/cat')
    runner = Runner.from_cfg(cfg)
    runner.train()
    score = runner.message_hub.get_scalar('val/knn/top1_k3').current()
    assert any('2 of 18 images could not be loaded and are left out' in text for text in said)
    for name in ('val/dog/bad.png', 'train/dog/bad.png'):
        assert any(f'Evaluation leaves out {folder / name}' in text for text in said)
        (folder / name).unlink()
    whole = Runner.from_cfg(cfg)
    whole.train()
    assert whole.message_hub.get_scalar('val/knn/top1_k3').current() == score


def test_a_pipeline_that_always_fails_is_no_broken_picture(folder, work_dir):
    cfg = config(folder, work_dir)
    cfg.val_dataloader.dataset.datasets[1].pipeline = [dict(type='PackInputs', input_key='nothing',
                                                            meta_keys=('sample_idx', 'absent'))]
    for file in (folder / 'val').rglob('*.png'):
        file.write_bytes(b'')
    cfg.val_dataloader.dataset.datasets[1].pipeline = [dict(type='LoadImageFromFile')]
    with pytest.raises(Exception):  # noqa: B017  mmcv raises AssertionError, cv2.error, others
        Runner.from_cfg(cfg).train()


def test_classes_without_images_are_named(folder, work_dir, said):
    for file in (folder / 'val/cat').iterdir():
        file.rename(folder / 'val/dog' / f'cat{file.name}')
    run(folder, work_dir)
    assert any('no image to evaluate is of class cat' in text for text in said)


class Labels:
    def __init__(self, *labels):
        self.labels, self.metainfo = labels, dict(classes=['ant', 'bee', 'cat'])

    def __len__(self):
        return len(self.labels)

    def get_data_info(self, place):
        return dict(gt_label=self.labels[place])


def test_of_large_splits_a_part_is_looked_at():
    large = Labels(*[0] * 50, *[1] * 50, 2)
    # Every eleventh label: class 2 is not met, which says nothing of it.
    assert _classes_in_one([large], [Labels(0, 1, 2)], most=10) == ''
    assert _classes_in_one([large], [Labels(0, 2)], most=10) == (
        'no image to evaluate is of class bee.')
    assert _classes_in_one([large], [Labels(0, 1)]) == 'no image to evaluate is of class cat.'


def test_a_missing_class_is_named_by_the_tool(folder, tmp_path, work_dir):
    shutil.rmtree(folder / 'val/cat')
    cfg = config(folder, work_dir)
    cfg.model.backbone = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
    cfg.model.neck = dict(type='MoCoV2Neck', in_channels=64, hid_channels=8, out_channels=8)
    cfg.custom_hooks = [dict(type='InstanceBankHook')]
    cfg.dump(str(tmp_path / 'config.py'))
    with pytest.raises(SystemExit) as stop:
        train_tool.main([str(tmp_path / 'config.py')])
    last = str(stop.value)
    assert last.startswith('train: ') and '\n' not in last
    assert 'do not have the same classes' in last
    assert f'{folder / "val"} lacks cat' in last
