# SPDX-License-Identifier: Apache-2.0
"""Going on from a network that was trained before: its weights, whoever wrote them."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torchvision.models import get_model

from pic_plugin.pretrain.finish import export
from pic_plugin.pretrain.start import read_start, write_start
from pic_plugin.pretrain.work_folder import START
from pic_plugin.tools import pretrain
from toys.checkpoints import pic_content, randomise
from toys.networks import TRANSFORMER
from toys.pictures import write_pictures

CONVNET = dict(type='ResNet', depth=18, stem_channels=8, base_channels=8)
MEAN, STD = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]


def network_of(cfg):
    network = MODELS.build(dict(cfg))
    randomise(network)
    return network


def classifier(cfg, channels=64):
    """A classifier of mmpretrain, and its config."""
    model = dict(type='ImageClassifier', backbone=cfg, neck=dict(type='GlobalAveragePooling'),
                 head=dict(type='LinearClsHead', num_classes=3, in_channels=channels))
    built = MODELS.build(model)
    randomise(built)
    normalisation = dict(mean=MEAN, std=STD, to_rgb=False)
    return built, Config(dict(model=model, data_preprocessor=normalisation))


def save_backbone(network, cfg, file):
    torch.save(dict(state_dict={f'backbone.{name}': value
                                for name, value in network.state_dict().items()},
                    meta=dict(cfg=Config(dict(model=dict(backbone=cfg))).pretty_text)), file)


def same(weights, network):
    own = network.state_dict()
    assert set(weights) == set(own)
    return all(torch.equal(weights[name], value) for name, value in own.items())


def test_a_checkpoint_of_pic(tmp_path):
    content = pic_content(CONVNET, 64)
    torch.save(content, tmp_path / 'epoch_3.pth')
    for source in (tmp_path / 'epoch_3.pth', tmp_path):  # or its work folder
        start = read_start(str(source))
        assert start.cfg['depth'] == 18 and start.mean == [123.675, 116.28, 103.53] and start.to_rgb
        assert all(torch.equal(value, content['state_dict'][f'backbone.{name}'])
                   for name, value in start.weights.items())


def test_what_was_exported_for_torchvision(tmp_path):
    """As `pretrain --backbone convnext-atto` hands it over."""
    cfg = dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32]))
    network = network_of(cfg)
    save_backbone(network, cfg, tmp_path / 'epoch_3.pth')
    file = export(tmp_path / 'epoch_3.pth', tmp_path, lambda line: None)
    assert not any(name.startswith('backbone.') for name in torch.load(file)['state_dict'])
    assert same(read_start(str(file)).weights, network)


def test_a_classifier_with_its_own_normalisation(tmp_path):
    model, cfg = classifier(CONVNET)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=cfg.pretty_text)),
               tmp_path / 'classifier.pth')
    start = read_start(str(tmp_path / 'classifier.pth'))
    assert same(start.weights, model.backbone)
    assert (start.mean, start.std, start.to_rgb) == (MEAN, STD, False)
    # What is written says the same.
    again = read_start(str(write_start(start, start.cfg, tmp_path)))
    assert same(again.weights, model.backbone) and again[4:] == start[4:] and again.mean == MEAN


def test_colours_are_in_the_order_of_the_preprocessor(tmp_path):
    network = network_of(CONVNET)
    for number, (preprocessor, to_rgb) in enumerate((
            (dict(mean=MEAN, std=STD), False), (dict(mean=MEAN, std=STD, bgr_to_rgb=True), True),
            (None, False))):
        model = dict(backbone=CONVNET, data_preprocessor=preprocessor)
        torch.save(dict(state_dict={f'backbone.{name}': value
                                    for name, value in network.state_dict().items()},
                        meta=dict(cfg=Config(dict(model=model)).pretty_text)),
                   tmp_path / f'{number}.pth')
        start = read_start(str(tmp_path / f'{number}.pth'))
        assert start.to_rgb is to_rgb and (start.mean == MEAN) is (preprocessor is not None)


def test_bare_weights_of_torchvision(tmp_path):
    network = get_model('resnet18', weights=None)
    randomise(network)
    torch.save(network.state_dict(), tmp_path / 'resnet18.pth')
    start = read_start(str(tmp_path / 'resnet18.pth'))
    assert start.cfg == dict(type='ResNet', depth=18) and start.to_rgb
    assert torch.equal(start.weights['conv1.weight'], network.conv1.weight)
    assert not any(name.startswith('fc.') for name in start.weights)


def test_a_model_of_mmpretrain_by_name(tmp_path, monkeypatch):
    """Its config and weights are where the index says; here, on this disk."""
    model, cfg = classifier(CONVNET)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'of_the_hub.pth')
    asked = []

    def get(name):
        asked.append(name)
        if name != 'small_model':
            raise ValueError
        return SimpleNamespace(weights=str(tmp_path / 'of_the_hub.pth'), config=cfg)

    monkeypatch.setattr('mmpretrain.apis.model.ModelHub.get', get)
    start = read_start('small_model')
    assert asked == ['small_model'] and same(start.weights, model.backbone)
    assert start.mean == MEAN and not start.to_rgb
    with pytest.raises(FileNotFoundError, match='no checkpoint smal_model, nor a model'):
        read_start('smal_model')


def test_position_embedding_of_another_size(tmp_path):
    network = network_of(TRANSFORMER)
    save_backbone(network, TRANSFORMER, tmp_path / 'vit.pth')
    start = read_start(str(tmp_path / 'vit.pth'))
    assert 'img_size' not in start.cfg
    file = write_start(start, dict(start.cfg, img_size=64), tmp_path)
    larger = MODELS.build(dict(TRANSFORMER, img_size=64))
    written = {name[len('backbone.'):]: value
               for name, value in torch.load(file)['state_dict'].items()}
    larger.load_state_dict(written)  # every weight
    assert written['pos_embed'].shape == (1, 65, 16)
    # Interpolated: the mean over places stays.
    torch.testing.assert_close(written['pos_embed'][:, 1:].mean(1),
                               start.weights['pos_embed'][:, 1:].mean(1), rtol=0.05, atol=0.01)
    assert torch.equal(written['pos_embed'][:, 0], start.weights['pos_embed'][:, 0])
    assert torch.equal(written['layers.0.attn.qkv.weight'],
                       start.weights['layers.0.attn.qkv.weight'])


def test_weights_that_diverged(tmp_path):
    content = pic_content(CONVNET, 64)
    content['state_dict']['backbone.conv1.weight'][0] = float('nan')
    torch.save(content, tmp_path / 'epoch_1.pth')
    with pytest.raises(ValueError, match='NaN or infinite'):
        read_start(str(tmp_path / 'epoch_1.pth'))


def test_pretrain_goes_on(tmp_path, work_dir, quick, monkeypatch):
    said = []
    monkeypatch.setattr(pretrain, 'say', said.append)
    data = write_pictures(tmp_path / 'pictures', 48)
    model, cfg = classifier(CONVNET)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=cfg.pretty_text)),
               tmp_path / 'start here.pth')
    command = [str(data), '--out', str(work_dir), '--from', str(tmp_path / 'start here.pth'),
               '--image-size', '32', '--batch-size', '8', '--device', 'cpu', '--no-report']
    pretrain.main([*command, '--epochs', '1'])
    text = '\n'.join(said)
    assert f'with the weights of {tmp_path / "start here.pth"}' in text
    assert 'times 0.3 to keep what the network knows' in text
    cfg = Config.fromfile(work_dir / 'pretrain.py')
    assert cfg.model.backbone.init_cfg.checkpoint == str(work_dir / START)
    assert cfg.model.head.refresh_returning == 1.0
    assert (cfg.model.data_preprocessor.mean, cfg.model.data_preprocessor.to_rgb) == (MEAN, False)
    log = next(work_dir.glob('*/*.log')).read_text()
    assert 'backbone: loaded 120 of 120 weights' in log
    # It has learned from there: no weight is far from where it began.
    trained = torch.load(work_dir / 'epoch_1.pth')['state_dict']
    for name, value in model.backbone.named_parameters():
        now = trained[f'backbone.{name}']
        assert not torch.equal(now, value) and (now - value).norm() < 0.2 * value.norm(), name


def test_what_cannot_be_meant(tmp_path, work_dir):
    data = write_pictures(tmp_path / 'pictures', 12)
    grey = dict(CONVNET, in_channels=1)
    save_backbone(network_of(grey), grey, tmp_path / 'grey.pth')
    for more, message in (
            (['--from', 'nothing.pth'], 'no checkpoint nothing.pth'),
            (['--from', str(tmp_path / 'grey.pth')], 'pictures of 1 channels'),
            (['--from', str(tmp_path)], 'holds no epoch_N.pth'),
            (['--from', 'a.pth', '--backbone', 'resnet18'], 'leave --backbone out')):
        with pytest.raises(SystemExit, match=message):
            pretrain.main([str(data), '--out', str(work_dir), '--device', 'cpu', *more])
    assert not work_dir.exists()
