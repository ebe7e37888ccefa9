# SPDX-License-Identifier: Apache-2.0
"""One step of training with the smallest variant of every backbone family of mmpretrain.

docs/transformers.md shows this list. Images are as small as a family takes them; variants of more
than 30 million parameters are replaced by a thinner one, so that the file runs in about a minute.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from mmpretrain.models import backbones
from mmpretrain.registry import DATASETS

from toys.training import make_config

NUM_IMAGES = 4


class Family(NamedTuple):
    """A variant, the images that it is given here, and the width of its feature.

    Attributes:
        options (dict): Of the backbone.
        side (int): Pixels.
        channels (int): C of the pooled feature.
        is_map (bool): Whether the backbone gives (B, C, H, W), which the neck has to pool, and not
            (B, C).
    """

    options: dict[str, Any]
    side: int
    channels: int
    is_map: bool = True


THIN = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
FAMILIES = dict(
    AlexNet=Family({}, 224, 256),
    VGG=Family(dict(depth=11), 32, 512),
    RegNet=Family(dict(arch='regnetx_400mf'), 32, 384),
    ResNet=Family(dict(depth=18), 32, 512),
    ResNeXt=Family(dict(depth=50), 32, 2048),
    ResNetV1c=Family(dict(depth=18), 32, 512),
    ResNetV1d=Family(dict(depth=18), 32, 512),
    ResNeSt=Family(dict(depth=50), 64, 2048),
    ResNet_CIFAR=Family(dict(depth=18), 32, 512),
    SEResNet=Family(dict(depth=50), 32, 2048),
    SEResNeXt=Family(dict(depth=50), 32, 2048),
    Res2Net=Family(dict(depth=50), 32, 2048),
    ShuffleNetV1=Family({}, 32, 960),
    ShuffleNetV2=Family(dict(widen_factor=0.5), 32, 1024),
    MobileNetV2=Family(dict(widen_factor=0.5), 32, 1280),
    MobileNetV3=Family({}, 32, 576),
    MobileOne=Family(dict(arch='s0'), 32, 1024),
    MobileViT=Family(dict(arch='xx_small'), 64, 320),
    EfficientNet=Family(dict(arch='b0'), 32, 1280),
    EfficientNetV2=Family(dict(arch='b0'), 32, 1280),
    RepVGG=Family(dict(arch='A0'), 32, 1280),
    CSPDarkNet=Family(dict(depth=53), 32, 1024),
    CSPResNet=Family(dict(depth=50), 32, 1024),
    CSPResNeXt=Family(dict(depth=50), 32, 2048),
    DenseNet=Family(dict(arch='121'), 32, 1024),
    ConvMixer=Family(dict(arch='768/32'), 32, 768),
    ConvNeXt=Family(dict(arch='atto'), 64, 320, is_map=False),
    EdgeNeXt=Family(dict(arch='xxsmall'), 64, 168, is_map=False),
    HorNet=Family(dict(arch='tiny'), 64, 512, is_map=False),
    VAN=Family(dict(arch='tiny'), 64, 256),
    PoolFormer=Family(dict(arch='s12'), 64, 512),
    RIFormer=Family(dict(arch='s12'), 64, 512),
    RepLKNet=Family(dict(arch=dict(
        large_kernel_sizes=[5, 5, 3, 3], layers=[1, 1, 1, 1], channels=[16, 16, 32, 32],
        small_kernel=3, dw_ratio=1)), 64, 32),
    VisionTransformer=Family(dict(arch='deit-tiny', img_size=32), 32, 192, is_map=False),
    MoCoV3ViT=Family(dict(arch='mocov3-small', img_size=32, patch_size=16, stop_grad_conv1=True),
                     32, 384, is_map=False),
    DeiT3=Family(dict(arch='small', img_size=32), 32, 384, is_map=False),
    DistilledVisionTransformer=Family(dict(arch='deit-tiny', img_size=32), 32, 2 * 192,
                                      is_map=False),
    BEiTViT=Family(dict(arch=THIN, img_size=32), 32, 32, is_map=False),
    ViTEVA02=Family(dict(arch='t', img_size=28), 28, 192, is_map=False),
    ViTSAM=Family(dict(arch=dict(THIN, global_attn_indexes=[1]), img_size=32, out_channels=64),
                  32, 64),
    RevVisionTransformer=Family(dict(arch='deit-tiny', img_size=32), 32, 384, is_map=False),
    T2T_ViT=Family(dict(img_size=32), 32, 384, is_map=False),
    TNT=Family(dict(arch='s', img_size=32), 32, 384, is_map=False),
    XCiT=Family(dict(patch_size=16, embed_dims=32, depth=2, num_heads=2), 64, 32, is_map=False),
    TinyViT=Family(dict(arch='5m', img_size=(64, 64), window_size=[2, 2, 2, 2]), 64, 320,
                   is_map=False),
    LeViT=Family(dict(arch='128s', img_size=64), 64, 384),
    Conformer=Family(dict(arch='tiny'), 64, 256 + 384, is_map=False),
    SwinTransformer=Family(dict(arch='tiny', img_size=64, window_size=2), 64, 768),
    SwinTransformerV2=Family(dict(arch='tiny', img_size=64, window_size=2), 64, 768),
    MixMIMTransformer=Family(dict(
        arch=dict(embed_dims=32, depths=[1, 1, 1, 1], num_heads=[2, 2, 2, 2]), img_size=64,
        window_size=[2, 2, 2, 2]), 64, 256, is_map=False),
    HiViT=Family(dict(arch='tiny', img_size=64), 64, 384),
    MViT=Family(dict(arch='tiny', img_size=64), 64, 768),
    DaViT=Family(dict(arch='tiny', window_size=2), 64, 768),
    PCPVT=Family(dict(arch='small'), 64, 512),
    SVT=Family(dict(arch='small'), 64, 512),
    Vig=Family(dict(arch='tiny'), 224, 192),
    PyramidVig=Family(dict(arch='tiny'), 224, 384),
)
# What PIC does not train as they are, and why.
OTHERS = dict(
    LeNet5='takes grey images of one channel',
    InceptionV3='gives class scores, not a feature',
    HRNet='gives maps at four resolutions: a neck that fuses them has to be written',
    MlpMixer='gives (B, C, T), channels first, which necks and kNN take for tokens (B, T, C)',
    EfficientFormer='gives (B, C, T), as MlpMixer',
    RepMLPNet='takes images of one size of at least 256 pixels: the same as others, but slow here',
    TIMMBackbone='needs timm; gives maps or features, as its model_name does',
    CSPNet='is the base class of CSPDarkNet, CSPResNet and CSPResNeXt',
    SparseResNet='is part of SparK and takes its masks',
    SparseConvNeXt='is part of SparK and takes its masks',
)


@DATASETS.register_module()
class NoiseImages(BaseDataset):
    """A few images of noise of any size."""

    def __init__(self, side, **kwargs):
        self.side = side
        super().__init__(**kwargs)

    def load_data_list(self):
        generator = np.random.default_rng(0)
        return [dict(img=generator.integers(0, 256, (self.side, self.side, 3), dtype=np.uint8))
                for _ in range(NUM_IMAGES)]


def make_runner(work_dir, name, family, **backbone):
    """A training of one step of 4 images."""
    config = make_config(
        work_dir, max_epochs=1, batch_size=NUM_IMAGES, seed=0,
        model=dict(
            type='PIC',
            backbone=dict(type=name, **family.options, **backbone),
            neck=dict(type='MoCoV2Neck', in_channels=family.channels, hid_channels=16,
                      out_channels=8, with_avg_pool=family.is_map),
            head=dict(type='PICHead', feat_dim=8, num_negatives=None)),
        train_dataloader=dict(
            dataset=dict(type='NoiseImages', side=family.side, pipeline=[
                dict(type='PackInputs', meta_keys=('sample_idx', ))]),
            batch_size=NUM_IMAGES, num_workers=0, collate_fn=dict(type='default_collate'),
            sampler=dict(type='SlidingWindowSampler', window_size=4, stride=4)),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
        default_hooks=dict(checkpoint=None), param_scheduler=None)
    return Runner.from_cfg(Config(config))


def test_every_family_is_listed():
    exported = set(backbones.__all__)
    assert exported | {'MoCoV3ViT'} == set(FAMILIES) | set(OTHERS)
    assert not set(FAMILIES) & set(OTHERS)


@pytest.mark.parametrize('name', FAMILIES)
def test_one_step(work_dir, name):
    family = FAMILIES[name]
    runner = make_runner(work_dir, name, family)
    before = {key: value.clone() for key, value in runner.model.backbone.named_parameters()}
    for module in runner.model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            # After one step the usual statistics are far from those of a deep random network.
            module.momentum = 1.0
    runner.train()
    assert np.isfinite(runner.losses).all() and len(runner.losses) == 1
    moved = [key for key, value in runner.model.backbone.named_parameters()
             if not torch.equal(value, before[key])]
    # Where the last norm of each residual branch starts at zero, one step moves that norm alone.
    assert len(moved) > 0.2 * len(before)
    runner.model.eval()
    images = torch.stack([runner.train_dataloader.dataset[i]['inputs'] for i in range(2)]).float()
    for sample in runner.model.predict(images):
        assert sample.feat.shape == (family.channels, )
        assert torch.isfinite(sample.feat).all()


@pytest.mark.parametrize('name', ['SwinTransformer', 'ConvNeXt'])
def test_gradient_checkpointing_changes_nothing(work_dir, name):
    """Also with drop path, whose random numbers are drawn again in the backward pass."""
    parameters = []
    for with_cp in (False, True):
        runner = make_runner(work_dir / str(with_cp), name, FAMILIES[name], with_cp=with_cp,
                             drop_path_rate=0.5)
        runner.train()
        parameters.append([*runner.model.parameters(), torch.tensor(runner.losses)])
    for plain, checkpointed in zip(*parameters):
        torch.testing.assert_close(checkpointed, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('name', ['VisionTransformer', 'SwinTransformer', 'ConvNeXt'])
def test_drop_path_is_for_training_alone(work_dir, name):
    family = FAMILIES[name]
    runner = make_runner(work_dir, name, family, drop_path_rate=0.9)
    model, images = runner.model, torch.randn(2, 3, family.side, family.side)
    for module in model.backbone.modules():
        # At its initial 1e-6 nothing would be seen of a branch that is dropped.
        if hasattr(module, 'gamma') and module.gamma is not None:
            module.gamma.data.fill_(1.0)
    with torch.no_grad():
        model.train()
        assert not torch.equal(model.backbone(images)[-1], model.backbone(images)[-1])
        model.eval()
        first, again = (torch.stack([sample.feat for sample in model.predict(images)])
                        for _ in range(2))
    assert torch.equal(first, again)
