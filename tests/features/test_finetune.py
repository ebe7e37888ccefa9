# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning from a backbone that knows the classes, beside the same from random weights."""
import os
import re
import shlex
import shutil
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS, MODELS
from PIL import Image

from pic_plugin.analysis.picture_reader import reader_of
from pic_plugin.analysis.scalars import read_run
from pic_plugin.engine import PlainCheckpointHook
from pic_plugin.features.finetune import ADAMW_RATE, BATCH, SGD_RATE, write_finetuning
from pic_plugin.tools import finetune, train
from toys.pages import block
from toys.pictures import write_scans

BACKBONE = dict(type='ResNet', depth=18, stem_channels=16, base_channels=16)


def stripes(number, upright):
    """(32, 32, 3) uint8: stripes of a colour and phase of their own, with noise."""
    rng = np.random.default_rng(number)
    wave = np.sin(np.arange(32) * rng.uniform(0.8, 1.4) + rng.uniform(0, 6))
    colours = 128 + 50 * wave[None, :, None] * rng.uniform(0.3, 1, 3)
    pixels = colours + rng.normal(0, 20, (32, 32, 3))
    pixels = pixels if upright else pixels.transpose(1, 0, 2)
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Of a training on the same kinds of pictures, as PIC leaves it."""
    torch.manual_seed(0)
    network = MODELS.build(BACKBONE)
    network.init_weights()
    head = torch.nn.Linear(128, 2)
    optimizer = torch.optim.SGD([*network.parameters(), *head.parameters()], lr=0.05, momentum=0.9)
    for step in range(60):
        pictures = [stripes(1000 + 16 * step + place, place % 2) for place in range(16)]
        images = (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() - 127) / 60
        loss = torch.nn.functional.cross_entropy(
            head(network(images)[0].mean((2, 3))), torch.arange(16) % 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    cfg = Config(dict(model=dict(type='PIC', backbone=BACKBONE, data_preprocessor=dict(
        mean=[127.0] * 3, std=[60.0] * 3, to_rgb=True)), train_dataloader=dict(
            dataset=dict(pipeline=[dict(type='DecodeRandomCrop', size=32)]))))
    file = tmp_path_factory.mktemp('run') / 'epoch_1.pth'
    torch.save(dict(state_dict={f'backbone.{name}': value for name, value in
                                network.state_dict().items()},
                    meta=dict(cfg=cfg.pretty_text)), file)
    return file


def write_stripes(pictures):
    """24 pictures of each of two classes, and one that is none."""
    for upright, name in enumerate(('lying', 'standing')):
        folder = pictures / name
        folder.mkdir(parents=True)
        for number in range(24):
            Image.fromarray(stripes(number, upright)).save(folder / f'{number}.png')
    (folder / 'broken.png').write_bytes(b'x')
    return pictures


@pytest.fixture
def labelled(tmp_path):
    """Pictures below a folder with a blank."""
    return write_stripes(tmp_path / 'my pictures')


def test_better_than_from_random_weights(checkpoint, labelled, work_dir, capsys, monkeypatch):
    # Both start in the same second, from which mmengine makes names of its own.
    monkeypatch.setattr('mmengine.runner.runner.time', SimpleNamespace(
        time=lambda: 1.7e9, localtime=time.localtime, strftime=time.strftime))
    accuracies = {}
    for name, more in (('trained', []), ('random', ['--random'])):
        finetune.main([str(checkpoint), str(labelled), '--out', str(work_dir / name),
                       '--epochs', '2', '--batch-size', '8', *more])
        accuracies[name] = read_run(work_dir / name).curves['accuracy/top1'][-1][1]
        text = capsys.readouterr().out
        assert f'finetune: {accuracies[name]:.1f} %' in text and '1 picture of ' in text
        assert f'classifier: {work_dir / name / "epoch_2.pth"}' in text
    assert accuracies['trained'] > 90 and accuracies['trained'] > accuracies['random'] + 20
    cfg = Config.fromfile(work_dir / 'trained' / 'finetune.py')
    assert cfg.model.type == 'ImageClassifier' and cfg.optim_wrapper.optimizer.type == 'SGD'
    # Nobody learns from what is measured on.
    train, val = ({line.rsplit(' ', 1)[0] for line in
                   (work_dir / 'trained' / f'{part}.txt').read_text().splitlines()}
                  for part in ('train', 'val'))
    assert len(train) == len(val) == 24 and not train & val


def weights(folder, epoch=2):
    return torch.load(folder / f'epoch_{epoch}.pth')['state_dict']


@pytest.fixture(scope='module')
def whole(checkpoint, tmp_path_factory):
    """The folder of two epochs, in three steps each, without a pause."""
    work = tmp_path_factory.mktemp('whole')
    finetune.main([str(checkpoint), str(write_stripes(work / 'pictures')), '--out',
                   str(work / 'run'), '--epochs', '2', '--batch-size', '8'])
    return work / 'run'


def test_it_is_saved_after_each_epoch_and_goes_on_exactly(whole, tmp_path):
    expected, config = weights(whole), (whole / 'finetune.py').read_text()
    run = tmp_path / 'run'
    shutil.copytree(whole, run)
    (run / 'epoch_2.pth').unlink()  # as one that was killed in its second epoch
    (run / 'last_checkpoint').write_text(str(run / 'epoch_1.pth'))
    train.main([str(run / 'finetune.py'), '--work-dir', str(run), '--resume'])
    assert all(torch.equal(expected[name], value) for name, value in weights(run).items())
    assert (run / 'finetune.py').read_text() == config
    places, values = zip(*read_run(run).curves['accuracy/top1'])
    assert places == (24, 48) and values == tuple(
        value for _, value in read_run(whole).curves['accuracy/top1'])


def test_the_lines_that_the_page_shows(whole, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, tmp_path / 'work_dirs' / 'classifier')
    (tmp_path / 'work_dirs' / 'classifier' / 'epoch_2.pth').rename(
        tmp_path / 'work_dirs' / 'classifier' / 'epoch_20.pth')
    for upright, name in enumerate(('one.jpg', 'two.jpg')):
        Image.fromarray(stripes(100, upright)).save(name, quality=95)
    exec(block('use-the-classifier').text, {})
    printed = re.findall(r'(lying|standing) 0\.\d+\n', capsys.readouterr().out)
    assert printed == ['lying', 'standing']


def test_ctrl_c_saves_and_says_how_to_go_on(checkpoint, labelled, tmp_path, capsys, monkeypatch):
    def signal_once(hook, runner, batch_idx, data_batch=None):
        monkeypatch.undo()
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(PlainCheckpointHook, 'before_train_iter', signal_once)
    out = tmp_path / 'my run'
    command = [str(checkpoint), str(labelled), '--out', str(out), '--epochs', '1',
               '--batch-size', '8']
    with pytest.raises(SystemExit) as ended:
        finetune.main(command)
    assert ended.value.code == 130 and (out / 'interrupted.pth').is_file()
    printed = capsys.readouterr().out
    go_on = f"python -m pic_plugin.tools.train '{out}/finetune.py' --work-dir '{out}' --resume"
    assert go_on in printed and 'the same command' not in printed
    with pytest.raises(SystemExit, match='holds a fine-tuning') as refused:
        finetune.main(command)
    assert go_on in str(refused.value.code)
    train.main(shlex.split(go_on)[3:])
    assert (out / 'epoch_1.pth').is_file() and read_run(out).curves['accuracy/top1']


def test_what_is_wrong_is_said(checkpoint, labelled, tmp_path):
    def failure(*arguments):
        with pytest.raises(SystemExit) as error:
            finetune.main([str(one) for one in arguments])
        return str(error.value.code)

    assert 'there are no labels' in failure(checkpoint, tmp_path / 'none', '--out', tmp_path / 'a')
    assert 'is not an empty folder' in failure(checkpoint, labelled, '--out', labelled)
    assert 'epochs must be at least 1' in failure(checkpoint, labelled, '--out', tmp_path / 'a',
                                                  '--epochs', 0)
    assert not (tmp_path / 'a').exists()


def test_names_of_classes_stay_in_their_comment(checkpoint, tmp_path):
    pictures = os.fsencode(tmp_path / 'pictures')
    for name in (b'caf\xe9', b'tea'):
        os.makedirs(pictures + b'/' + name)
        for number in range(4):
            Image.fromarray(stripes(number, True)).save(
                tmp_path / os.fsdecode(pictures + b'/' + name + b'/%d.png' % number))
    labels = tmp_path / 'labels.csv'
    labels.write_text(''.join(f'pictures/tea/{number}.png,"{name}"\n' for number, name in enumerate(
        ['x\nraise SystemExit', 'y'] * 2)))
    for number, source in enumerate((tmp_path / 'pictures', labels)):
        config = write_finetuning(checkpoint, source, tmp_path / str(number))
        assert Config.fromfile(config).model.head.num_classes == 2


def test_the_range_of_a_network_of_another_depth(tmp_path):
    """Its pixels are cut off as in the pre-training, and tools read what it has become."""
    backbone, value_range = dict(BACKBONE, in_channels=1), (1050, 1200)
    cfg = Config(dict(model=dict(type='PIC', backbone=backbone, data_preprocessor=dict(
        type='AugmentPreprocessor', mean=[1100.0], std=[70.0], value_range=value_range)),
        train_dataloader=dict(dataset=dict(pipeline=[
            dict(type='DecodeRandomCrop', size=32, channels=1, depth='own')]))))
    file = tmp_path / 'scans.pth'
    torch.save(dict(state_dict={f'backbone.{name}': value for name, value in
                                MODELS.build(backbone).state_dict().items()},
                    meta=dict(cfg=cfg.pretty_text)), file)
    for name in 'ab':
        write_scans(tmp_path / 'scans' / name, 4)
    made = Config.fromfile(write_finetuning(file, tmp_path / 'scans', tmp_path / 'run'))
    for loader in (made.train_dataloader, made.val_dataloader):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            pixels = DATASETS.build(loader.dataset)[0]['inputs'].float()
        assert value_range[0] <= pixels.min() < pixels.max() == value_range[1]
    assert reader_of(made) == reader_of(cfg)


def test_the_rate_is_that_of_the_batch(checkpoint, labelled, tmp_path):
    """There are 24 pictures to learn from."""
    cfg = Config.fromfile(write_finetuning(checkpoint, labelled, tmp_path / 'run', batch_size=1024))
    assert cfg.train_dataloader.batch_size == 24
    assert cfg.optim_wrapper.optimizer.lr == SGD_RATE * 24 / BATCH


def test_transformers_have_adamw_and_no_pooling(labelled, work_dir, tmp_path):
    backbone = dict(type='VisionTransformer', img_size=32, patch_size=8, arch=dict(
        embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64))
    network = MODELS.build(backbone)
    cfg = Config(dict(model=dict(type='PIC', backbone=backbone), train_dataloader=dict(
        dataset=dict(pipeline=[dict(type='DecodeRandomCrop', size=32)]))))
    file = tmp_path / 'vit.pth'
    torch.save(dict(state_dict={f'backbone.{name}': value for name, value in
                                network.state_dict().items()},
                    meta=dict(cfg=cfg.pretty_text)), file)
    finetune.main([str(file), str(labelled), '--out', str(work_dir / 'run'), '--epochs', '1',
                   '--batch-size', '8'])
    cfg = Config.fromfile(work_dir / 'run' / 'finetune.py')
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=ADAMW_RATE * 8 / BATCH,
                                               weight_decay=0.05)
    assert cfg.model.neck is None and cfg.model.head.in_channels == 32
    trained = torch.load(work_dir / 'run' / 'epoch_1.pth')['state_dict']
    before = network.state_dict()
    moved = {name: (trained[f'backbone.{name}'] - value).abs().max() for name, value in
             before.items()}
    # AdamW moves a weight by about the rate in each of the three steps: they are those of the file.
    assert 0 < max(moved.values()) < 4 * ADAMW_RATE
