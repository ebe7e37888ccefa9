# SPDX-License-Identifier: Apache-2.0
"""CheckLabelsHook in real Runners on folders of images: which label is wrong, and where it is."""
import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from PIL import Image

import pic_plugin  # noqa: F401
import pic_plugin.engine.hooks.check_labels_hook  # noqa: F401


class Classifier(BaseModel):

    def __init__(self, num_classes):
        super().__init__()
        self.head = torch.nn.Module()
        self.head.num_classes = num_classes
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'loss':
            return dict(loss=self.weight.sum())
        return [sample.set_pred_label(sample.gt_label) for sample in data_samples]


@pytest.fixture
def root(tmp_path):
    for split, names in (('train', 'abc'), ('val', 'abc'), ('two', 'ac'), ('other', 'abd')):
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / split / name / '0.png')
    (tmp_path / 'list.txt').write_text('a/0.png 0\nb/0.png 3\nc/0.png -1\n')
    (tmp_path / 'none.txt').write_text('')
    return tmp_path


@pytest.fixture
def train(root, work_dir):
    def run(train=None, val=None, num_classes=3, test=False):
        def loader(split, changes):
            return dict(
                batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                dataset={'type': 'CustomDataset', 'data_root': str(root), 'data_prefix': split,
                         'pipeline': [dict(type='LoadImageFromFile'), dict(type='PackInputs')],
                         **(changes or {})})

        evaluated = {} if val is False else dict(
            val_dataloader=loader('val', val), val_cfg=dict(),
            val_evaluator=dict(type='Accuracy', topk=1))
        if test:
            evaluated.update(test_dataloader=loader('val', val), test_cfg=dict(),
                             test_evaluator=dict(type='Accuracy', topk=1))
        runner = Runner(
            Classifier(num_classes), str(work_dir), default_scope='mmpretrain',
            train_dataloader=loader('train', train),
            train_cfg=dict(by_epoch=True, max_epochs=1, val_interval=9),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            custom_hooks=[dict(type='CheckLabelsHook')], **evaluated)
        steps = []
        step = runner.model.train_step
        runner.model.train_step = lambda *args, **kwargs: steps.append(1) or step(*args, **kwargs)
        try:
            (runner.test if test else runner.train)()
        finally:
            run.steps = len(steps)
    return run


@pytest.mark.parametrize('val', [None, False])
def test_labels_that_fit_train(train, val):
    train(val=val)
    assert train.steps == 3


@pytest.mark.parametrize('case, message', [
    (dict(num_classes=2), r'train: .*c.0\.png has label 2, and the classifier takes 0 to 1 '
                          r'\(1 of 3 labels .*model\.head\.num_classes'),
    (dict(train=dict(ann_file='list.txt')),
     r'list\.txt: .*b.0\.png has label 3, .*0 to 2 \(2 of 3'),
    (dict(val=dict(ann_file='list.txt', data_prefix='val')),
     r'list\.txt: .*val.b.0\.png has label'),
    (dict(train=dict(with_label=False)), r'train: .*0\.png has no label: .*with_label=True'),
    (dict(val=dict(data_prefix='two')),
     r"train and .*two do not have the same classes .*\(3 and 2 of them; .*\['b'\]"),
    (dict(val=dict(data_prefix='other')), r"\['c', 'd'\].*the same folders"),
])
def test_wrong_labels_stop_the_training_before_its_first_step(train, case, message):
    with pytest.raises(ValueError, match=message):
        train(**case)
    assert train.steps == 0


def test_a_test_looks_at_the_labels_of_its_data(train):
    with pytest.raises(ValueError, match=r'val: .*c.0\.png has label 2, .* takes 0 to 1'):
        train(num_classes=2, test=True)
