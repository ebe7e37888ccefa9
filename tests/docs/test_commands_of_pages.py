# SPDX-License-Identifier: Apache-2.0
"""The commands that the pages show, word for word, with smaller sizes added at their end."""
import importlib
import re
import shlex
import shutil
from pathlib import Path

import cv2
import pytest
import torch

from pic_plugin.datasets import ImageGrid
from pic_plugin.tools import train as train_tool
from toys.checkpoints import pic_content
from toys.pages import block
from toys.pictures import write_pictures

DEMO = ['train_dataloader.num_workers=0', 'train_dataloader.batch_size=20',
        'train_dataloader.dataset.indices=40', 'train_dataloader.sampler.window_size=20',
        'train_dataloader.sampler.stride=10', 'train_cfg.max_epochs=1',
        'default_hooks.checkpoint.interval=1']
FEWER = ['val_evaluator.topk=5',
         *(f'val_dataloader.dataset.datasets.{i}.indices=50' for i in (0, 1))]
FOLDER = [
    'model.backbone.depth=18', 'model.backbone.stem_channels=8', 'model.backbone.base_channels=8',
    'model.neck.in_channels=64', 'model.neck.hid_channels=8',
    'image_size=32', 'train_dataloader.batch_size=4',
    'train_dataloader.num_workers=0', 'train_dataloader.sampler.window_size=4',
    'train_dataloader.sampler.stride=2', 'default_hooks.checkpoint.interval=1',
    'model.head.num_negatives=5']
#: Figures of few pictures: each takes a good part of a second to draw.
LESS = dict(saliency=['--show', '2'], neighbours=['--num-queries', '2', '--count', '2'])


def run(text, *added, **replaced):
    """Run the commands of a block in this process, with arguments added and words replaced."""
    for line in text.splitlines():
        if not line or re.fullmatch(r'[A-Z]+=\S+|\. .*/bin/activate', line):
            continue  # a variable, of which `replaced` has the value, or the environment
        words = [replaced.get(word.lstrip('$'), word) for word in shlex.split(line)]
        words = [re.sub(r'\$([A-Z]+)', lambda match: replaced[match[1]], word) for word in words]
        assert words[:2] == ['python', '-m'] and words[2].startswith('pic_plugin.tools.'), line
        less = LESS.get(words[2].rsplit('.', 1)[1], ())
        importlib.import_module(words[2]).main([*words[3:], *less, *added])


def write_images(folder):
    """Six pictures of two classes."""
    numbers = [0, 1, 2, 150, 151, 152]
    for number, sample in zip(numbers, ImageGrid('cifar10_test_1000.webp', indices=numbers)):
        file = folder / str(sample['gt_label']) / f'{number}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), sample['img'])
    return str(folder)


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    """A folder as a run of the demo leaves it, of one pass over 40 images."""
    folder = tmp_path_factory.mktemp('demo')
    work_dir = folder / 'work_dirs' / 'pic_demo'
    train_tool.main(['pic_demo.py', '--work-dir', str(work_dir), '--cfg-options', *DEMO, *FEWER])
    (work_dir / 'epoch_1.pth').rename(work_dir / 'epoch_20.pth')
    shutil.copy(work_dir / 'epoch_20.pth', folder)
    shutil.copy(work_dir / 'pic_demo.py', folder / 'of_this_run.py')
    write_images(folder / 'DIR')
    return folder


@pytest.fixture
def in_demo(demo, monkeypatch, work_dir):
    monkeypatch.chdir(demo)
    return demo


def test_demo_is_measured(in_demo, capsys):
    run(block('evaluate-demo').text, '--cfg-options', *FEWER)
    assert 'knn/top1_k5' in capsys.readouterr().out


def test_look_at_the_demo(in_demo):
    pytest.importorskip('sklearn', reason="scikit-learn is missing: pip install '.[analysis]'")
    # The config that this run has left: with the number of images that it has trained on.
    run(block('look-tools').text, '--device', 'cpu', **{'pic_demo.py': 'of_this_run.py'})
    run(block('look-health').text)
    for name in ('saliency', 'neighbours', 'embedding', 'health'):
        assert list(in_demo.glob(f'*/{name}.png')), name


def test_pretrain_and_features(in_demo):
    write_pictures(in_demo / 'DATA', 12)
    (in_demo / 'FOLDER').symlink_to('DIR')
    run(block('own-folder').text, '--backbone', 'resnet18', '--image-size', '32', '--batch-size',
        '2', '--epochs', '1', '--device', 'cpu', '--no-report')
    names: dict = {}
    exec(block('embed').text, names)
    assert names['features'].shape == (6, 512) and len(names['names']) == 6
    assert names['backbone'](torch.rand(2, 3, 32, 32)).shape == (2, 512)


def test_a_folder_from_a_config_and_resume(tmp_path, monkeypatch, work_dir):
    monkeypatch.chdir(tmp_path)
    data = write_images(tmp_path / 'pictures')
    run(block('folder-config').text, '--cfg-options', *FOLDER, 'train_cfg.max_epochs=1',
        DATA=data)
    assert list(Path('work_dirs/from_config').glob('epoch_1.*.bank-0of1'))
    run(block('resume').text, '--work-dir', 'work_dirs/from_config', '--cfg-options', *FOLDER,
        f'train_dataloader.dataset.data_root={data}', 'train_cfg.max_epochs=2',
        CONFIG='pic_folder.py')
    assert torch.load('work_dirs/from_config/epoch_2.pth')['meta']['epoch'] == 2


def test_export(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(pic_content(dict(type='ResNet', depth=18), channels=512), 'epoch_200.pth')
    run(block('export').text)
    for file in tmp_path.glob('pic_resnet50-*.pth'):
        assert set(torch.load(file)) == {'state_dict', 'meta'}
    assert len(list(tmp_path.glob('pic_resnet50-*.pth'))) == 3


def test_make_scenes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(block('make-scenes').text, '--train', '5', '--val', '4')
    pictures = {file.stem for file in tmp_path.rglob('*.jpg')}
    assert sum(name.startswith('test') for name in pictures) == 4
