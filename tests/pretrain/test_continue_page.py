# SPDX-License-Identifier: Apache-2.0
"""The sequence of docs/continue.md at a small size: a classifier, and PIC that goes on from it."""
import re

import torch
from mmengine.config import Config

from pic_plugin.tools import pretrain, train
from toys.pictures import write_classes, write_pictures

CONFIG = 'supervised_resnet18-quarter_cifar10.py'


def test_a_classifier_then_pic(tmp_path, work_dir, quick, capsys):
    data = tmp_path / 'cifar10'
    for part in ('train', 'test'):
        write_classes(data / part)
    classifier = tmp_path / 'classifier'
    train.main([CONFIG, '--work-dir', str(classifier), '--cfg-options', f'data_root={data}',
                'train_dataloader.batch_size=8', 'train_cfg.max_epochs=1',
                'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0',
                'param_scheduler=[]'])
    pictures = write_pictures(tmp_path / 'clothes', 24)
    pretrain.main([str(pictures), '--from', str(classifier), '--epochs', '1', '--image-size', '32',
                   '--batch-size', '8', '--out', str(work_dir), '--device', 'cpu', '--no-report'])
    printed = capsys.readouterr().out
    assert re.search(r'backbone +resnet18-quarter +with the weights of', printed)
    # It began with the classifier's.
    before = torch.load(classifier / 'epoch_1.pth', weights_only=True)['state_dict']
    start = torch.load(work_dir / 'start.pth')['state_dict']
    assert all(torch.equal(value, before[name]) for name, value in start.items())
    assert Config.fromfile(work_dir / 'pretrain.py').model.backbone.base_channels == 16
