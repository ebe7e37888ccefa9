# SPDX-License-Identifier: Apache-2.0
"""Class weights read from a checkpoint are those of the run that wrote it."""
import runpy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from pic_plugin.analysis.class_weights import read_class_weights
from pic_plugin.bank import BankFileError

TINY = Path(__file__).resolve().parent.parent / 'tools' / 'tiny_config.py'


@pytest.mark.parametrize('num_negatives', [24, None], ids=['sampled', 'all'])
def test_rows_in_the_softmax_and_outside(work_dir, num_negatives):
    """40 classes, of which 24 are active: the others are in the bank file, and owe momentum."""
    cfg = Config({name: value for name, value in runpy.run_path(str(TINY)).items()
                  if not name.startswith('__')})
    cfg.model.head.num_negatives = num_negatives
    cfg.train_dataloader.collate_fn = dict(type='default_collate')
    cfg.pop('val_dataloader'), cfg.pop('val_evaluator'), cfg.pop('val_cfg')
    cfg.train_cfg = dict(by_epoch=True, max_epochs=2)
    cfg.work_dir = str(work_dir)
    runner = Runner.from_cfg(cfg)
    runner.train()
    expected = runner.model.head.class_weights(torch.arange(40))
    found = read_class_weights(work_dir / 'epoch_2.pth')
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    if num_negatives is not None:
        # A bank file of another save, renamed into place, is the right size and wrong.
        own, = work_dir.glob('epoch_2.*.bank-*')
        other, = work_dir.glob('epoch_1.*.bank-*')
        kept = own.read_bytes()
        own.write_bytes(other.read_bytes())
        with pytest.raises(BankFileError, match='belongs to another checkpoint'):
            read_class_weights(work_dir / 'epoch_2.pth')
        own.write_bytes(kept)
        for file in work_dir.glob('epoch_2.*.bank-*'):
            file.unlink()
        with pytest.raises(BankFileError, match='cannot be read'):
            read_class_weights(work_dir / 'epoch_2.pth')


def test_a_checkpoint_that_contradicts_itself(tmp_path):
    torch.save(dict(state_dict={'head.weight': torch.ones(3, 2)}, pic_bank=dict(num_instances=-3)),
               tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='its num_instances is -3'):
        read_class_weights(tmp_path / 'a.pth')


def test_a_checkpoint_without(tmp_path):
    torch.save(dict(state_dict={'backbone.conv1.weight': torch.ones(1)}), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='no class weights'):
        read_class_weights(tmp_path / 'a.pth')
