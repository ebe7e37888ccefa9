# SPDX-License-Identifier: Apache-2.0
"""The report and the map on real pictures, and with parts missing."""
import csv
import json
import re
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import MODELS

from pic_plugin.analysis import report
from pic_plugin.analysis.inputs import network_name
from pic_plugin.analysis.work_folder import earlier_checkpoints
from pic_plugin.datasets import ImageGrid
from pic_plugin.engine.config_file import find_config
from pic_plugin.tools import embedding
from pic_plugin.tools.report import main

pytest.importorskip('sklearn', reason="scikit-learn is not installed: pip install '.[analysis]'")


@pytest.fixture(autouse=True)
def few_neighbours(monkeypatch):
    """A figure with a hundred thumbnails takes longer than all the rest."""
    monkeypatch.setattr(report, 'QUERIES', 3)
    monkeypatch.setattr(report, 'NEIGHBOURS', 3)


def write_run(folder, checkpoint=True):
    """A work folder as mmengine leaves it, with random weights."""
    cfg = Config.fromfile(find_config('pic_demo.py'))
    vis_data = folder / '20250101_000000' / 'vis_data'
    vis_data.mkdir(parents=True)
    (vis_data / 'config.py').write_text(cfg.pretty_text)
    lines = [dict(loss=8.0, lr=0.1, iter=1), dict(loss=7.0, lr=0.1, iter=2), {'knn/top1_k20': 30.0}]
    (vis_data / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    if checkpoint:
        model = MODELS.build(cfg.model)
        for name in ('epoch_9.pth', 'epoch_10.pth'):
            torch.save(dict(state_dict=model.state_dict()), folder / name)
    return folder


def train_run(folder):
    """A work folder of a real training: two checkpoints, with class weights."""
    cfg = Config({name: value for name, value in runpy.run_path(
        str(Path(__file__).with_name('tiny_config.py'))).items() if not name.startswith('__')})
    cfg.train_dataloader.collate_fn = cfg.val_dataloader.collate_fn = dict(type='default_collate')
    cfg.work_dir = str(folder)
    Runner.from_cfg(cfg).train()
    return folder


def write_images(folder, numbers, by_class=True):
    for number, sample in zip(numbers, ImageGrid('cifar10_test_1000.webp', indices=numbers)):
        file = folder / (str(sample['gt_label']) if by_class else '') / f'{number}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), sample['img'])
    return folder


def make(work_dir, *arguments):
    main([str(work_dir), '--device', 'cpu', '--saliency-images', '3', *map(str, arguments)])
    return (work_dir / 'report' / 'report.html').read_text(encoding='utf-8')


def test_everything_that_can_be_had(tmp_path, capsys):
    images = write_images(tmp_path / 'images', [0, 1, 2, 150, 151, 152])
    (images / '0' / 'broken.png').write_bytes(b'x')
    (images / '0' / 'raw.nef').write_bytes(b'x')
    cv2.imwrite(str(images / '1' / 'tiny.png'), np.zeros((2, 5, 3), np.uint8))
    page = make(train_run(tmp_path / 'run'), '--images', images, '--side', '32')
    assert 'Not drawn' not in page and 'Only one checkpoint' not in page
    assert 'those of the 40 whose class weights' in page and '<td>epoch_1</td>' in page
    assert 'broken.png' in page and 'not a picture that OpenCV can decode' in page
    err = capsys.readouterr().err
    assert 'report: left out 0/broken.png' in err and 'raw.nef' in err
    assert page.count('<path class="dot"') == 7 and 'What it means and what helps' in page
    # One file: every address is a part of the page or its own data.
    assert not re.findall(r'(?:src|href|srcset)="(?!data:|#)[^"]*"', page)
    for name in ('health', 'saliency', 'overlap', 'series', 'neighbours', 'class_weights',
                 'embedding'):
        assert cv2.imread(str(tmp_path / 'run' / 'report' / f'{name}.png')).std() > 2
        assert '<svg' in (tmp_path / 'run' / 'report' / f'{name}.svg').read_text()


def test_one_picture_without_label(tmp_path):
    images = write_images(tmp_path / 'images', [7], by_class=False)
    page = make(write_run(tmp_path / 'run'), '--images', images)
    assert page.count('Not drawn') == 2 and 'one picture has no neighbours' in page
    assert 'epoch_10.pth has no class weights' in page  # of a training of something else
    assert 'there are no labels' in page and page.count('<path class="dot"') == 1


def test_without_checkpoint_curves_are_drawn(tmp_path, capsys):
    page = make(write_run(tmp_path / 'run', checkpoint=False))
    assert 'report: nearest pictures ...' in capsys.readouterr().err
    assert page.count('Not drawn') == 4 and 'name the file of a checkpoint' in page
    assert 'loss from 8 to 7' in page


def test_without_scalars_the_rest_is_drawn(tmp_path):
    run = write_run(tmp_path / 'run')
    (run / '20250101_000000' / 'vis_data' / 'scalars.json').unlink()
    page = make(run, '--num-images', '12')
    assert page.count('Not drawn') == 3 and 'LocalVisBackend' in page
    assert page.count('<path class="dot"') == 12


@pytest.mark.parametrize('lines, reason', [
    ("custom_imports = dict(imports=['of_my_own'], allow_failed_imports=False)", 'of_my_own'),
    ("test_dataloader = dict(dataset=dict(type='OfMyOwn'))", 'OfMyOwn is not in')])
def test_a_run_of_code_that_is_not_at_hand_has_its_curves(tmp_path, lines, reason):
    run = write_run(tmp_path / 'run', checkpoint=False)
    with open(run / '20250101_000000' / 'vis_data' / 'config.py', 'a') as stream:
        stream.write(f'\n{lines}\n')
    page = make(run)
    assert page.count('Not drawn') == 4 and reason in page and 'loss from 8 to 7' in page


def test_where_the_evaluated_pictures_are_gone_the_page_says_whose_it_shows(tmp_path):
    run = write_run(tmp_path / 'run')
    with open(run / '20250101_000000' / 'vis_data' / 'config.py', 'a') as stream:
        stream.write("\ntest_dataloader = dict(dataset=dict(type='CustomDataset', "
                     "data_root='gone'))\n")
    page = make(run, '--num-images', '6')
    assert 'these are those of its training' in page and page.count('<path class="dot"') == 6


def test_a_config_by_name_tells_the_verdicts_what_it_knows(tmp_path):
    run = write_run(tmp_path / 'run', checkpoint=False)
    file = run / '20250101_000000' / 'vis_data' / 'scalars.json'
    file.write_text('\n'.join(json.dumps(dict(time=1.0, data_time=0.9, iter=number))
                              for number in range(1, 7)))
    (file.parent / 'config.py').unlink()
    workers = Config.fromfile(find_config('pic_demo.py')).train_dataloader.num_workers
    assert f'The loader has {workers} worker' in make(run, '--config', 'pic_demo.py')


def test_a_full_gpu_leaves_the_curves(tmp_path, monkeypatch):
    def full(*arguments):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr('pic_plugin.analysis.report.extract', full)
    page = make(write_run(tmp_path / 'run'))
    assert page.count('CUDA out of memory') == 4 and 'loss from 8 to 7' in page


def test_a_device_that_is_not_there_is_said_once(tmp_path):
    with pytest.raises(SystemExit, match="report: torch cannot use the device 'cuda'"):
        make(write_run(tmp_path / 'run'), '--device', 'cuda')
    assert not (tmp_path / 'run' / 'report').exists()


def test_a_network_that_says_the_same_of_all_pictures(tmp_path, capsys):
    run = write_run(tmp_path / 'run')
    content = torch.load(run / 'epoch_10.pth')
    content['state_dict'] = {name: torch.zeros_like(value)
                             for name, value in content['state_dict'].items()}
    torch.save(content, run / 'epoch_10.pth')
    page = make(run, '--num-images', '12')
    assert 'the features of all 12 pictures are the same' in page
    assert page.count('Not drawn') == 2 and 'Overlap in each picture' in page
    with pytest.raises(SystemExit, match='embedding: the features of all 12 pictures'):
        embedding.main(['pic_demo.py', str(run / 'epoch_10.pth'), '--num-images', '12',
                        '--device', 'cpu', '--out', str(tmp_path / 'map')])


@pytest.mark.parametrize('name, missing', [('extract', 4), ('draw_health', 2)])
def test_an_unexpected_error_leaves_the_rest(tmp_path, monkeypatch, capsys, name, missing):
    def fails(*arguments):
        raise RuntimeError('of all things')

    monkeypatch.setattr(f'pic_plugin.analysis.report.{name}', fails)
    page = make(write_run(tmp_path / 'run'), '--num-images', '12')
    assert page.count('Not drawn') == missing and 'RuntimeError: of all things' in page
    assert 'in fails' in capsys.readouterr().err


def test_earlier_checkpoints_are_by_number(tmp_path):
    for name in ('epoch_9.pth', 'epoch_10.pth', 'best_knn.pth'):
        (tmp_path / name).touch()
    for number in (1, 2, 3, 4):
        (tmp_path / f'epoch_{number}.pth').touch()
    assert [file.name for file in earlier_checkpoints(tmp_path / 'epoch_10.pth', 3)] == [
        'epoch_1.pth', 'epoch_2.pth', 'epoch_4.pth']
    assert earlier_checkpoints(tmp_path / 'epoch_1.pth', 3) == []
    assert earlier_checkpoints(tmp_path / 'best_knn.pth', 3) == []
    assert [file.name for file in earlier_checkpoints(tmp_path / 'interrupted.pth', 2)] == [
        'epoch_1.pth', 'epoch_4.pth']
    assert network_name(str(tmp_path / 'a' / 'epoch_30.pth')) == 'a/epoch_30'
    assert (network_name('supervised.pth'), network_name('random')) == ('supervised', 'random')
    with pytest.raises(SystemExit, match='no folder'):
        main([str(tmp_path / 'missing')])


def test_map_by_cluster(tmp_path):
    embedding.main(['pic_demo.py', 'random', '--num-images', '12', '--clusters', '2', '--out',
                    str(tmp_path), '--device', 'cpu'])
    with open(tmp_path / 'embedding.csv', newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12 and {row['group'] for row in rows} == {'cluster 1', 'cluster 2'}
    assert (tmp_path / 'embedding.html').read_text().count('<path class="dot"') == 12
