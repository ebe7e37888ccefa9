# SPDX-License-Identifier: Apache-2.0
"""compare_transfer: its table, and its errors; real runs are in the downstream group."""
import json
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from pic_plugin.studies import compare_transfer as study
from pic_plugin.studies.compare_transfer import set_initialisation, table
from pic_plugin.tools.compare_transfer import main


def test_table():
    results = dict(
        pic=[{'coco/bbox_mAP': 0.41, 'coco/bbox_mAP_50': 0.5},
             {'coco/bbox_mAP': 0.43, 'coco/bbox_mAP_50': 0.6}],
        random=[{'coco/bbox_mAP': 0.3, 'coco/bbox_mAP_50': 0.2}] * 2)
    assert table(results).splitlines() == [
        '| backbone from | bbox_mAP | bbox_mAP_50 |',
        '| --- | --- | --- |',
        '| pic | 42.0 ± 1.4 | 55.0 ± 7.1 |',
        '| random | 30.0 ± 0.0 | 20.0 ± 0.0 |']


def test_table_of_mmseg_and_of_one_seed():
    """mmseg counts in percent already; what is not reported is left out."""
    results = {init: [{'mIoU': 12.34, 'aAcc': 80.0, 'mAcc': 1.0}] for init in ('pic', 'random')}
    assert table(results).splitlines()[2] == '| pic | 12.3 | 80.0 |'


def test_initialisation_of_modules_that_share_the_file():
    """A C4 detector has res5 in its box head."""
    def config():
        pretrained = dict(type='Pretrained', checkpoint=None)
        return Config(dict(
            model=dict(backbone=dict(init_cfg=dict(pretrained)),
                       roi_head=dict(shared_head=dict(init_cfg=dict(pretrained), depth=50))),
            custom_hooks=[dict(type='PlainCheckpointHook'),
                          dict(type='CheckPretrainedHook',
                               modules=['backbone', 'roi_head.shared_head'])]))

    cfg = config()
    set_initialisation(cfg, 'pic', 'epoch_1.pth')
    assert cfg.model.backbone.init_cfg.checkpoint == 'epoch_1.pth'
    assert cfg.model.roi_head == config().model.roi_head
    assert cfg.custom_hooks == config().custom_hooks
    cfg = config()
    set_initialisation(cfg, 'random', 'epoch_1.pth')
    assert cfg.model.to_dict() == dict(backbone={}, roi_head=dict(shared_head=dict(depth=50)))
    assert [hook.get('required') for hook in cfg.custom_hooks] == [None, False]


def test_errors(tmp_path):
    with pytest.raises(SystemExit, match='compare_transfer: there is no config pic_demo_nothing'):
        main(['pic_demo_nothing', str(tmp_path)])
    with pytest.raises(SystemExit, match='compare_transfer: there is no checkpoint .*x.pth'):
        main(['pic_demo_fcn_scenes', str(tmp_path / 'x.pth')])


CONFIG = """
width = 1
model = dict(backbone=dict(type='ResNet', init_cfg=dict(type='Pretrained', checkpoint=None)),
             width=width)
custom_hooks = [dict(type='CheckPretrainedHook')]
default_scope = 'mmdet'
"""


def test_without_the_hook_random_weights_would_not_be_random(tmp_path):
    (tmp_path / 'config.py').write_text(CONFIG.replace('CheckPretrainedHook', 'EMAHook'))
    (tmp_path / 'pic.pth').touch()
    with pytest.raises(SystemExit, match='compare_transfer: the config has no CheckPretrainedHook'):
        main([str(tmp_path / 'config.py'), str(tmp_path / 'pic.pth'), '--work-dir',
              str(tmp_path / 'out')])


def test_options_are_those_of_train(tmp_path, monkeypatch):
    """Variables, names as they are, and arguments that mmpretrain's class of that name lacks."""
    (tmp_path / 'config.py').write_text(CONFIG)
    (tmp_path / 'pic.pth').touch()
    (tmp_path / 'a,b').mkdir()
    monkeypatch.chdir(tmp_path)
    cfgs = []
    monkeypatch.setattr(study, 'train_once', lambda cfg, folder: cfgs.append(cfg))

    def run(command):
        study.main(command[3:])
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(study.subprocess, 'run', run)
    with pytest.raises(SystemExit, match='pic, seed 0 failed'):
        main(['config.py', 'pic.pth', '--cfg-options', 'width=3', 'data_root=a,b',
              'model.backbone.dcn.groups=2'])
    assert cfgs[0].model.width == 3 and cfgs[0].data_root == 'a,b'
    assert cfgs[0].model.backbone.dcn == dict(groups=2)


def test_each_training_has_a_process_and_is_not_repeated(tmp_path, monkeypatch):
    """The processes' commands are run here, up to the training itself."""
    file = tmp_path / 'config.py'
    file.write_text(CONFIG)
    trained = []

    def train_once(cfg, folder):
        trained.append((cfg.model.backbone.get('init_cfg', {}).get('checkpoint'),
                        cfg.randomness.seed, cfg.model.width))
        folder.mkdir(parents=True)
        (folder / 'result.json').write_text(json.dumps(dict(mIoU=float(len(trained)))))

    checkpoints = [tmp_path / name for name in ('pic.pth', 'moved.pth', 'other.pth')]
    for one, content in zip(checkpoints, (b'1', b'1', b'2')):
        one.write_bytes(content)
    pic, moved, other = map(str, checkpoints)
    options = {'model.width': 2}

    def run(command):
        assert command[1:3] == ['-m', 'pic_plugin.studies.compare_transfer']
        study.main(command[3:])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(study, 'train_once', train_once)
    monkeypatch.setattr(study.subprocess, 'run', run)
    table = study.compare(file, pic, [0, 5], tmp_path / 'out', options)
    assert trained == [(pic, 0, 2), (None, 0, 2), (pic, 5, 2), (None, 5, 2)]
    assert table.splitlines()[2:] == ['| pic | 2.0 ± 1.4 |', '| random | 3.0 ± 1.4 |']
    assert study.compare(file, moved, [0, 5], tmp_path / 'out', options) == table
    for asked in ((other, options), (pic, {})):
        with pytest.raises(ValueError, match='from another checkpoint.*give another --work-dir'):
            study.compare(file, asked[0], [0, 5], tmp_path / 'out', asked[1])
    assert len(trained) == 4
    monkeypatch.setattr(study.subprocess, 'run', lambda command: SimpleNamespace(returncode=1))
    with pytest.raises(RuntimeError, match='pic, seed 6 failed'):
        study.compare(file, pic, [6], tmp_path / 'out', options)
