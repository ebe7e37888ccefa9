# SPDX-License-Identifier: Apache-2.0
"""What people do with mmpretrain after a pre-training: its interfaces and tools on our configs."""
from pathlib import Path

import cv2
import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain import FeatureExtractor, get_model

import pic_plugin  # noqa: F401
from toys.processes import command, run_alone

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs/pic'
TOOLS = Path(mmpretrain.__file__).parent / '.mim/tools'
NAMES = sorted(path.stem for path in CONFIGS.glob('*.py'))


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / 'pictures' / 'a.jpg'
    file.parent.mkdir()
    cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))
    return file


def run(tool, *arguments, cwd):
    status, output = run_alone(command, [TOOLS / tool, *arguments], cwd)
    assert status == 0, output
    return output


@pytest.mark.parametrize('name', ['pic_demo', 'pic_folder',
                                  'pic_resnet18_1xb128-coslr-200e_cifar10'])
def test_feature_extractor(name, picture, tmp_path):
    """Features of a picture, by a network out of a checkpoint."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    if name == 'pic_folder':
        cfg.model.backbone.depth = 18  # for seconds
    model = get_model(cfg)
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'a.pth')
    extractor = FeatureExtractor(cfg, pretrained=str(tmp_path / 'a.pth'))
    (features, ), = [extractor(str(picture))[0][-1:]]
    side = cfg.test_pipeline[-2].crop_size
    img = extractor.pipeline(dict(img=cv2.imread(str(picture)), img_shape=(70, 90)))['inputs']
    assert img.shape == (3, side, side)
    extractor.model.eval()
    with torch.no_grad():
        inputs = extractor.model.data_preprocessor(
            dict(inputs=img[None], data_samples=None), False)['inputs']
        inputs = inputs[0] if isinstance(inputs, list) else inputs
        expected = extractor.model.backbone(inputs)[-1][0]
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize('name', NAMES)
def test_keys_that_tools_of_mmpretrain_read(name):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    assert cfg.visualizer.type == 'UniversalVisualizer'
    assert cfg.default_hooks.param_scheduler.type == 'ParamSchedulerHook'
    assert cfg.test_dataloader.dataset.pipeline[-1].type == 'PackInputs'
    assert cfg.test_evaluator == [] and cfg.test_cfg == {}


def test_browse_dataset(tmp_path):
    run('visualization/browse_dataset.py', CONFIGS / 'pic_demo.py', '-o', 'out', '--not-show', '-n',
        2, '-m', 'original', cwd=tmp_path)
    assert len(list((tmp_path / 'out').iterdir())) == 2


def test_vis_scheduler(tmp_path):
    run('visualization/vis_scheduler.py', CONFIGS / 'pic_demo.py', '--not-show', '--save-path',
        'a.png', '-d', 512, '--cfg-options', 'custom_hooks=[]', cwd=tmp_path)
    assert (tmp_path / 'a.png').is_file()


def test_get_flops(tmp_path):
    assert 'Flops' in run('analysis_tools/get_flops.py', CONFIGS / 'pic_demo.py', '--shape', 32,
                          cwd=tmp_path)
