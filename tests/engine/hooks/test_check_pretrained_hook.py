# SPDX-License-Identifier: Apache-2.0
"""CheckPretrainedHook, in real trainings of a toy detector: nothing is left random unnoticed."""
import pytest
import torch
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmpretrain.models import ResNet
from torch import nn

import pic_plugin  # noqa: F401
import pic_plugin.engine.hooks.check_pretrained_hook  # noqa: F401
from pic_plugin.engine.checkpoint.foreign_checkpoint import read_checkpoint
from toys.checkpoints import official_content, pic_content

ARCH = dict(depth=18, stem_channels=8, base_channels=8)


class Stage(BaseModule):
    """res5 as a box head has it, with a new norm."""

    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.layer4 = ResNet(**ARCH).layer4
        self.norm = nn.BatchNorm2d(64)


class ThreeStages(ResNet):

    def __init__(self, init_cfg=None):
        super().__init__(**ARCH, num_stages=3, out_indices=(2, ), strides=(1, 2, 2),
                         dilations=(1, 1, 1), init_cfg=init_cfg)


class Toy(BaseModel):

    def __init__(self, split=False, checkpoint=None, prefix='backbone.', depth=18, spoil=None):
        super().__init__()
        cfg = checkpoint and dict(type='Pretrained', checkpoint=str(checkpoint), prefix=prefix)
        if split:
            self.backbone = ThreeStages(cfg)
            self.head = Stage(None if split == 'forgotten' else dict(
                type='Pretrained', checkpoint=None, prefix='backbone.'))
        else:
            self.backbone = ResNet(**{**ARCH, 'depth': depth}, init_cfg=cfg)
        self.spoil = spoil

    def init_weights(self):
        super().init_weights()
        if self.spoil:
            self.state_dict()[self.spoil].view(-1)[-1] += 1

    def forward(self, inputs, mode):
        return dict(loss=self.backbone.conv1.weight.mean())


@pytest.fixture(scope='module', autouse=True)
def registered():
    MODELS.register_module(name='ToyDetector', module=Toy, force=True)
    yield
    MODELS._module_dict.pop('ToyDetector')


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save(pic_content(dict(type='ResNet', **ARCH), 64), path)
    return path


@pytest.fixture
def train(work_dir):
    def run(hook=None, load_from=None, resume=False, **model):
        runner = Runner(
            dict(type='ToyDetector', **model), str(work_dir),
            train_dataloader=dict(batch_size=1, dataset=[dict(inputs=torch.ones(1))] * 2,
                                  sampler=dict(type='DefaultSampler', shuffle=False)),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
            custom_hooks=[dict(type='CheckPretrainedHook', **(hook or {})),
                          dict(type='mmpretrain.PlainCheckpointHook')],
            load_from=load_from, resume=resume, experiment_name=f'{len(list(work_dir.glob("*")))}')
        messages = []
        runner.logger.info = lambda message, *args: messages.append(str(message))
        runner.train()
        return runner, messages
    return run


SPLIT = dict(modules=['backbone', 'head'], ignore=['head.norm.'])


def test_all_loaded(train, checkpoint):
    runner, messages = train(checkpoint=checkpoint)
    assert f'backbone: loaded 120 of 120 weights from {checkpoint}' in messages


def test_shared_among_modules(train, checkpoint):
    """The head's file is the backbone's, and its new norm does not count."""
    runner, messages = train(SPLIT, split=True, checkpoint=checkpoint)
    assert f'backbone and head: loaded 120 of 120 weights from {checkpoint}' in messages
    weights = read_checkpoint(checkpoint)['state_dict']
    assert torch.equal(runner.model.head.layer4[1].conv2.weight,
                       weights['backbone.layer4.1.conv2.weight'])


def test_a_module_that_nobody_loads(train, checkpoint):
    with pytest.raises(ValueError, match='took 90 of 90 weights .* 30 weights of the file are '
                                         'unused .layer4.0.bn1.bias is in the file and not in'):
        train(dict(modules=['backbone']), split='forgotten', checkpoint=checkpoint)


@pytest.mark.parametrize('key', ['backbone.conv1.weight', 'backbone.layer3.1.bn2.running_var',
                                 'backbone.layer4.1.bn1.bias'])
def test_a_value_that_is_not_the_files(train, checkpoint, key):
    with pytest.raises(ValueError, match=f'took 119 of 120 .*{key} has other values'):
        train(checkpoint=checkpoint, spoil=key)


def test_a_weight_that_the_file_lacks_or_has_too_many(train, checkpoint):
    content = torch.load(checkpoint)
    removed = content['state_dict'].pop('backbone.layer2.0.bn1.bias')
    torch.save(content, checkpoint)
    with pytest.raises(ValueError, match='took 119 of 120 .* layer2.0.bn1.bias is in the network '
                                         'and not in the file|backbone.layer2.0.bn1.bias is in'):
        train(checkpoint=checkpoint)
    content['state_dict'].update({'backbone.layer2.0.bn1.bias': removed,
                                  'backbone.extra': torch.ones(1)})
    torch.save(content, checkpoint)
    with pytest.raises(ValueError, match='1 weights of the file are unused .extra is in the file'):
        train(checkpoint=checkpoint)


@pytest.mark.parametrize('key', ['backbone.layer1.0.conv1.weight', 'backbone.bn1.running_var'])
def test_weights_of_a_training_that_diverged(train, checkpoint, key):
    content = torch.load(checkpoint)
    content['state_dict'][key].view(-1)[-1] = float('nan')
    torch.save(content, checkpoint)
    with pytest.raises(ValueError, match=r'epoch_1\.pth has 1 of 120 weights .* NaN .* earlier'):
        train(checkpoint=checkpoint)


def test_another_depth(train, checkpoint):
    with pytest.raises(ValueError, match='The file is a ResNet-18. Give the checkpoint of'):
        train(checkpoint=checkpoint, depth=34)
    with pytest.raises(ValueError, match='is .* in the network and .* in the file'):
        train(checkpoint=checkpoint, depth=50)


def test_no_checkpoint(train):
    with pytest.raises(ValueError, match='backbone has no pretrained weights .*--cfg-options '
                                         'model.backbone.init_cfg.checkpoint=CHECKPOINT'):
        train()
    train(dict(required=False))


def test_files_that_do_not_fit(train, checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no checkpoint .*missing.pth'):
        train(checkpoint=tmp_path / 'missing.pth')
    content = torch.load(checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r'\(5000 bytes\) is not a checkpoint, or only a part'):
        train(checkpoint=checkpoint)
    state = {f'module.{name}': value for name, value in content['state_dict'].items()}
    torch.save(dict(state_dict=state), checkpoint)
    with pytest.raises(ValueError, match='no name in .* begins with `backbone.` .module.backbone.*'
                                         'extract_backbone'):
        train(checkpoint=checkpoint)


@pytest.mark.parametrize('prefix', ['', None])
def test_a_prefix_that_was_left_out(train, checkpoint, prefix):
    """As mmseg's `pretrained=...` does: the file is that of the backbone, and none is taken."""
    with pytest.raises(ValueError, match="backbone would take none .* begin with `backbone.`: "
                                         f"write init_cfg=.*'{checkpoint}', prefix='backbone.'"):
        train(checkpoint=checkpoint, prefix=prefix)


@pytest.mark.parametrize('kind, line', [
    ('bare', 'bare weights of a ResNet-18, .*extract_backbone CHECKPOINT OUT --format openmmlab'),
    ('official', "authors' code: convert it first with `python -m .*convert_official"),
    ('other', r'has no backbone: .*\(there are fc\.\*\)'),
])
def test_files_without_a_backbone_behind_any_prefix(train, checkpoint, kind, line):
    """extract_backbone alone would not help: what to run is said at once."""
    state = torch.load(checkpoint)['state_dict']
    content = dict(
        bare={name[len('backbone.'):]: value for name, value in state.items()
              if name.startswith('backbone.')},
        official=official_content()[0], other=dict(state_dict={'fc.weight': torch.ones(2)}))[kind]
    torch.save(content, checkpoint)
    with pytest.raises(ValueError, match=line):
        train(checkpoint=checkpoint)


def test_load_from_that_lacks_weights(train, checkpoint):
    """A PIC checkpoint given the wrong way: res5 has another name in the detector."""
    with pytest.raises(ValueError, match='took 90 of 125 weights of backbone and head from '
                       f'load_from={checkpoint} .head.layer4.* is in the network and not in the '
                       f'file.*--cfg-options model.backbone.init_cfg.checkpoint={checkpoint}'):
        train(SPLIT, split=True, load_from=str(checkpoint))


def test_resume_needs_no_file_of_pre_training(train, checkpoint, work_dir):
    """Nor does it look for one: the option of the first call may be left out, the file gone."""
    first, _ = train(SPLIT, split=True, checkpoint=checkpoint)
    checkpoint.unlink()
    again, _ = train(SPLIT, split=True, resume=True)
    assert again.epoch == 1
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    # With nothing to resume from, it is a training that starts.
    (work_dir / 'last_checkpoint').unlink()
    with pytest.raises(ValueError, match='backbone has no pretrained weights'):
        train(SPLIT, split=True, resume=True)


def test_nothing_is_asked_of_a_run_that_goes_on(train, checkpoint, tmp_path):
    """Its weights are the detector's own by then."""
    runner, _ = train(checkpoint=checkpoint)
    saved = tmp_path / 'detector.pth'
    state = {name: value + 1 for name, value in runner.model.state_dict().items()}
    torch.save(dict(state_dict=state, meta={}), saved)
    runner, messages = train(checkpoint=checkpoint, load_from=str(saved))
    assert not any('loaded 1' in message for message in messages)
    assert torch.equal(runner.model.state_dict()['backbone.conv1.weight'],
                       state['backbone.conv1.weight'])
