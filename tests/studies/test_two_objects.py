# SPDX-License-Identifier: Apache-2.0
"""Pictures of two objects, and networks that look at one half or at both."""
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS, MODELS

from pic_plugin.analysis.images import FolderImages
from pic_plugin.analysis.network import Network
from pic_plugin.analysis.saliency_study import measure, occlusion
from pic_plugin.engine.config_file import find_config
from pic_plugin.studies.two_objects import GREY, PairedImages, balance
from pic_plugin.tools.two_objects import main
from toys.networks import Watcher, write_pictures


def test_pairs_are_of_different_classes_and_lie_in_their_halves(tmp_path):
    single = FolderImages(write_pictures(tmp_path, [(16, 16)] * 6))
    pairs = PairedImages(single, 16, 20)
    assert pairs.pairs == PairedImages(single, 16, 20).pairs
    assert all(single.labels[first] != single.labels[second] for first, second in pairs.pairs)
    first, second = pairs.pairs[3]
    picture = pairs.read(3)
    assert picture.shape == (32, 32, 3)
    assert (picture[8:24, :16] == single.read(first)).all()
    assert (picture[8:24, 16:] == single.read(second)).all()
    assert (picture[:8] == GREY).all() and (picture[24:] == GREY).all()


def test_networks_of_one_name_are_told_apart(tmp_path):
    """The results are by name."""
    with pytest.raises(SystemExit, match='two networks have one name .random, random.: give --na'):
        main(['pic_demo.py', 'random', 'random', '--images',
              str(write_pictures(tmp_path, [(32, 32)] * 4)), '--out', str(tmp_path / 'out'),
              '--device', 'cpu'])


def test_balance_tells_one_half_from_both(tmp_path):
    pairs = PairedImages(FolderImages(write_pictures(tmp_path, [(16, 16)] * 4)), 16, 3)
    settings = occlusion(32, patch=4, stride=2)
    left, both = Network(Watcher(10, 1, 10)), Network(Watcher(0, 0, 32))
    _, (one_sided, even) = measure([left, both], pairs, range(3), settings)
    assert balance(settings.maps(one_sided)).max() < 0.01
    assert balance(settings.maps(even)).min() > 0.8
    assert balance(torch.zeros(1, 4, 4)).isnan().all()
    maps = torch.ones(1, 8, 8)
    maps[:, 2:6, 4:] = 3.0  # 16 and 48 on the pictures, 16 and 16 on the grey
    assert balance(maps).item() == 0.5
    with pytest.raises(ValueError, match='two classes'):
        PairedImages(FolderImages(write_pictures(tmp_path / 'a', [(8, 8)], ['cat'])), 8, 1)


def test_tool(tmp_path):
    main(['pic_demo.py', 'random', 'random', '--names', 'a', 'b', '--pairs', '2', '--out',
          str(tmp_path), '--device', 'cpu'])
    content = json.loads((tmp_path / 'two_objects.json').read_text())
    assert content['balance']['a'] == content['balance']['b']
    assert 0 < content['balance']['a']['mean'] <= 1
    assert content['difference_to_first']['b'] == dict(pairs=2, mean=0, standard_error=0)


def test_config_of_the_supervised_twin(work_dir):
    """One step; and its backbone is the demo's, so that only the training differs."""
    init_default_scope('mmpretrain')
    cfg = Config.fromfile(find_config('supervised_demo.py'))
    demo = Config.fromfile(find_config('pic_saliency.py'))
    assert cfg.model.backbone == demo.model.backbone
    # PIC's device does what the twin's host does.
    crop, views = demo.train_dataloader.dataset.pipeline[0], demo.model.data_preprocessor.views
    steps = {step.type.rpartition('/')[2]: step for step in cfg.train_dataloader.dataset.pipeline}
    assert (steps['RandomResizedCrop'].size, steps['RandomResizedCrop'].scale) == (
        crop.size, crop.scale)
    jitter, = steps['RandomApply'].transforms
    assert {**jitter, 'type': None, 'prob': steps['RandomApply'].prob} == {
        **views.jitter, 'type': None}
    assert (steps['RandomGrayscale'].p, steps['RandomFlip'].prob) == (views.grey, views.flip)
    assert views.blur is None
    assert cfg.train_cfg == demo.train_cfg
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    samples = [dataset[0], dataset[4999]]
    model = MODELS.build(cfg.model)
    data = model.data_preprocessor(dict(
        inputs=[sample['inputs'] for sample in samples],
        data_samples=[sample['data_samples'] for sample in samples]), True)
    loss = model(**data, mode='loss')['loss']
    loss.backward()
    assert torch.isfinite(loss) and model.backbone.conv1.weight.grad.abs().max() > 0
