# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that do not hold all that is evaluated: refused, by file, weight and mend."""
import pytest
import torch
from mmpretrain.registry import MODELS

import pic_plugin  # noqa: F401
from pic_plugin.tools import test as test_tool
from pic_plugin.transfer.fit import check_fits

BACKBONE = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)


def pic(**backbone):
    return MODELS.build(dict(
        type='PIC', backbone=dict(BACKBONE, **backbone),
        neck=dict(type='MoCoV2Neck', in_channels=64, hid_channels=8, out_channels=8),
        head=dict(type='PICHead', feat_dim=8, num_instances=40, num_negatives=24)))


def classifier(num_classes=3):
    return MODELS.build(dict(
        type='ImageClassifier', backbone=dict(BACKBONE), neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=64)))


def save(tmp_path, model, change=lambda state: None, prefix=''):
    state = {prefix + name: value for name, value in model.state_dict().items()}
    change(state)
    path = tmp_path / 'saved.pth'
    torch.save(dict(state_dict=state, meta={}), path)
    return str(path)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_what_fits_passes(tmp_path, prefix):
    check_fits(pic(), save(tmp_path, pic(), prefix=prefix))
    check_fits(classifier(), save(tmp_path, classifier(), prefix=prefix))


def test_of_an_algorithm_only_the_backbone_counts(tmp_path):
    def drop_head(state):
        for name in list(state):
            if not name.startswith('backbone.'):
                del state[name]

    check_fits(pic(), save(tmp_path, pic(), drop_head))
    with pytest.raises(ValueError, match=r'such as head\.fc\.bias'):
        check_fits(classifier(), save(tmp_path, classifier(), drop_head))


@pytest.mark.parametrize('change, message', [
    (lambda state: state.pop('backbone.bn1.running_var'),
     r'1 of \d+ weights differ, such as backbone.bn1.running_var \(shape \(8,\) in the network, '
     r'absent in the file\)'),
    (lambda state: state.update({'backbone.fc.bias': torch.ones(2)}),
     r'backbone.fc.bias \(absent in the network, shape \(2,\) in the file'),
    (lambda state: state.update({'backbone.bn1.bias': torch.ones(2)}), r'backbone.bn1.bias'),
])
def test_one_weight_is_enough(tmp_path, change, message):
    with pytest.raises(ValueError, match=f'saved.pth does not fit .*{message}'):
        check_fits(pic(), save(tmp_path, pic(), change))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_of_a_training_that_diverged(tmp_path, value):
    def spoil(name):
        return lambda state: state[name].view(-1)[:1].fill_(value)

    with pytest.raises(ValueError, match=r'saved\.pth has 1 of .* \(backbone\.bn1\.running_mean '
                                         'for one.: .*earlier checkpoint'):
        check_fits(pic(), save(tmp_path, pic(), spoil('backbone.bn1.running_mean')))
    # Of a head that is not evaluated it does not matter.
    check_fits(pic(), save(tmp_path, pic(), spoil('head.weight')))


def test_another_architecture_is_named(tmp_path):
    with pytest.raises(ValueError, match='ResNet-34.*config that the checkpoint was trained with'):
        check_fits(pic(), save(tmp_path, pic(depth=34)))
    with pytest.raises(ValueError, match='head.fc'):
        check_fits(classifier(), save(tmp_path, classifier(num_classes=4)))


def test_addresses_are_left_to_mmengine():
    check_fits(pic(), 'https://example.com/epoch_1.pth')


def test_the_test_tool_refuses_to_evaluate_random_weights(tmp_path, work_dir):
    tiny = __file__.replace('transfer/test_fit.py', 'tools/tiny_config.py')
    with pytest.raises(SystemExit, match=r'test: .*saved\.pth does not fit .*ResNet-34'):
        test_tool.main([tiny, save(tmp_path, pic(depth=34)), '--work-dir', str(work_dir)])
