# SPDX-License-Identifier: Apache-2.0
"""The command on a small folder: trains, stops, goes on, and says in one line what is wrong."""
import errno
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import TRANSFORMS

import pic_plugin
from pic_plugin.pretrain import measure, rules, run
from pic_plugin.pretrain.prepare import is_out_of_memory
from pic_plugin.pretrain.progress import ProgressHook
from pic_plugin.tools import pretrain, train
from toys.interrupts import interrupt_after_reader
from toys.pictures import write_classes, write_pictures, write_scans

SMALL = ['--backbone', 'resnet18', '--image-size', '32', '--batch-size', '8', '--device', 'cpu',
         '--no-report']


@pytest.fixture
def data(tmp_path):
    """48 pictures in a folder with a blank and an umlaut."""
    return write_pictures(tmp_path / 'my pictures ü', 48)


@pytest.fixture
def lines(monkeypatch):
    """What is printed; progress after every step."""
    said = []
    monkeypatch.setattr(pretrain, 'say', said.append)
    monkeypatch.setattr(run, 'ProgressHook', lambda say: ProgressHook(say, 0.0))
    return said


def call(*arguments):
    pretrain.main([str(one) for one in arguments])


def failure(*arguments):
    with pytest.raises(SystemExit) as error:
        call(*arguments)
    message = str(error.value.code)
    assert '\n' not in message and message.startswith('pretrain: ')
    return message


def files_in(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob('*')
            if path.is_file()}


def test_from_a_folder_to_features(data, work_dir, lines, quick):
    labels = write_classes(data.parent / 'labelled')
    call(data, '--out', work_dir, *SMALL, '--epochs', 2, '--labels', labels)
    text = '\n'.join(lines)
    assert 'images                      48' in text and 'windows of 24' in text
    assert 'resnet18' in text and 'Expected: 12 steps' in text
    assert '96 of 96 images (100 %)' in text
    assert 'with random weights' in text and 'loaded 120 of 120 into torchvision resnet18' in text
    assert (work_dir / 'epoch_2.pth').is_file()
    features, names = pic_plugin.embed(data, work_dir)
    assert features.shape == (48, 512) and names[0] == '0000.png'
    # The exported file is the trained network.
    exported = next(work_dir.glob('backbone-*.pth'))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(pic_plugin.load_backbone(exported)(images),
                       pic_plugin.load_backbone(work_dir / 'epoch_2.pth')(images))


def test_names_that_are_not_utf8(tmp_path, capsys, monkeypatch, quick):
    """pytest's output takes no surrogates, as that of a terminal."""
    monkeypatch.chdir(tmp_path)
    data = write_pictures(tmp_path / os.fsdecode(b'caf\xe9'), 16)
    call(data, *SMALL, '--epochs', 1)
    assert rf'16 images in {tmp_path}/caf\xe9 (' in capsys.readouterr().out
    work = tmp_path / 'work_dirs' / 'pretrain_caf_'
    assert (work / 'epoch_1.pth').is_file()
    network = shutil.copytree(work, tmp_path / os.fsdecode(b'r\xe9seau'))
    call(data, '--from', network, '--out', 'further', '--device', 'cpu', '--image-size', 32,
         '--batch-size', 8, '--epochs', 1, '--dry-run')
    assert r'with the weights of' in capsys.readouterr().out
    assert rf'{tmp_path}/r\xe9seau is not UTF-8' in failure(data, '--out', network, '--resume')


def test_scans_keep_their_grey_levels(tmp_path, work_dir, lines, quick):
    data = write_scans(tmp_path / 'scans', 16)
    call(data, '--out', work_dir, *SMALL, '--epochs', 1)
    assert any('uint16 from 1003 to 1241' in line for line in lines)
    # What the training has seen, without augmentation.
    cfg = Config.fromfile(work_dir / 'pretrain.py')
    crop = cfg.train_dataloader.dataset.pipeline[0]
    load = TRANSFORMS.build(dict(type='DecodeImage', value_range=crop.value_range))
    pixels = load(dict(img_path=str(data / '00.png')))['img']
    assert pixels.dtype == np.uint8 and len(np.unique(pixels)) > 200
    assert (work_dir / 'epoch_1.pth').is_file()


def test_a_corrected_mistake_is_taken(data, work_dir, lines, quick):
    """What the first call had written does not stand in the way of the next."""
    for wrong in (('--labels', 'nosuch.csv'), ('--batch-size', 4096)):
        with pytest.raises(SystemExit):
            call(data, '--out', work_dir, *SMALL, *wrong, '--epochs', 1, '--dry-run')
    call(data, '--out', work_dir, *SMALL, '--epochs', 1, '--dry-run')


def test_the_reasons_stay_in_the_config(data, work_dir, lines, quick):
    call(data, '--out', work_dir, *SMALL, '--epochs', 1, '--dry-run')
    before = (work_dir / 'pretrain.py').read_text()
    assert '# Why these values' in before
    call(data, '--out', work_dir, *SMALL, '--epochs', 1)
    assert (work_dir / 'pretrain.py').read_text() == before


def test_a_dry_run_writes_what_train_takes(data, work_dir, lines, quick):
    call(data, '--out', work_dir, *SMALL, '--epochs', 1, '--dry-run')
    assert not list(work_dir.glob('*.pth'))
    assert Config.fromfile(work_dir / 'pretrain.py').train_dataloader.sampler.window_size == 24
    train.main([str(work_dir / 'pretrain.py'), '--work-dir', str(work_dir / 'by_train')])
    assert (work_dir / 'by_train' / 'epoch_1.pth').is_file()
    assert '--dry-run' in lines[-1]


class SendAt(list):
    """Lines, the one that begins in this way followed by a signal."""

    def __init__(self, beginning, number):
        super().__init__()
        self.beginning, self.number = beginning, number

    def append(self, line):
        super().append(line)
        if line.startswith(self.beginning):
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(data, work_dir, lines, quick, monkeypatch, number):
    said = SendAt('24 of 96 images', number)
    monkeypatch.setattr(pretrain, 'say', said.append)
    with pytest.raises(SystemExit) as ended:
        call(data, '--out', work_dir, *SMALL, '--epochs', 2)
    assert ended.value.code == 128 + number
    assert 'stopped after 32 images' in said[-1] or 'stopped after 24 images' in said[-1]
    assert '--resume' in said[-1] and "'" in said[-1]  # the blank is quoted
    assert (work_dir / 'last_checkpoint').read_text() == str(work_dir / 'interrupted.pth')
    # The handlers of before are back.
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    forget_runners()
    # The same command, with the options that it began with.
    call(data, '--out', work_dir, *SMALL, '--epochs', 2, '--resume')
    assert (work_dir / 'epoch_2.pth').is_file()
    assert any('Going on with' in line for line in said)


def test_a_signal_in_an_evaluation(data, work_dir, lines, quick, monkeypatch):
    said = SendAt('labels (epoch 1, 48 images)', signal.SIGINT)
    monkeypatch.setattr(pretrain, 'say', said.append)
    with pytest.raises(SystemExit):
        call(data, '--out', work_dir, *SMALL, '--epochs', 2, '--labels',
             write_classes(data.parent / 'labelled'))
    assert 'stopped after 48 images' in said[-1]


ENDLESS = """
from pic_plugin.pretrain import measure, run
from pic_plugin.pretrain.progress import ProgressHook
from pic_plugin.tools import pretrain
measure.LOADER_SECONDS = measure.STEP_SECONDS = 0.0
run.ProgressHook = lambda say: ProgressHook(say, 0.0)
pretrain.main({arguments!r})
"""


@pytest.mark.parametrize('apart', [False, True])
def test_what_reads_the_output_may_end_first(data, work_dir, apart):
    """A line of progress is due in every step, and nobody is there to read it."""
    errors = data.parent / 'errors.txt' if apart else None
    code = ENDLESS.format(arguments=[str(data), '--out', str(work_dir), *SMALL, '--epochs', '9999'])
    status = interrupt_after_reader(code, 'waiting for pictures', errors)
    assert status == 130
    assert (work_dir / 'last_checkpoint').read_text() == str(work_dir / 'interrupted.pth')
    if apart:
        text = errors.read_text()
        assert 'Traceback' not in text and f'--out {work_dir} --resume' in text


def forget_runners():
    """A second Runner of the same second would take over the first one's logger."""
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.visualization import Visualizer
    for manager in (MMLogger, MessageHub, Visualizer):
        manager._instance_dict.clear()


def test_another_call_overwrites_nothing(data, work_dir, lines, quick):
    call(data, '--out', work_dir, *SMALL, '--images-seen', 16)
    before = files_in(work_dir)
    assert 'add --resume' in failure(data, '--out', work_dir, *SMALL, '--epochs', 1)
    other = write_pictures(data.parent / 'other', 10)
    assert 'is the work folder of' in failure(other, '--out', work_dir, *SMALL)
    assert 'and 38 of its 48 pictures, such as ' in failure(other, '--out', work_dir, '--resume')
    same_names = write_pictures(data.parent / 'same names', 48, side=40)
    assert 'and files of these sizes are not in' in failure(
        same_names, '--out', work_dir, '--resume')
    assert f'did not begin with --epochs 5: leave that out. To train further, begin with its ' \
        f"network: pretrain '{data}' --from {work_dir} --out NEW." in failure(
            data, '--out', work_dir, '--resume', '--epochs', 5)
    assert 'did not begin with --seed 5' in failure(
        data, '--out', work_dir, '--resume', '--seed', 5)
    assert 'further' not in failure(data, '--out', work_dir, '--resume', '--image-size', 64)
    assert files_in(work_dir) == before


def test_a_checkpoint_that_cannot_be_gone_on_with(data, work_dir, lines, quick, monkeypatch):
    monkeypatch.setattr(rules, 'AUTHORS_NEGATIVES', 16)
    call(data, '--out', work_dir, *SMALL, '--epochs', 1)
    bank = next(work_dir.glob('*.bank-0of1'))
    bank.unlink()
    forget_runners()
    assert f'{bank} cannot be read' in failure(data, '--out', work_dir, '--resume')
    checkpoint = work_dir / 'epoch_1.pth'
    content = torch.load(checkpoint)
    torch.save({**content, 'of a class': measure.Speed(1, 1, 1)}, checkpoint)
    forget_runners()
    assert 'holds Python objects' in failure(data, '--out', work_dir, '--resume')


@pytest.mark.parametrize('arguments, message', [
    (['--epochs', '0'], '--epochs must be more than 0, not 0'),
    (['--epochs', '1', '--budget', '2h'], '--epochs and --budget both say'),
    (['--backbone', 'resnett18'], 'there is no backbone resnett18: the nearest names are resnet18'),
    (['--device', 'tpu'], '--device is cuda, mps or cpu, not tpu'),
    (['--device', 'cuda:1'], 'CUDA_VISIBLE_DEVICES=1'),
    (['--batch-size', '49'], 'more than the 48 pictures'),
    (['--labels', '/nowhere'], 'there are no labels /nowhere'),
    (['--resume'], 'holds no run of pretrain'),
])
def test_one_line_for_what_is_wrong(data, work_dir, lines, quick, arguments, message):
    assert message in failure(data, '--out', work_dir, *arguments)
    assert not list(work_dir.glob('*.p*')) or list(work_dir.glob('*')) == [
        work_dir / 'pictures.txt']


def test_a_bug_keeps_its_traceback(data, work_dir, lines, quick, monkeypatch):
    monkeypatch.setattr('pic_plugin.pretrain.rules.SHORT_STEPS', -1)
    with pytest.raises(ValueError, match='math domain error|positive input'):
        call(data, '--out', work_dir, *SMALL, '--epochs', 1, '--dry-run')


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_cuda_without_a_gpu(data, work_dir):
    assert '--device cuda, but torch finds no GPU' in failure(
        data, '--out', work_dir, '--device', 'cuda')


def test_folders_that_cannot_be_trained_on(tmp_path, work_dir):
    empty = tmp_path / 'empty'
    empty.mkdir()
    assert 'it is empty' in failure(empty, '--out', work_dir)
    assert 'there is no folder' in failure(tmp_path / 'missing', '--out', work_dir)
    three = write_pictures(tmp_path / 'three', 3)
    assert 'has only 3 pictures' in failure(three, '--out', work_dir)
    assert not work_dir.exists()


def test_a_place_that_cannot_be_written(data, lines, quick):
    file = data.parent / 'file'
    file.touch()
    assert 'cannot be written (Not a directory)' in failure(data, '--out', file / 'run', *SMALL)


@pytest.mark.parametrize('place, message', [
    ('labels.csv', 'cannot be read (Permission denied).'),
    ('', 'cannot be read (Permission denied).'),  # the pictures, in whose folder --out is
    ('runs', 'cannot be written (Permission denied): give another --out.'),
    ('runs/mine/pretrain.py', 'cannot be written (Permission denied): give another --out.')])
def test_a_file_that_cannot_be_read_or_written(data, monkeypatch, place, message):
    """Root may do everything: the answer of the system is what is tried."""
    def refuse(*arguments):
        raise PermissionError(errno.EACCES, 'Permission denied', str(data / place))

    monkeypatch.setattr(pretrain, 'prepare', refuse)
    assert failure(data, '--out', data / 'runs' / 'mine') == (
        f'pretrain: {data / place} {message}')


@pytest.mark.parametrize('say_labels', [False, True])
def test_pictures_and_work_folder_that_moved(tmp_path, work_dir, lines, quick, say_labels):
    """The labelled pictures are the pictures themselves."""
    data = write_classes(tmp_path / 'my pictures ü', 24)
    call(data, '--out', work_dir, *SMALL, '--epochs', 2, '--labels', data)
    weights = torch.load(work_dir / 'epoch_2.pth')['state_dict']
    moved = data.rename(data.parent / "where it's now")
    work = work_dir.rename(data.parent / "mother's run")
    (work / 'epoch_2.pth').unlink()
    forget_runners()
    lines.clear()
    call(moved, '--out', work, *SMALL, '--resume', *(['--labels', moved] if say_labels else []))
    again = torch.load(work / 'epoch_2.pth')['state_dict']
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    for name in ('pretrain.py', 'pretrain.json', 'references.txt', 'queries.txt'):
        text = (work / name).read_text()
        assert str(data) not in text and str(work_dir) not in text
    # A copy of what has ended is handed over from the copy.
    copy = shutil.copytree(work, work.with_name('copy'))
    next(copy.glob('backbone-*.pth')).unlink()
    forget_runners()
    call(moved, '--out', copy, *SMALL, '--resume')
    assert f'checkpoint: {copy / "epoch_2.pth"}' in lines and next(copy.glob('backbone-*.pth'))
    log = max(copy.glob('*/*.log'), key=os.path.getmtime).read_text()
    assert f'Checkpoint: {copy / "epoch_2.pth"}' in log
    assert not any(line.startswith(('Gone:', 'New since')) for line in lines)


def test_pictures_that_came_and_went(data, work_dir, lines, quick):
    write_scans(data / 'of another depth', 2)
    call(data, '--out', work_dir, *SMALL, '--epochs', 1)
    write_pictures(data / 'new', 3)
    gone = next(data.glob('*.png'))
    content = gone.read_bytes()
    gone.unlink()
    forget_runners()
    call(data, '--out', work_dir, *SMALL, '--resume')
    text = '\n'.join(lines)
    assert 'Gone: 1 of its 48 pictures, such as ' in text and 'pictures are skipped' in text
    assert 'New since the run began: 3 pictures.' in text
    config = work_dir / 'pretrain.py'
    config.write_text(config.read_text().replace(f'data_root={str(data)!r}', "data_root='/' + 'x'"))
    gone.write_bytes(content)
    assert 'was changed by hand, and its pictures have moved: set data_root=' in failure(
        data.rename(data.parent / 'b'), '--out', work_dir, *SMALL, '--resume')


def test_the_work_folder_among_the_pictures(data, lines, quick, monkeypatch):
    """As where somebody types `pretrain .` in the folder of the pictures."""
    monkeypatch.chdir(data)
    call('.', *SMALL, '--epochs', 1)
    work = data / 'work_dirs' / f'pretrain_{data.name}'
    assert (work / 'epoch_1.pth').is_file()
    write_pictures(work / 'report', 3)
    forget_runners()
    lines.clear()
    call('.', *SMALL, '--epochs', 1, '--resume')
    assert not any(line.startswith(('Gone:', 'New since')) for line in lines)


def test_out_of_memory_while_measuring_halves_the_batch(data, work_dir, lines, quick, monkeypatch):
    real = measure._step_speed

    def limited(cfg, plan, device):
        if plan.batch_size > 4:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')
        return real(cfg, plan, device)

    monkeypatch.setattr(measure, '_step_speed', limited)
    call(data, '--out', work_dir, *SMALL, '--epochs', 1, '--dry-run')
    assert any('Out of memory with 8 images a step: trying 4' in line for line in lines)
    cfg = Config.fromfile(work_dir / 'pretrain.py')
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.train_dataloader.sampler.window_size == 16  # four batches
    # 0.03 for 256 images, 8 times in a short run.
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.03 * 4 / 256 * 8, rel=0.01)


@pytest.mark.parametrize('message', [
    'CUDA out of memory. Tried to allocate 2 GiB', 'MPS backend out of memory',
    'CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`',
    'cuDNN error: CUDNN_STATUS_ALLOC_FAILED',
    'cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED'])
def test_words_for_out_of_memory(message):
    assert is_out_of_memory(RuntimeError(message))
    assert not is_out_of_memory(RuntimeError('CUDNN_STATUS_BAD_PARAM'))


def test_out_of_memory_in_training_begins_again(data, work_dir, lines, quick, monkeypatch):
    real = run.train

    def limited(prepared, *arguments):
        if Config.fromfile(os.path.join(prepared.work, 'pretrain.py')
                           ).train_dataloader.batch_size > 4:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        return real(prepared, *arguments)

    monkeypatch.setattr(run, 'train', limited)
    call(data, '--out', work_dir, *SMALL, '--epochs', 1)
    assert any('beginning again with 4' in line for line in lines)
    assert (work_dir / 'epoch_1.pth').is_file()


@pytest.mark.parametrize('out_of_memory', [False, True])
def test_from_a_network_after_a_dry_run(data, work_dir, lines, quick, monkeypatch, out_of_memory):
    """The copy of the network that it begins with is no checkpoint of a training."""
    before = work_dir.with_name('before')
    call(data, '--out', before, *SMALL, '--epochs', 1)
    command = [data, '--out', work_dir, '--from', before, '--image-size', 32, '--batch-size', 8,
               '--device', 'cpu', '--no-report', '--epochs', 1]
    call(*command, '--dry-run')
    forget_runners()
    real = run.train

    def limited(prepared, *arguments):
        config = Config.fromfile(os.path.join(prepared.work, 'pretrain.py'))
        if out_of_memory and config.train_dataloader.batch_size > 4:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        return real(prepared, *arguments)

    monkeypatch.setattr(run, 'train', limited)
    call(*command)
    assert (work_dir / 'epoch_1.pth').is_file()
    cfg = Config.fromfile(work_dir / 'pretrain.py')
    assert cfg.train_dataloader.batch_size == (4 if out_of_memory else 8)
    assert cfg.model.backbone.init_cfg.checkpoint == str(work_dir / 'start.pth')
    assert cfg.model.head.refresh_returning == 1.0
    assert 'add --resume' in failure(*command)


def test_a_full_disk(data, work_dir, lines, quick, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(pretrain, 'train_in_memory', full)
    with pytest.raises(SystemExit) as error:
        call(data, '--out', work_dir, *SMALL, '--epochs', 1)
    assert 'the disk of the work folder is full' in str(error.value.code)
    assert '--resume' in str(error.value.code)


def test_a_budget_becomes_a_length(data, work_dir, lines, quick, monkeypatch):
    monkeypatch.setattr(measure, '_step_speed', lambda *arguments: (100.0, 0))
    monkeypatch.setattr(measure, '_loader_speed', lambda *arguments: 1e9)
    call(data, '--out', work_dir, *SMALL, '--budget', '17s', '--dry-run')
    # 17 s at 100 images/s less a tenth are 1,530 images, which hold 31 passes.
    assert Config.fromfile(work_dir / 'pretrain.py').train_cfg.max_epochs == 31


@pytest.mark.parametrize('text, seconds', [('2h', 7200), ('90min', 5400), ('1.5d', 129600),
                                           ('45s', 45), ('3', 10800)])
def test_times(text, seconds):
    assert pretrain.seconds_of(text) == seconds
