# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of any origin are read without running their code; what is wrong is said."""
import argparse
import os
import pickle
from collections import OrderedDict

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import ExponentialMovingAverage
from mmpretrain.models import ResNet
from torch import nn

from pic_plugin.engine.checkpoint.foreign_checkpoint import (
    backbone_of,
    find_checkpoint,
    read_checkpoint,
    resnet_depth,
    state_dict_of,
    unwrap,
)

WEIGHTS = OrderedDict([('backbone.conv1.weight', torch.arange(6.)), ('head.weight', torch.ones(2))])


class RunsCode:
    """Makes a folder when it is unpickled by a reader that believes it."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder), )


def save(tmp_path, content, **options):
    path = tmp_path / 'checkpoint.pth'
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('extra', [
    argparse.Namespace(epochs=200, arch='resnet50'), HistoryBuffer([1.], [1]),
    nn.Linear(2, 2)], ids=['namespace', 'history', 'module'])
def test_objects_that_torch_refuses_do_not_hide_the_weights(tmp_path, extra, legacy):
    path = save(tmp_path, dict(opt=extra, many=[extra], state_dict=WEIGHTS, epoch=3),
                _use_new_zipfile_serialization=not legacy)
    content = read_checkpoint(path)
    assert content['epoch'] == 3
    assert torch.equal(content['state_dict']['backbone.conv1.weight'], torch.arange(6.))


@pytest.mark.parametrize('legacy', [False, True])
def test_no_code_of_the_file_runs(tmp_path, legacy):
    folder = tmp_path / 'made by the checkpoint'
    path = save(tmp_path, dict(state_dict=WEIGHTS, trap=RunsCode(folder)),
                _use_new_zipfile_serialization=not legacy)
    assert torch.equal(state_dict_of(read_checkpoint(path), path)['head.weight'], torch.ones(2))
    assert not folder.exists()
    # The trap is one: an ordinary reader falls into it.
    torch.load(path, weights_only=False)
    assert folder.is_dir()


def test_no_code_of_a_bare_pickle_runs(tmp_path):
    """Torch reads the beginning of a file of before 1.6 with pickle.load."""
    folder = tmp_path / 'made by the checkpoint'
    path = tmp_path / 'x.pth'
    path.write_bytes(pickle.dumps(RunsCode(folder), protocol=2))
    with pytest.raises(ValueError, match='not a checkpoint'):
        read_checkpoint(path)
    assert not folder.exists()
    with pytest.raises(Exception, match='magic number'):
        torch.load(path, weights_only=False)
    assert folder.is_dir()


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('part', [0.0, 0.3, 0.9, 0.999])
def test_half_a_download(tmp_path, part, legacy):
    path = save(tmp_path, dict(state_dict=dict(a=torch.rand(1000)), opt=argparse.Namespace()),
                _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * part)])
    with pytest.raises(ValueError, match='not a checkpoint, or only a part of one') as error:
        read_checkpoint(path)
    message = str(error.value)
    assert str(path) in message and f'({path.stat().st_size} bytes)' in message
    assert 'download it again' in message and '\n' not in message
    assert '. ' not in message[len(str(path)):]  # of torch's reasons the first sentence


@pytest.mark.parametrize('content', [b'<html>404</html>', pickle.dumps({'a': 1})])
def test_a_file_of_another_kind(tmp_path, content):
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='not a checkpoint'):
        read_checkpoint(path)


def test_no_file_and_no_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no checkpoint .*missing.pth'):
        read_checkpoint(tmp_path / 'missing.pth')
    for content, kind in (([1, 2], 'list'), (nn.Linear(2, 2), 'pickled object')):
        with pytest.raises(ValueError, match=f'holds a {kind}, and no state dict'):
            read_checkpoint(save(tmp_path, content))
    path = save(tmp_path, dict(meta={}, optimizer=dict(state=[])))
    with pytest.raises(ValueError, match='holds no weights; its entries are meta, optimizer'):
        state_dict_of(read_checkpoint(path), path)


@pytest.mark.parametrize('content', [
    dict(state_dict=WEIGHTS), dict(model=WEIGHTS, opt=1), WEIGHTS])
def test_where_the_weights_are(content):
    assert dict(state_dict_of(content, 'x')) == dict(WEIGHTS)


@pytest.mark.parametrize('prefix', ['', 'module.', '_orig_mod.', 'module._orig_mod.', 'model.'])
def test_wrappers_are_taken_off(prefix):
    state = {prefix + name: value for name, value in WEIGHTS.items()}
    assert list(backbone_of(state, 'x')) == ['conv1.weight']


def test_averaged_weights_of_mmengine():
    """What EMA's own class writes, beside the plain weights and alone."""
    model = nn.ModuleDict(dict(backbone=nn.Linear(2, 2, bias=False)))
    average = ExponentialMovingAverage(model, momentum=0.5)
    with torch.no_grad():
        model['backbone'].weight.fill_(3.)
    average.update_parameters(model)  # steps 0: a copy
    with torch.no_grad():
        model['backbone'].weight.fill_(5.)
    average.update_parameters(model)
    averaged = {f'ema_model.{name}': value for name, value in average.state_dict().items()}
    both = {**model.state_dict(), **averaged}
    assert backbone_of(both, 'x')['weight'].tolist() == [[5., 5.]] * 2
    assert backbone_of(both, 'x', ema=True)['weight'].tolist() == [[4., 4.]] * 2
    assert backbone_of(averaged, 'x')['weight'].tolist() == [[4., 4.]] * 2
    assert set(unwrap(averaged)) == {'backbone.weight', 'steps'}
    with pytest.raises(ValueError, match='no averaged weights'):
        backbone_of(model.state_dict(), 'x', ema=True)


def test_no_backbone():
    with pytest.raises(ValueError, match=r'x.pth has no backbone: .*conv1\.\*, fc\.\*'):
        backbone_of({'conv1.weight': torch.ones(1), 'fc.weight': torch.ones(1)}, 'x.pth')
    bare = ResNet(34, base_channels=8, stem_channels=8).state_dict()
    with pytest.raises(ValueError, match='x.pth holds the bare weights of a ResNet-34, .*--form'):
        backbone_of(bare, 'x.pth')
    with pytest.raises(ValueError, match="authors' code: convert it first"):
        backbone_of({'module.encoder.conv1.weight': torch.ones(1)}, 'x.pth')
    with pytest.raises(ValueError, match='has no backbone: .*extract_backbone'):  # a transformer
        backbone_of({'class_token': torch.ones(1), 'encoder.ln.weight': torch.ones(1)}, 'x.pth')


@pytest.mark.parametrize('depth', [18, 34, 50, 101, 152])
def test_depth_by_names(depth):
    names = ResNet(depth, base_channels=8, stem_channels=8).state_dict()
    assert resnet_depth(names) == depth
    names = {name: value for name, value in names.items() if not name.startswith('layer4.1')}
    assert resnet_depth(names) is None


def test_the_newest_of_a_folder_is_what_the_run_says(tmp_path):
    """Not the time of a file, which a copy loses."""
    for name in ('epoch_95', 'epoch_100', 'interrupted'):
        (tmp_path / f'{name}.pth').write_bytes(b'')
        os.utime(tmp_path / f'{name}.pth', (10**9, 10**9 + len(name)))
    assert find_checkpoint(tmp_path).name == 'interrupted.pth'
    for named, expected in (('/elsewhere/epoch_100.pth\n', 'epoch_100'),
                            ('epoch_95.pth', 'epoch_95'),
                            ('/elsewhere/epoch_7.pth', 'interrupted'), ('', 'interrupted')):
        (tmp_path / 'last_checkpoint').write_text(named)
        assert find_checkpoint(tmp_path).stem == expected
