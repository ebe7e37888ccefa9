# SPDX-License-Identifier: Apache-2.0
"""The lines that are printed for use without pic_plugin give the features that pic_plugin gives."""
import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import ExifTags, Image

import pic_plugin
from pic_plugin.tools import extract_backbone
from toys.checkpoints import pic_content
from toys.pictures import picture

BACKBONES = dict(
    usual=(dict(type='ResNet', depth=18), 512),
    narrow=(dict(type='ResNet', depth=18, base_channels=16, stem_channels=16), 128),
    convnext=(dict(type='ConvNeXt', arch='atto'), 320))


def features_by_lines(lines, file):
    scope = {}
    exec('\n'.join(line[5:] for line in lines).replace('PICTURE', str(file)), scope)
    assert not scope['network'].training
    return scope['features'].detach()[0].numpy()


@pytest.mark.parametrize('name, orientation', [*((name, 1) for name in BACKBONES), ('usual', 6)])
def test_they_give_the_features_of_embed(tmp_path, capsys, name, orientation):
    """Of a photo that a phone took upright and stored lying, too."""
    backbone, channels = BACKBONES[name]
    content = pic_content(backbone, channels)
    cfg = Config(dict(
        model=dict(type='PIC', backbone=backbone, data_preprocessor=dict(
            mean=[120., 100., 90.], std=[60., 50., 40.], to_rgb=True)),
        train_dataloader=dict(dataset=dict(pipeline=[dict(type='DecodeRandomCrop', size=64)]))))
    content['meta'] = dict(cfg=cfg.pretty_text, epoch=1)
    torch.save(content, tmp_path / 'epoch_1.pth')
    file = tmp_path / 'some picture.jpg'
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(cv2.resize(picture(3), (100, 80), interpolation=cv2.INTER_CUBIC)).save(
        file, quality=95, exif=exif)

    extract_backbone.main([str(tmp_path / 'epoch_1.pth'), str(tmp_path / 'out'), '--format',
                           'torchvision'])

    lines = capsys.readouterr().out.split('use: ')[1].rstrip().splitlines()
    got = features_by_lines(['     ' + lines[0], *lines[1:]], file)
    expected = pic_plugin.embed([str(file)], tmp_path / 'epoch_1.pth', device='cpu').features[0]
    assert expected @ got / np.linalg.norm(expected) / np.linalg.norm(got) > 0.99


def test_other_pictures_than_colours_of_8_bits(tmp_path, capsys):
    """Lines that would read them wrongly are not printed."""
    backbone, channels = BACKBONES['usual']
    content = pic_content(backbone, channels)
    cfg = Config(dict(model=dict(type='PIC', backbone=backbone, data_preprocessor=dict(
        mean=[90., 100., 120.], std=[60., 50., 40.], to_rgb=False))))
    content['meta'] = dict(cfg=cfg.pretty_text, epoch=1)
    torch.save(content, tmp_path / 'epoch_1.pth')
    extract_backbone.main([str(tmp_path / 'epoch_1.pth'), str(tmp_path / 'out'), '--format',
                           'torchvision'])
    out = capsys.readouterr().out
    assert 'PICTURE' not in out and 'in BGR, mean = [90.0, 100.0, 120.0]' in out
