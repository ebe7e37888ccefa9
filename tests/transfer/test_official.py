# SPDX-License-Identifier: Apache-2.0
"""convert_official: the authors' checkpoints give the same features in our model."""
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from pic_plugin.tools import extract_backbone
from pic_plugin.tools.convert_official import main
from pic_plugin.transfer import official
from toys.checkpoints import official_content, randomise

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def convert(tmp_path, content, *options):
    torch.save(content, tmp_path / 'theirs.pth')
    main([str(tmp_path / 'theirs.pth'), str(tmp_path / 'ours.pth'), *options])
    return torch.load(tmp_path / 'ours.pth', weights_only=True)


@torch.no_grad()
def their_features(network, images):
    """As their forward has it: pooled, fc1, ReLU, fc2."""
    fc1, fc2 = network.fc1, network.fc2
    network.fc = torch.nn.Identity()
    pooled = network.eval()(images)
    return pooled, fc2(fc1(pooled).relu())


@pytest.mark.parametrize('depth', [18, 50])
def test_features_are_equal(tmp_path, capsys, depth):
    content, network = official_content(depth)
    saved = convert(tmp_path, content)
    number = len(network.state_dict())
    assert f'loaded {number} of {number}' in capsys.readouterr().out
    # Built from what the file itself says.
    model = MODELS.build(Config.fromstring(saved['meta']['cfg'], '.py').model)
    missing, unused = model.load_state_dict(saved['state_dict'], strict=False)
    assert not missing and not unused
    pooled, projected = their_features(network, IMAGES)
    with torch.no_grad():
        features = model.eval().backbone(IMAGES)
        ours = features[-1].mean((2, 3)), model.neck(features)[-1]
    for mine, theirs in zip(ours, (pooled, projected)):
        assert (mine - theirs).abs().max() / theirs.abs().max() < 1e-5  # the bound
    assert torch.equal(saved['state_dict']['head.weight'], content['model']['module.sim_matrix'])
    assert (saved['meta']['converted_from'], saved['meta']['epoch']) == ('theirs.pth', 5)


def test_half_precision(tmp_path):
    content, _ = official_content()
    halves = {name: value.half() if value.is_floating_point() else value
              for name, value in content['model'].items()}
    state = convert(tmp_path, dict(content, model=halves), '--without-class-weights')['state_dict']
    assert state['backbone.conv1.weight'].dtype is torch.float32
    assert torch.equal(state['backbone.conv1.weight'].half(), halves['module.encoder.conv1.weight'])


def test_then_extracted(tmp_path, capsys):
    content, network = official_content()
    convert(tmp_path, content, '--without-class-weights')
    assert 'head.weight' not in torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict']
    extract_backbone.main([str(tmp_path / 'ours.pth'), str(tmp_path / 'out'), '--format',
                           'torchvision'])
    assert 'torchvision resnet18: loaded 120 of 120' in capsys.readouterr().out
    saved = torch.load(next(tmp_path.glob('out-*.pth')), weights_only=True)
    assert saved['meta']['converted_from'] == 'theirs.pth'
    for name, value in saved['state_dict'].items():
        assert torch.equal(value, network.state_dict()[name]), name


def test_networks_of_another_width_are_converted_too():
    """Half of the channels; torchvision's own network has 64 in its first stage."""
    content, _ = official_content(50, hidden=8, feat_dim=8)
    narrow = MODELS.build(dict(type='ResNet', depth=50, base_channels=32, zero_init_residual=True))
    randomise(narrow)
    state = {name: value for name, value in content['model'].items()
             if '.fc' in name or 'sim_matrix' in name}
    state.update({f'module.encoder.{name}': value for name, value in narrow.state_dict().items()})
    state['module.encoder.fc1.weight'] = state['module.encoder.fc1.weight'][:, :1024]
    conversion = official.convert_official(state)
    assert conversion.model['backbone']['base_channels'] == 32 and conversion.difference < 1e-5
    del state['module.encoder.layer1.0.downsample.0.weight']
    with pytest.raises(ValueError, match='1 missing'):
        official.convert_official(state)
    with pytest.raises(ValueError, match="not torchvision's ResNet-50: .*bn1.bias"):
        official.forward_resnet({}, 50, IMAGES)


def test_a_mix_up_is_found(tmp_path, monkeypatch):
    """Every weight fits its place, and is that of another layer."""
    content, _ = official_content(hidden=8, feat_dim=8)
    state = content['model']
    names = ['layer1.0.bn1.weight', 'layer1.0.bn1.bias']
    official.convert_official(state)
    original = official.forward_resnet

    def other(weights, depth, images):
        first, second = names
        mixed = {**weights, first: weights[second], second: weights[first]}
        return original(mixed, depth, images)

    monkeypatch.setattr(official, 'forward_resnet', other)
    with pytest.raises(ValueError, match='gives other features'):
        official.convert_official(state)


def fault(tmp_path, content):
    with pytest.raises(SystemExit) as error:
        convert(tmp_path, content)
    message = str(error.value)
    assert message.startswith('convert_official: ') and '\n' not in message
    assert not (tmp_path / 'ours.pth').exists()
    return message


def test_what_has_no_counterpart(tmp_path):
    content, _ = official_content(mlp_head=False)
    assert 'not the two layers fc1 and fc2' in fault(tmp_path, content)
    content, _ = official_content()
    stem = {name.replace('encoder.conv1.', 'encoder.conv1.0.0.'): value
            for name, value in content['model'].items()}
    assert 'not a plain ResNet' in fault(tmp_path, dict(content, model=stem))
    state = dict(content['model'])
    del state['module.encoder.layer3.1.bn2.running_var']
    assert '1 missing, backbone.layer3.1.bn2.running_var first' in fault(
        tmp_path, dict(content, model=state))
    moco = {name.replace('sim_matrix', 'queue'): value for name, value in content['model'].items()}
    assert 'not a PIC checkpoint of the authors' in fault(tmp_path, dict(content, model=moco))
    ours = {'backbone.conv1.weight': torch.ones(1)}
    assert 'one of pic_plugin already' in fault(tmp_path, dict(state_dict=ours))


def test_an_existing_file_is_kept(tmp_path):
    (tmp_path / 'ours.pth').write_text('precious')
    with pytest.raises(SystemExit, match='exists: remove it'):
        main([str(tmp_path / 'theirs.pth'), str(tmp_path / 'ours.pth')])
    assert (tmp_path / 'ours.pth').read_text() == 'precious'
