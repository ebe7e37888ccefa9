# SPDX-License-Identifier: Apache-2.0
"""Each detection and segmentation config, with the real libraries, on data in the real formats."""
import math
import re
from operator import attrgetter

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import Runner

from pic_plugin.engine.checkpoint.foreign_checkpoint import backbone_of

from .launch import DETECTION, SEGMENTATION, mim, path_of, resolved, shrink

pytestmark = pytest.mark.downstream

RGB = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
VOC, C4, FPN, FPN2, SWIN, CONVNEXT = (
    'pic_faster-rcnn_r50-c4_ms-24k_voc0712', 'pic_mask-rcnn_r50-c4_1x_coco',
    'pic_mask-rcnn_r50-fpn_1x_coco', 'pic_mask-rcnn_r50-fpn_2x_coco',
    'pic_mask-rcnn_swin-t-fpn_1x_coco', 'pic_mask-rcnn_convnext-t-fpn_1x_coco')
D16, D8, AUG = ('pic_fcn-d6_r50-d16_4xb4-90k_cityscapes-769x769',
                'pic_fcn_r50-d8_4xb2-80k_cityscapes-769x769',
                'pic_fcn_r50-d8_4xb4-40k_voc12aug-512x512')
UPER_SWIN, UPER_CONVNEXT = ('pic_upernet_swin-t_4xb4-40k_voc12aug-512x512',
                            'pic_upernet_convnext-t_4xb4-40k_voc12aug-512x512')
EXPECTED = {
    VOC: dict(length=24000, milestones=[18000, 22000], lr=0.02, weight_decay=1e-4, batch=2),
    C4: dict(length=12, milestones=[8, 11], lr=0.02, weight_decay=1e-4, batch=2),
    FPN: dict(length=12, milestones=[8, 11], lr=0.02, weight_decay=1e-4, batch=2),
    FPN2: dict(length=24, milestones=[16, 22], lr=0.02, weight_decay=1e-4, batch=2),
    SWIN: dict(length=12, milestones=[8, 11], lr=1e-4, weight_decay=0.05, batch=2),
    CONVNEXT: dict(length=12, milestones=[8, 11], lr=1e-4, weight_decay=0.05, batch=2),
    UPER_SWIN: dict(length=40000, milestones=None, lr=6e-5, weight_decay=0.01, batch=4),
    UPER_CONVNEXT: dict(length=40000, milestones=None, lr=1e-4, weight_decay=0.05, batch=4),
    D16: dict(length=90000, milestones=[63000, 81000], lr=0.01, weight_decay=1e-4, batch=4),
    D8: dict(length=80000, milestones=None, lr=0.01, weight_decay=5e-4, batch=2),
    AUG: dict(length=40000, milestones=None, lr=0.01, weight_decay=5e-4, batch=4),
}
# Modules that share out the weights of pre-training, and what is new in them.
SHARED = {VOC: ('backbone', 'roi_head.shared_head'), C4: ('backbone', 'roi_head.shared_head')}
NEW = re.compile(r'roi_head\.shared_head\.norm\.|backbone\.norm[012]\.')
METRIC = {VOC: 'pascal_voc/AP50', **dict.fromkeys(SEGMENTATION, 'mIoU')}
KIND = {SWIN: 'swin', UPER_SWIN: 'swin', CONVNEXT: 'convnext', UPER_CONVNEXT: 'convnext'}
LIBRARY = {**dict.fromkeys(DETECTION, 'mmdet'), **dict.fromkeys(SEGMENTATION, 'mmseg')}


def weights_of(name, checkpoints):
    file = checkpoints[KIND.get(name, 'r50')]
    return file, backbone_of(torch.load(file, weights_only=True)['state_dict'], file)


def test_every_config_is_tested():
    assert sorted(DETECTION + SEGMENTATION) == sorted(EXPECTED)


@pytest.mark.parametrize('name', EXPECTED)
def test_resolved_values(name):
    cfg = resolved(name, [])
    schedule = cfg.param_scheduler[-1]
    values = dict(
        length=cfg.train_cfg.get('max_iters', cfg.train_cfg.get('max_epochs')),
        milestones=schedule.get('milestones'), lr=cfg.optim_wrapper.optimizer.lr,
        weight_decay=cfg.optim_wrapper.optimizer.weight_decay,
        batch=cfg.train_dataloader.batch_size)
    assert values == EXPECTED[name]
    assert schedule.end == values['length']
    preprocessor, model = cfg.model.data_preprocessor, cfg.model
    assert {key: preprocessor[key] for key in RGB} == RGB
    assert model.get('pretrained') is None
    assert model.backbone.init_cfg == dict(type='Pretrained', checkpoint=None, prefix='backbone.')
    parts = [model.backbone] + ([model.roi_head.shared_head] if name in SHARED else [])
    if name not in KIND:
        assert [part.norm_cfg.type for part in parts] == ['SyncBN'] * len(parts)
        assert all(part.norm_cfg.requires_grad and part.norm_eval is False for part in parts)
        assert model.backbone.type == 'ResNet' and model.backbone.style == 'pytorch'
        assert model.backbone.get('frozen_stages', -1) == -1


def test_protocol_of_cityscapes():
    """Output stride 16, two convolutions of 256 channels with dilation 6, nothing auxiliary."""
    model = resolved(D16, []).model
    assert model.backbone.strides == (1, 2, 2, 1) and model.backbone.dilations == (1, 1, 1, 2)
    head = model.decode_head
    assert (head.channels, head.num_convs, head.dilation) == (256, 2, 6)
    assert model.auxiliary_head is None and model.test_cfg == dict(mode='whole')
    # As built: of the last stage all three 3x3 convolutions, not all but the first.
    built = MODELS.build(dict(model.backbone, _scope_='mmseg', init_cfg=None,
                              norm_cfg=dict(type='BN')))
    convs = [block.conv2 for block in built.layer4]
    assert [conv.dilation for conv in convs] == [(2, 2)] * 3
    assert [conv.stride for conv in convs] == [(1, 1)] * 3


def test_protocol_of_c4():
    """Both detectors have res5 with a new norm, and train on anchors that cross the border."""
    for name in (VOC, C4):
        model = resolved(name, []).model
        assert model.roi_head.shared_head.type == 'ResLayerExtraNorm'
        assert model.train_cfg.rpn.allowed_border == -1
        assert model.backbone.num_stages == 3 and model.roi_head.shared_head.stage == 3


@pytest.mark.parametrize('name, share', [(CONVNEXT, 0.95**7), (UPER_CONVNEXT, 0.9**7)])
def test_layer_wise_rates(name, share, folder, work_dir, monkeypatch):
    """Of the optimizer as it is built: the stem learns slowest, what is new at the full rate."""
    monkeypatch.chdir(folder)
    cfg = resolved(name, shrink(name, None)[:-1])
    cfg.work_dir = str(work_dir)
    runner = Runner.from_cfg(cfg)
    optimizer = runner.build_optim_wrapper(runner.optim_wrapper).optimizer
    rates = {id(parameter): group['lr'] for group in optimizer.param_groups
             for parameter in group['params']}
    names = dict(runner.model.named_parameters())
    full = cfg.optim_wrapper.optimizer.lr
    stem = rates[id(names['backbone.downsample_layers.0.0.weight'])]
    assert stem == pytest.approx(full * share)
    assert max(rates.values()) == pytest.approx(full)
    new = next(name for name in names if 'head' in name and name.endswith('weight'))
    assert rates[id(names[new])] == pytest.approx(full)


@pytest.mark.parametrize('name', EXPECTED)
def test_weights_are_there_after_building(name, checkpoints, folder, work_dir, monkeypatch):
    """Compared here tensor by tensor, without the hook's help."""
    monkeypatch.chdir(folder)
    file, weights = weights_of(name, checkpoints)
    cfg = resolved(name, shrink(name, file))
    cfg.work_dir = str(work_dir)
    cfg.launcher = 'none'
    torch.manual_seed(0)
    runner = Runner.from_cfg(cfg)
    runner.call_hook('before_run')
    runner._init_model_weights()
    left = set(weights)
    modules = SHARED.get(name, ('backbone', ))
    for module in modules:
        for key, value in attrgetter(module)(runner.model).state_dict().items():
            if not NEW.match(f'{module}.{key}'):
                assert torch.equal(value, weights[key]), f'{module}.{key}'
                left.remove(key)
    assert not left
    # Nothing else of the checkpoint: neither names nor values of projection and class weights.
    content = torch.load(file, weights_only=True)['state_dict']
    others = [value for key, value in content.items() if not key.startswith('backbone.')]
    for key, value in runner.model.state_dict().items():
        assert not key.startswith(('neck.mlp', 'head.'))
        if not key.startswith(modules):
            assert not any(value.shape == other.shape and torch.equal(value, other)
                           for other in others if other.numel() > 1), key


@pytest.mark.parametrize('name', EXPECTED)
def test_trains_and_tests_through_mim(name, checkpoints, folder, tmp_path):
    file, weights = weights_of(name, checkpoints)
    options = shrink(name, file)
    output = mim('train', LIBRARY[name], path_of(name), '--work-dir', tmp_path, cwd=folder,
                 cfg_options=options)
    assert re.search(r'loaded (\d+) of \1 weights from', output)
    losses = [float(loss) for loss in re.findall(r' loss: (\S+)', output)]
    assert len(losses) == 2 and all(math.isfinite(loss) for loss in losses)

    saved = next(tmp_path.glob('iter_2.pth' if 'max_iters=2' in ' '.join(options)
                               else 'epoch_1.pth'))
    trained = torch.load(saved, weights_only=True)['state_dict']
    unchanged = []
    for module in SHARED.get(name, ('backbone', )):
        for key, value in trained.items():
            rest = key[len(module) + 1:]
            if not key.startswith(f'{module}.') or NEW.match(key):
                continue
            if torch.equal(value, weights[rest]) and not rest.endswith(CONSTANT):
                unchanged.append(key)
    # Every layer of the backbone is trained, the stem included, and BN keeps its statistics up.
    assert not unchanged

    output = mim('test', LIBRARY[name], path_of(name), '--checkpoint', saved, '--work-dir',
                 tmp_path / 'test', cwd=folder, cfg_options=options)
    assert METRIC.get(name, 'coco/bbox_mAP_50') in output


# No parameters, and not changed by training.
CONSTANT = ('relative_position_index', 'attn_mask')
