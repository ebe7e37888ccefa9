# SPDX-License-Identifier: Apache-2.0
"""The probe on classes that anyone can tell apart, and its classifier as a plain linear layer."""
import shutil

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

import pic_plugin
from pic_plugin.features.probe import _features
from pic_plugin.tools import probe as tool
from toys.pages import block
from toys.pictures import write_classes


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    backbone = dict(type='ResNet', depth=18)
    network = MODELS.build(backbone)
    network.init_weights()
    cfg = Config(dict(model=dict(type='PIC', backbone=backbone, data_preprocessor=dict(
        mean=[127.0] * 3, std=[60.0] * 3, to_rgb=True)), train_dataloader=dict(
            dataset=dict(pipeline=[dict(type='RandomResizedCrop', scale=32)]))))
    file = tmp_path_factory.mktemp('run') / 'epoch_1.pth'
    torch.save(dict(state_dict={f'backbone.{name}': value for name, value in
                                network.state_dict().items()},
                    meta=dict(cfg=cfg.pretty_text)), file)
    return file


def test_dark_from_light(checkpoint, tmp_path, capsys):
    folder = write_classes(tmp_path / 'labelled', 8)
    (folder / 'dark' / 'broken.png').write_bytes(b'x')
    tool.main([str(checkpoint), str(folder), '--out', str(tmp_path / 'a' / 'classifier.pth')])
    text = capsys.readouterr().out
    assert 'trained: linear 100.0 %, 20 nearest neighbours 100.0 % (8 pictures' in text
    assert '1 picture of ' in text and 'cannot be read' in text
    assert 'random: linear' in text and 'classifier of 2 classes' in text
    saved = torch.load(tmp_path / 'a' / 'classifier.pth', weights_only=True)
    # On raw features, without standardising.
    features, names = pic_plugin.embed(folder, checkpoint)
    scores = torch.from_numpy(features) @ saved['weight'].T + saved['bias']
    found = [saved['classes'][label] for label in scores.argmax(1)]
    assert found == [name.split('/')[0] for name in names]


def test_the_lines_that_the_page_shows(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / 'FOLDER', 8)
    (tmp_path / 'work_dirs' / 'mine').mkdir(parents=True)
    shutil.copy(checkpoint, tmp_path / 'work_dirs' / 'mine')
    tool.main(['work_dirs/mine', 'FOLDER', '--out', 'classifier.pth'])
    found: dict = {}
    exec(block('use-the-probe').text, found)
    assert found['labels'] == [name.split('/')[0] for name in found['names']]


def test_a_picture_of_two_labels_has_both(checkpoint, tmp_path):
    first, second = sorted(map(str, (write_classes(tmp_path, 2) / 'dark').glob('*.png')))
    (tmp_path / 'broken.png').write_bytes(b'x')
    _, labels = _features(
        pic_plugin.load_backbone(checkpoint, normalise=True),
        [(first, 0), (str(tmp_path / 'broken.png'), 3), (second, 1), (first, 2)], None, 64)
    assert labels.tolist() == [0, 1, 2]


def test_what_is_wrong_is_said(checkpoint, tmp_path):
    with pytest.raises(SystemExit, match='probe: there are no labels'):
        tool.main([str(checkpoint), str(tmp_path / 'none')])
    with pytest.raises(SystemExit, match="probe: torch cannot use the device 'cuda'"):
        tool.main([str(checkpoint), str(write_classes(tmp_path / 'a')), '--device', 'cuda'])
