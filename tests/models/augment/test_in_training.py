# SPDX-License-Identifier: Apache-2.0
"""AugmentPreprocessor in a training: resume, memory format, and what is said at the start."""
import copy
import shutil

import pytest
import torch
from mmengine.runner import Runner
from mmpretrain.registry import MODELS

from pic_plugin.engine import preflight
from toys.training import assert_equal, make_config, snapshot, train

PIPELINE = [dict(type='DecodeRandomCrop', size=2), dict(type='PackInputs',
                                                         meta_keys=('sample_idx', ))]


def options(pipeline=(), views=None, **settings):
    """Of a toy training on 40 pictures, augmented by the preprocessor."""
    config = make_config('unused')
    model = copy.deepcopy(config['model'])
    model['data_preprocessor'] = dict(type='AugmentPreprocessor', mean=[120.] * 3, std=[60.] * 3,
                                      to_rgb=True, views=views, **settings)
    loader = config['train_dataloader']
    loader['dataset'] = dict(type='ImageGrid', img_file='cifar10_test_1000.webp', indices=40,
                             with_label=False, pipeline=[*pipeline, *PIPELINE])
    return dict(model=model, train_dataloader=loader)


def test_two_epochs_and_two_are_four(tmp_path):
    whole = train(tmp_path / 'whole', seed=1, **options())
    shutil.copytree(tmp_path / 'whole', tmp_path / 'part')
    for path in (tmp_path / 'part').glob('epoch_[34]*'):
        path.unlink()
    (tmp_path / 'part' / 'last_checkpoint').write_text(str(tmp_path / 'part' / 'epoch_2.pth'))
    part = train(tmp_path / 'part', seed=1, resume=True, **options())
    assert part.losses == whole.losses[len(whole.losses) // 2:]
    assert_equal(snapshot(part), snapshot(whole))
    other = train(tmp_path / 'other', seed=2, **options())
    assert other.losses != whole.losses


def test_weights_of_pic_follow_the_memory_format():
    for channels_last in (False, True):
        model = MODELS.build(dict(
            type='PIC', backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=8,
                                      stem_channels=8),
            neck=dict(type='MoCoV2Neck', in_channels=64, hid_channels=8, out_channels=8),
            head=dict(type='PICHead', feat_dim=8, num_instances=10, num_negatives=None),
            data_preprocessor=dict(type='AugmentPreprocessor', mean=[0.], std=[1.],
                                   channels_last=channels_last)))
        weight = model.backbone.layer1[0].conv1.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_augmenting_twice_is_said(tmp_path):
    flip = [dict(type='RandomFlip', prob=0.5)]
    for pipeline, views, noticed in ((flip, None, True), ((), None, False),
                                     (flip, dict(flip=0.), False)):
        runner = Runner.from_cfg(make_config(tmp_path, **options(pipeline, views)))
        notices = preflight.augmentation_notices(runner)
        assert ['flip (RandomFlip): the pipeline does it' in text
                for text in notices] == [True] * noticed
        assert set(notices) <= set(preflight.loader_notices(runner))


def test_a_backbone_of_other_channels_is_named():
    backbone = MODELS.build(dict(type='mmpretrain.ResNet', depth=18, in_channels=1))
    model = torch.nn.Module()
    model.backbone = backbone
    preflight.check_channels([torch.zeros(2, 1, 8, 8)], model)
    with pytest.raises(ValueError, match='view 1 .* has 3 channels, .* ResNet takes 1'):
        preflight.check_channels([torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8)], model)
    preflight.check_channels([torch.zeros(2, 3, 8, 8)], torch.nn.Module())
