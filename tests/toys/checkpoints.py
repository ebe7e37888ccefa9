# SPDX-License-Identifier: Apache-2.0
"""PIC checkpoints with random weights, as training writes them, and the authors'."""
import argparse
from collections import OrderedDict

import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torchvision.models import get_model

import pic_plugin  # noqa: F401

PREPROCESSOR = dict(type='SelfSupDataPreprocessor', mean=[123.675, 116.28, 103.53],
                    std=[58.395, 57.12, 57.375], to_rgb=True)


def randomise(module, seed=0):
    """Other values everywhere: BN statistics that are 0 and 1 would hide a mix-up."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            if value.dim() > 1:  # keeps activations in range through 50 layers
                noise = (noise - 0.5) * (12 / value[0].numel()) ** 0.5
            elif name.endswith('running_var') or name.endswith('weight'):
                noise = noise + 0.5
            value.copy_(noise)
        else:
            value.fill_(7)


def pic_content(backbone, channels=2048):
    """Content of a checkpoint of a PIC model with a backbone of random weights."""
    cfg = Config(dict(model=dict(
        type='PIC', data_preprocessor=PREPROCESSOR, backbone=backbone,
        neck=dict(type='MoCoV2Neck', in_channels=channels, hid_channels=16, out_channels=8),
        head=dict(type='PICHead', feat_dim=8, num_instances=20, num_negatives=None))))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    randomise(model)
    return dict(meta=dict(cfg=cfg.pretty_text, epoch=3, iter=30, seed=1, mmengine_version='0.10.7'),
                state_dict=model.state_dict(), optimizer=dict(), message_hub=dict())


def official_content(depth=18, num_instances=20, hidden=32, feat_dim=8, mlp_head=True):
    """Content of a file of the authors' code; and the network, which torchvision has as well."""
    torch.manual_seed(1)
    network = get_model(f'resnet{depth}', weights=None)
    width = network.fc.in_features
    del network.fc
    if mlp_head:
        network.fc1 = torch.nn.Linear(width, hidden)
        network.fc2 = torch.nn.Linear(hidden, feat_dim)
    else:
        network.fc = torch.nn.Linear(width, feat_dim)
    randomise(network, 2)
    state = OrderedDict((f'module.encoder.{name}', value)
                        for name, value in network.state_dict().items())
    state['module.sim_matrix'] = torch.rand(num_instances, feat_dim)
    content = dict(opt=argparse.Namespace(arch=f'resnet{depth}', amp_opt_level='O1'), model=state,
                   optimizer=dict(state={}), scheduler=dict(last_epoch=5), epoch=5)
    return content, network
