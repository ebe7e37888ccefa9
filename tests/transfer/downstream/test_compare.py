# SPDX-License-Identifier: Apache-2.0
"""compare_transfer on the demo's network: equal runs but for the initialisation."""
import json
import sys

import pytest
import torch
from mmengine.config import Config

from .launch import CONFIGS, DEMO, ROOT, run

pytestmark = pytest.mark.downstream

SHORT = {
    'pic_demo_faster-rcnn_scenes': ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=2',
                                    'model.test_cfg.rcnn.score_thr=0.0'],
    'pic_demo_fcn_scenes': ['train_cfg.max_iters=2', 'train_dataloader.batch_size=2',
                            'default_hooks.checkpoint.interval=2'],
}
COLUMNS = {'pic_demo_faster-rcnn_scenes': '| AP50 |', 'pic_demo_fcn_scenes': '| mIoU |'}


def test_bccd_is_the_same_detector():
    """It has data of its own, which do not come with the project."""
    assert sorted(DEMO) == sorted([*SHORT, 'pic_demo_faster-rcnn_bccd'])
    folder = CONFIGS / 'mmdetection'
    scenes, bccd = (Config.fromfile(folder / f'pic_demo_faster-rcnn_{name}.py')
                    for name in ('scenes', 'bccd'))
    assert bccd.model.roi_head.bbox_head.num_classes == 3
    bccd.model.roi_head.bbox_head.num_classes = 20
    for key in ('model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'custom_hooks'):
        assert bccd[key] == scenes[key]
    for loader in (bccd.train_dataloader, bccd.val_dataloader):
        assert loader.dataset.data_root == 'data/bccd/'
        assert loader.dataset.metainfo.classes == ('RBC', 'WBC', 'Platelets')


@pytest.mark.parametrize('name', DEMO)
def test_network_is_the_demos(name):
    demo = Config.fromfile(ROOT / 'configs' / 'pic' / 'pic_demo.py').model
    model = Config.fromfile(next(CONFIGS.glob(f'*/{name}.py'))).model
    backbone = model.backbone.to_dict()
    assert backbone.pop('type') == f'mmpretrain.{demo.backbone.type}'
    assert backbone.pop('init_cfg') == dict(type='Pretrained', checkpoint=None, prefix='backbone.')
    backbone.pop('out_indices')
    expected = demo.backbone.to_dict()
    expected.pop('type')
    assert backbone == expected
    for key in ('mean', 'std'):
        assert model.data_preprocessor[key] == demo.data_preprocessor[key]
    assert model.data_preprocessor.bgr_to_rgb is demo.data_preprocessor.to_rgb is True


@pytest.mark.parametrize('name', SHORT)
def test_both_initialisations(name, checkpoints, folder, tmp_path):
    command = [sys.executable, '-m', 'pic_plugin.tools.compare_transfer', name,
               checkpoints['demo'], '--seeds', '0', '--work-dir', tmp_path, '--cfg-options',
               'optim_wrapper.optimizer.lr=1e-9', 'optim_wrapper.optimizer.weight_decay=0',
               *SHORT[name]]
    result = run(*command, cwd=folder)
    assert result.returncode == 0, result.stdout[-5000:]
    assert COLUMNS[name] in result.stdout and 'loaded 126 of 126' in result.stdout
    content = torch.load(checkpoints['demo'], weights_only=True)['state_dict']
    weights, others = {}, {}
    for init in ('pic', 'random'):
        runs = tmp_path / name / f'{init}-seed0'
        assert json.loads((runs / 'result.json').read_text())
        file = next(file for file in (runs / 'epoch_1.pth', runs / 'iter_2.pth') if file.exists())
        state = torch.load(file, weights_only=True)['state_dict']
        weights[init] = state['backbone.layer4.1.conv2.weight']
        others[init] = next(value for key, value in state.items()
                            if 'head' in key and value.dim() == 4)
    # After steps too small to be seen: the file's, and what the class itself draws.
    expected = content['backbone.layer4.1.conv2.weight']
    assert torch.allclose(weights['pic'], expected, atol=1e-5)
    assert not torch.allclose(weights['random'], expected, atol=1e-2)
    # Kaiming's normal distribution, fan out: std = sqrt(2 / (128 * 9)).
    assert weights['random'].std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert others['pic'].shape == others['random'].shape

    # A second call takes what is there.
    again = run(*command, cwd=folder)
    assert COLUMNS[name] in again.stdout and 'loaded' not in again.stdout
