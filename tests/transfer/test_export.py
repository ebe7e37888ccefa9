# SPDX-License-Identifier: Apache-2.0
"""extract_backbone: every weight arrives in other networks, and faults are one line."""
import hashlib
import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torchvision.models import get_model

from pic_plugin.engine.checkpoint.foreign_checkpoint import backbone_of
from pic_plugin.features.embedding import load_backbone
from pic_plugin.tools.extract_backbone import main
from pic_plugin.transfer import export
from toys.checkpoints import PREPROCESSOR, pic_content
from toys.processes import command, run_alone

ROOT = Path(__file__).resolve().parents[2]
RESNET18 = dict(type='ResNet', depth=18)
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope='module')
def content18():
    return pic_content(RESNET18, 512)


def write(tmp_path, content, name='epoch_3.pth'):
    path = tmp_path / name
    torch.save(content, path)
    return path


def run(path, out, *options, capsys):
    main([str(path), str(out), *options])
    return capsys.readouterr().out.splitlines()


def written(folder, stem='out'):
    files = [file for file in folder.iterdir() if file.name.startswith(f'{stem}-')]
    assert len(files) == 1
    return files[0]


def test_openmmlab_loads_into_the_network_of_a_config(tmp_path, content18, capsys):
    path = write(tmp_path, content18)
    lines = run(path, tmp_path / 'out.pth', capsys=capsys)
    assert lines[0] == 'mmpretrain ResNet(depth=18): loaded 120 of 120'
    file = written(tmp_path)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert file.name == f'out-{digest[:8]}.pth'
    saved = torch.load(file, weights_only=True)
    assert all(key.startswith('backbone.') for key in saved['state_dict'])
    # mmengine's own way to load it, in a network that has none of these weights yet.
    network = MODELS.build(dict(RESNET18, init_cfg=dict(
        type='Pretrained', checkpoint=str(file), prefix='backbone.')))
    network.init_weights()
    for key, value in network.state_dict().items():
        assert torch.equal(value, content18['state_dict'][f'backbone.{key}']), key
    # Small: nothing of the file is neck, head, optimizer or log.
    values = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    assert file.stat().st_size < 1.05 * values + 50000


def test_metadata_says_how_it_was_trained(tmp_path, content18, capsys):
    run(write(tmp_path, content18), tmp_path / 'out', capsys=capsys)
    meta = torch.load(written(tmp_path), weights_only=True)['meta']
    assert meta['backbone'] == RESNET18 and meta['data_preprocessor'] == PREPROCESSOR
    assert (meta['epoch'], meta['iter'], meta['seed']) == (3, 30, 1)
    assert (meta['source'], meta['format']) == ('epoch_3.pth', 'openmmlab')
    # All settings of the training, as text.
    assert meta['cfg'] == content18['meta']['cfg'] and 'PICHead' in meta['cfg']


def test_the_same_weights_give_the_same_name(tmp_path, content18, capsys):
    path = write(tmp_path, content18)
    for folder in ('a', 'b'):
        run(path, tmp_path / folder / 'out', capsys=capsys)
    first, second = written(tmp_path / 'a'), written(tmp_path / 'b')
    assert first.name == second.name and first.read_bytes() == second.read_bytes()
    content = dict(content18, meta=dict(content18['meta'], epoch=4))
    run(write(tmp_path, content), tmp_path / 'c' / 'out', capsys=capsys)
    assert written(tmp_path / 'c').name != first.name


@pytest.mark.parametrize('depth, channels', [(18, 512), (50, 2048)])
def test_torchvision_has_the_same_features(tmp_path, capsys, depth, channels):
    cfg = dict(type='ResNet', depth=depth, norm_cfg=dict(type='BN'), zero_init_residual=True)
    content = pic_content(cfg, channels)
    lines = run(write(tmp_path, content), tmp_path / 'out', '--format', 'torchvision',
                capsys=capsys)
    number = len(backbone_of(content['state_dict'], 'x'))
    assert lines[0] == f'torchvision resnet{depth}: loaded {number} of {number}'
    assert lines[3] == 'use: import torch, torchvision'
    assert lines[4].strip() == f'network = torchvision.models.resnet{depth}()'
    assert lines[1].startswith('features equal to ')
    network = get_model(f'resnet{depth}', weights=None)
    missing, unused = network.load_state_dict(
        torch.load(written(tmp_path), weights_only=True)['state_dict'], strict=False)
    assert sorted(missing) == ['fc.bias', 'fc.weight'] and not unused
    ours = MODELS.build(cfg)
    ours.load_state_dict(backbone_of(content['state_dict'], 'x'))
    network.fc = torch.nn.Identity()
    ours.eval()
    with torch.no_grad():
        expected = ours(IMAGES)[-1].mean((2, 3))
        difference = (network.eval()(IMAGES) - expected).abs().max() / expected.abs().max()
    assert difference < 1e-5  # float32


@pytest.mark.downstream
def test_timm(tmp_path, content18, capsys):
    """The environment of the downstream group has timm."""
    import timm
    lines = run(write(tmp_path, content18), tmp_path / 'out', '--format', 'timm', capsys=capsys)
    assert lines[0] == 'torchvision resnet18: loaded 120 of 120'
    assert lines[1].startswith('features equal to ')
    network = timm.create_model('resnet18', num_classes=0, checkpoint_path=str(written(tmp_path)))
    for key, value in network.state_dict().items():
        assert torch.equal(value, content18['state_dict'][f'backbone.{key}']), key


@pytest.mark.parametrize('prefix', ['module.', 'ema_model.module.', '_orig_mod.'])
def test_prefixes(tmp_path, content18, capsys, prefix):
    state = {prefix + key: value for key, value in content18['state_dict'].items()}
    lines = run(write(tmp_path, dict(content18, state_dict=state)), tmp_path / 'out',
                capsys=capsys)
    assert lines[0].endswith('loaded 120 of 120')
    assert 'backbone.conv1.weight' in torch.load(written(tmp_path), weights_only=True)['state_dict']


def test_a_work_folder_gives_its_newest(tmp_path, content18, capsys):
    (tmp_path / 'run').mkdir()
    for name in ('epoch_9.pth', 'epoch_10.pth'):
        write(tmp_path / 'run', content18, name)
    lines = run(tmp_path / 'run', tmp_path / 'out', capsys=capsys)
    assert lines[0] == f'newest checkpoint: {tmp_path / "run" / "epoch_10.pth"}'
    assert torch.load(written(tmp_path))['meta']['source'] == 'epoch_10.pth'
    (tmp_path / 'empty').mkdir()
    with pytest.raises(SystemExit, match='^extract_backbone: .* holds no epoch_N.pth'):
        main([str(tmp_path / 'empty'), str(tmp_path / 'out')])


def test_other_backbones_of_mmpretrain(tmp_path, capsys):
    """Of any kind for OpenMMLab; for the rest an error that names the kind."""
    cfg = dict(type='SwinTransformer', arch=dict(embed_dims=8, depths=[1, 1], num_heads=[1, 2]),
               img_size=64, out_indices=(1, ))
    path = write(tmp_path, pic_content(cfg, 16))
    lines = run(path, tmp_path / 'out', capsys=capsys)
    assert 'mmpretrain SwinTransformer(' in lines[0] and 'loaded' in lines[0]
    with pytest.raises(SystemExit, match='no Swin transformer with 2 stages'):
        main([str(path), str(tmp_path / 'out'), '--format', 'torchvision'])
    path = write(tmp_path, pic_content(dict(type='AlexNet'), 256))
    with pytest.raises(SystemExit, match='knows ResNets, .*, and this backbone is of type AlexNet'):
        main([str(path), str(tmp_path / 'out'), '--format', 'torchvision'])


def fault(path, tmp_path, *options):
    with pytest.raises(SystemExit) as error:
        main([str(path), str(tmp_path / 'out'), *options])
    message = str(error.value)
    assert message.startswith('extract_backbone: ') and '\n' not in message
    assert not list(tmp_path.glob('out*'))
    return message


def test_a_missing_or_additional_weight(tmp_path, content18):
    state = dict(content18['state_dict'])
    del state['backbone.layer2.0.bn1.bias']
    message = fault(write(tmp_path, dict(content18, state_dict=state)), tmp_path)
    assert '1 missing, layer2.0.bn1.bias first' in message
    state = dict(content18['state_dict'], **{'backbone.layer9.weight': torch.ones(1)})
    message = fault(write(tmp_path, dict(content18, state_dict=state)), tmp_path)
    assert '1 unused, layer9.weight first' in message


def test_another_depth(tmp_path, content18):
    """The config in the file says 50, the weights are those of 18 layers."""
    other = pic_content(dict(type='ResNet', depth=50), 2048)
    content = dict(content18, meta=other['meta'])
    message = fault(write(tmp_path, content), tmp_path)
    assert 'ResNet(depth=50)' in message and 'are those of a ResNet-18' in message


def test_no_backbone_no_file_half_a_file(tmp_path, content18):
    path = write(tmp_path, dict(state_dict={'head.weight': torch.ones(3)}))
    assert 'has no backbone' in fault(path, tmp_path)
    assert 'there is no checkpoint' in fault(tmp_path / 'missing.pth', tmp_path)
    path = write(tmp_path, content18)
    path.write_bytes(path.read_bytes()[:100000])
    assert '(100000 bytes) is not a checkpoint, or only a part' in fault(path, tmp_path)


def test_a_network_that_torchvision_does_not_have(tmp_path):
    """The same names and shapes: features alone tell them apart."""
    caffe = pic_content(dict(type='ResNet', depth=50, style='caffe'), 2048)
    message = fault(write(tmp_path, caffe), tmp_path, '--format', 'torchvision')
    assert 'takes every weight but gives other features' in message


def test_a_file_that_does_not_say_what_it_is(tmp_path, content18, capsys):
    bare = dict(state_dict=content18['state_dict'])
    assert run(write(tmp_path, bare), tmp_path / 'a' / 'out', capsys=capsys)[0] == (
        'mmpretrain ResNet(depth=18): loaded 120 of 120')
    config = Config.fromfile(ROOT / 'configs' / 'pic' / 'pic_demo.py')
    demo = pic_content(config.model.backbone.to_dict(), config.model.neck.in_channels)
    number = len(backbone_of(demo['state_dict'], 'x'))
    del demo['meta']
    path = write(tmp_path, demo)
    assert 'does not take the weights' in fault(path, tmp_path)
    (tmp_path / 'data.py').write_text('train_dataloader = dict(batch_size=8)')
    other = write(tmp_path, dict(state_dict={'backbone.stem.weight': torch.ones(1)}), 'other.pth')
    assert 'give the training config' in fault(
        other, tmp_path, '--config', str(tmp_path / 'data.py'))
    lines = run(path, tmp_path / 'b' / 'out', '--config', 'pic_demo.py', capsys=capsys)
    assert 'ResNet_CIFAR' in lines[0] and f'loaded {number} of {number}' in lines[0]
    meta = torch.load(written(tmp_path / 'b'), weights_only=True)['meta']
    assert meta['data_preprocessor']['mean'] == [125.3, 123.0, 113.9]


@pytest.mark.parametrize('backbone, channels, form', [
    (RESNET18, 512, 'openmmlab'), (RESNET18, 512, 'torchvision'),
    (dict(type='ConvNeXt', arch='atto'), 320, 'openmmlab')])
def test_the_config_that_is_given_goes_along(tmp_path, capsys, backbone, channels, form):
    """Whoever takes the file prepares pictures as that training did."""
    (tmp_path / 'own.py').write_text(Config(dict(
        model=dict(type='PIC', backbone=backbone, data_preprocessor=dict(
            type='SelfSupDataPreprocessor', mean=[10., 20., 30.], std=[50., 60., 70.],
            to_rgb=True)),
        train_dataloader=dict(dataset=dict(pipeline=[
            dict(type='DecodeRandomCrop', size=64)])))).pretty_text)
    content = pic_content(backbone, channels)
    del content['meta']
    lines = run(write(tmp_path, content), tmp_path / 'out', '--format', form, '--config',
                str(tmp_path / 'own.py'), capsys=capsys)
    assert form == 'openmmlab' or any('CenterCrop(64)' in line for line in lines)
    loaded = load_backbone(written(tmp_path))
    assert loaded.mean == (10, 20, 30) and loaded.std == (50, 60, 70) and loaded.image_size == 64


def test_an_extracted_file_can_be_extracted_again(tmp_path, capsys):
    """It says itself which network it is of."""
    demo = Config.fromfile(ROOT / 'configs' / 'pic' / 'pic_demo.py').model
    content = pic_content(demo.backbone.to_dict(), demo.neck.in_channels)
    run(write(tmp_path, content), tmp_path / 'out', capsys=capsys)
    assert 'ResNet_CIFAR' in run(written(tmp_path), tmp_path / 'b' / 'out', capsys=capsys)[0]


def test_a_training_that_broke_down(tmp_path, content18):
    state = {key: value.clone() for key, value in content18['state_dict'].items()}
    state['backbone.layer1.0.conv1.weight'][0, 0, 0, 0] = float('nan')
    message = fault(write(tmp_path, dict(content18, state_dict=state)), tmp_path)
    assert '1 of 120 weights with values that are NaN' in message
    assert 'layer1.0.conv1.weight' in message
    # What is not exported does not count.
    state = dict(content18['state_dict'])
    state['head.weight'] = state['head.weight'] * float('nan')
    main([str(write(tmp_path, dict(content18, state_dict=state))), str(tmp_path / 'out')])


def test_hash_is_of_what_is_on_disk_and_interrupted_writes_leave_no_file(tmp_path, monkeypatch):
    def fail(source, target):
        raise KeyboardInterrupt
    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(KeyboardInterrupt):
        export.write_with_hash(dict(a=torch.ones(3)), tmp_path / 'x.pth')
    assert not list(tmp_path.iterdir())


def test_as_mim_runs_it(tmp_path, content18):
    tool = ROOT / 'pic_plugin' / 'tools' / 'extract_backbone.py'
    status, output = run_alone(command, [tool, write(tmp_path, content18), tmp_path / 'out'],
                               tmp_path)
    assert status == 0, output
    assert 'loaded 120 of 120' in output
