# SPDX-License-Identifier: Apache-2.0
"""Networks out of checkpoints of several origins."""
from operator import itemgetter

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torchvision.models import get_model

from pic_plugin.analysis.network import RANDOM, Settings, open_network, pooled
from pic_plugin.tools import extract_backbone
from pic_plugin.transfer.export import FORMATS
from toys.networks import CONVNET, MEAN, SIDE, STD, TOKENS, TRANSFORMER

PREPROCESSOR = dict(type='SelfSupDataPreprocessor', mean=MEAN, std=STD, to_rgb=True)


@pytest.fixture(scope='module')
def pictures():
    return np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)


def pic_config(backbone=CONVNET):
    return Config(dict(model=dict(
        type='PIC', data_preprocessor=PREPROCESSOR, backbone=backbone,
        neck=dict(type='MoCoV2Neck', in_channels=64, hid_channels=8, out_channels=8),
        head=dict(type='PICHead', feat_dim=8, num_instances=5, num_negatives=None))))


def test_features_are_those_that_pic_evaluates(tmp_path, pictures):
    cfg = pic_config()
    model = MODELS.build(cfg.model)
    torch.save(dict(meta=dict(cfg=cfg.pretty_text), state_dict=model.state_dict()),
               tmp_path / 'a.pth')
    model.eval()
    batch = dict(inputs=torch.from_numpy(pictures).permute(0, 3, 1, 2), data_samples=None)
    inputs = model.data_preprocessor(batch, False)['inputs']
    expected = torch.stack([sample.feat for sample in model.predict(inputs)])
    for config in (cfg, None):
        network = open_network(tmp_path / 'a.pth', config)
        found = network.features(network.normalise(pictures))
        torch.testing.assert_close(found, expected)
    assert (network.grey == 0).all()


def test_a_classifier_of_mmpretrain(tmp_path, pictures):
    """Its data preprocessor stands beside the model; its head is not needed."""
    cfg = Config(dict(
        data_preprocessor=dict(num_classes=3, mean=MEAN, std=STD, to_rgb=True),
        model=dict(type='ImageClassifier', backbone=CONVNET, neck=dict(type='GlobalAveragePooling'),
                   head=dict(type='LinearClsHead', num_classes=3, in_channels=64))))
    model = MODELS.build(dict(cfg.model, data_preprocessor=dict(
        cfg.data_preprocessor, type='ClsDataPreprocessor')))
    torch.save(dict(meta=dict(cfg=cfg.pretty_text), state_dict=model.state_dict()),
               tmp_path / 'b.pth')
    model.eval()
    batch = dict(inputs=[torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures])
    expected = model.extract_feat(model.data_preprocessor(batch)['inputs'])[-1]
    network = open_network(tmp_path / 'b.pth')
    torch.testing.assert_close(network.features(network.normalise(pictures)), expected.detach())


@pytest.mark.parametrize('counters', [True, False], ids=['now', 'of 2017'])
def test_bare_weights_of_torchvision(tmp_path, pictures, counters):
    model = get_model('resnet18', weights=None)
    torch.save({name: value for name, value in model.state_dict().items()
                if counters or not name.endswith('num_batches_tracked')}, tmp_path / 'c.pth')
    model.fc = torch.nn.Identity()
    model.eval()
    network = open_network(tmp_path / 'c.pth')
    images = network.normalise(pictures)
    torch.testing.assert_close(network.features(images), model(images).detach(),
                               rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize('backbone', [
    dict(type='ResNet', depth=18),
    dict(type='VisionTransformer', img_size=32, patch_size=8, arch=dict(
        embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48)),
    dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32])),
    dict(type='SwinTransformer', img_size=64, pad_small_map=True, arch=dict(
        embed_dims=12, depths=[1, 1, 1, 1], num_heads=[1, 2, 3, 4]))], ids=itemgetter('type'))
def test_what_extract_backbone_wrote(tmp_path, backbone, form):
    """In whatever names; with the config in the checkpoint, or given beside it."""
    network = MODELS.build(backbone)
    network.init_weights()
    state = {f'backbone.{name}': value for name, value in network.state_dict().items()}
    cfg = Config(dict(model=dict(backbone=backbone, data_preprocessor=PREPROCESSOR)))
    cfg.dump(tmp_path / 'config.py')
    images = torch.randn(2, 3, *[backbone.get('img_size', SIDE)] * 2)
    network.eval()
    expected = pooled(network(images)).detach()
    for name, meta, options in (('a', dict(cfg=cfg.pretty_text), []),
                                ('b', {}, ['--config', str(tmp_path / 'config.py')])):
        torch.save(dict(state_dict=state, meta=meta), tmp_path / 'epoch_1.pth')
        extract_backbone.main([str(tmp_path / 'epoch_1.pth'), str(tmp_path / name), '--format',
                               form, *options])
        file, = tmp_path.glob(f'{name}-*.pth')
        found = open_network(file)
        assert found.settings.normalisation == (MEAN, STD, True)
        assert torch.equal(found.features(images), expected)


def test_a_twin_that_does_not_say_what_it_is(tmp_path):
    weights = MODELS.build(CONVNET).state_dict()
    state = {f'backbone.{name}': value for name, value in weights.items()}
    torch.save(dict(state_dict=state), tmp_path / 'd.pth')
    settings = Settings(CONVNET, PREPROCESSOR)
    assert open_network(tmp_path / 'd.pth', like=settings).settings == settings
    # Without help it is taken for a ResNet-18 of full width, which it is not.
    with pytest.raises(ValueError, match='does not take the weights'):
        open_network(tmp_path / 'd.pth')


def test_random_networks_depend_on_the_seed_alone(pictures):
    cfg = pic_config()
    features = []
    for seed in (0, 0, 1):
        network = open_network(RANDOM, cfg, seed=seed)
        features.append(network.features(network.normalise(pictures)))
        torch.rand(3)
    assert torch.equal(features[0], features[1]) and not torch.equal(features[0], features[2])
    with pytest.raises(ValueError, match='needs a config'):
        open_network(RANDOM)


@pytest.mark.parametrize('backbone', [TRANSFORMER, TOKENS])
def test_transformers(backbone, pictures):
    network = open_network(RANDOM, pic_config(backbone))
    assert network.features(network.normalise(pictures)).shape == (2, 16)


def test_pooling():
    maps = torch.rand(2, 3, 4, 5)
    assert torch.equal(pooled((None, maps)), maps.mean(dim=(2, 3)))
    assert torch.equal(pooled(maps[0]), maps[0].mean(dim=1))
    assert torch.equal(pooled(maps[0, 0]), maps[0, 0])
    with pytest.raises(ValueError, match='not .5,.'):
        pooled(maps[0, 0, 0])


def grey_config():
    return Config(dict(model=dict(
        type='PIC', data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[120.], std=[60.]),
        backbone=dict(CONVNET, in_channels=1),
        neck=dict(type='MoCoV2Neck', in_channels=64, hid_channels=8, out_channels=8),
        head=dict(type='PICHead', feat_dim=8, num_instances=5, num_negatives=None))))


def test_a_work_folder_stands_for_its_newest_checkpoint(tmp_path):
    resnet = get_model('resnet18')
    (tmp_path / 'run').mkdir()
    torch.save(resnet.state_dict(), tmp_path / 'run' / 'epoch_2.pth')
    weights = open_network(tmp_path / 'run').backbone.state_dict()
    assert torch.equal(weights['conv1.weight'], resnet.state_dict()['conv1.weight'])
    with pytest.raises(FileNotFoundError, match='holds no epoch_N.pth'):
        open_network(tmp_path)


def test_a_network_of_one_channel(tmp_path, pictures):
    cfg = grey_config()
    model = MODELS.build(cfg.model)
    torch.save(dict(meta=dict(cfg=cfg.pretty_text), state_dict=model.state_dict()),
               tmp_path / 'grey.pth')
    model.eval()
    grey = np.stack([cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture in pictures])
    batch = dict(inputs=torch.from_numpy(grey)[:, None], data_samples=None)
    inputs = model.data_preprocessor(batch, False)['inputs']
    expected = torch.stack([sample.feat for sample in model.predict(inputs)])
    # The config of three channels is that of the file it was derived from.
    for config in (cfg, None, pic_config()):
        network = open_network(tmp_path / 'grey.pth', config)
        # OpenCV's weights have 14 bits: a grey level now and then.
        torch.testing.assert_close(network.features(network.normalise(pictures)), expected,
                                   atol=0.02, rtol=0.02)
    assert network.grey.shape == (1, 1, 1)


def test_the_networks_own_config_goes_before_another(tmp_path):
    """As of a training with --cfg-options model.backbone.depth=..."""
    model = MODELS.build(pic_config().model)
    torch.save(dict(meta=dict(cfg=pic_config().pretty_text), state_dict=model.state_dict()),
               tmp_path / 'a.pth')
    network = open_network(tmp_path / 'a.pth', pic_config(dict(CONVNET, depth=34)))
    assert network.settings.backbone['depth'] == 18
