# SPDX-License-Identifier: Apache-2.0
"""prepare_cifar10: what it writes, continues, compares and refuses to touch."""

import cv2
import numpy as np
import pytest

from pic_plugin.datasets import prepare_cifar10 as tool
from pic_plugin.datasets.cifar10_archive import BATCHES, CLASSES
from pic_plugin.datasets.prepare_cifar10 import prepare_cifar10
from pic_plugin.tools.prepare_cifar10 import main
from toys.processes import command, run_alone

SIZE = 20  # images in a batch


@pytest.fixture
def source(tmp_path):
    """The binary version, unpacked: five and one batches of 20 images."""
    folder = tmp_path / 'cifar-10-batches-bin'
    folder.mkdir()
    for i, name in enumerate(BATCHES):
        rng = np.random.default_rng(i)
        records = rng.integers(0, 256, (SIZE, 3073), dtype=np.uint8)
        records[:, 0] = rng.permutation(np.arange(SIZE) % 10)
        records.tofile(folder / f'{name}.bin')
    return folder


def expected_images(source):
    """{relative path: (32, 32, 3) BGR}, straight from the documented record format."""
    images = {}
    for split, names in (('train', BATCHES[:5]), ('test', BATCHES[5:])):
        index = 0
        for name in names:
            for record in np.fromfile(source / f'{name}.bin', np.uint8).reshape(-1, 3073):
                rgb = record[1:].reshape(3, 32, 32)
                path = f'{split}/{CLASSES[record[0]]}/{index:05d}.png'
                images[path] = np.stack([rgb[2], rgb[1], rgb[0]], axis=-1)
                index += 1
    return images


def assert_complete(out, source):
    expected = expected_images(source)
    files = {file.relative_to(out).as_posix() for file in out.rglob('*') if file.is_file()}
    assert files == set(expected)
    for path, image in expected.items():
        assert np.array_equal(cv2.imread(str(out / path), cv2.IMREAD_UNCHANGED), image)


def test_writes_every_image_into_its_class(tmp_path, source, capsys):
    out = tmp_path / 'new' / 'cifar10'
    assert prepare_cifar10(source, out, SIZE) is True
    assert_complete(out, source)
    assert not out.with_name('cifar10.partial').exists()
    assert '120/120' in capsys.readouterr().out  # the progress bar reaches the end


def test_an_empty_folder_is_filled(tmp_path, source):
    out = tmp_path / 'cifar10'
    out.mkdir()
    assert prepare_cifar10(source, out, SIZE) is True
    assert_complete(out, source)


def test_second_run_finds_it_done_and_writes_nothing(tmp_path, source):
    out = tmp_path / 'cifar10'
    prepare_cifar10(source, out, SIZE)
    before = {file: file.stat().st_mtime_ns for file in out.rglob('*')}
    assert prepare_cifar10(source, out, SIZE) is False
    assert {file: file.stat().st_mtime_ns for file in out.rglob('*')} == before


def test_interrupted_run_is_continued(tmp_path, source, monkeypatch):
    out, partial = tmp_path / 'cifar10', tmp_path / 'cifar10.partial'
    encode, count = cv2.imencode, [0]

    def stop_after_50(*args):
        count[0] += 1
        if count[0] > 50:
            raise KeyboardInterrupt
        return encode(*args)

    monkeypatch.setattr(tool.cv2, 'imencode', stop_after_50)
    with pytest.raises(KeyboardInterrupt):
        prepare_cifar10(source, out, SIZE)
    assert not out.exists()
    written = sorted(partial.rglob('*.png'))
    assert len(written) == 50
    cut, swapped = written[3], written[7]
    cut.write_bytes(cut.read_bytes()[:100])
    swapped.write_bytes(written[8].read_bytes())
    kept = {file: file.stat().st_mtime_ns for file in written if file not in (cut, swapped)}

    count[0] = -1000
    assert prepare_cifar10(source, out, SIZE) is True
    # 120 less the 48 that were right; these have not been written again.
    assert count[0] == -1000 + 72
    assert {partial / f.relative_to(out): f.stat().st_mtime_ns for f in out.rglob('*.png')
            if partial / f.relative_to(out) in kept} == kept
    assert_complete(out, source)


KILLED_WHILE_WRITING = '''
import os, signal, sys
from pathlib import Path
from pic_plugin.datasets.prepare_cifar10 import prepare_cifar10
write, count = Path.write_bytes, [0]
def write_or_die(path, content):
    count[0] += 1
    if count[0] == 30:
        write(path, content[:len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, content)
Path.write_bytes = write_or_die
prepare_cifar10(sys.argv[1], sys.argv[2], int(sys.argv[3]))
'''


def test_killed_run_leaves_no_half_folder_and_is_continued(tmp_path, source):
    out = tmp_path / 'cifar10'
    assert run_alone(command, ['-c', KILLED_WHILE_WRITING, source, out, SIZE],
                     tmp_path) == 'killed'
    assert not out.exists() and len(list((tmp_path / 'cifar10.partial').rglob('*.png'))) == 30
    assert prepare_cifar10(source, out, SIZE) is True
    assert_complete(out, source)


@pytest.mark.parametrize('damage, named', [
    (lambda out: (out / 'train/cat/extra.png').write_bytes(b''), 'extra.png is not an image'),
    (lambda out: (out / 'notes.txt').write_text('mine'), 'notes.txt is not an image of this'),
    (lambda out: next(out.rglob('*.png')).unlink(), 'is missing or differs'),
    (lambda out: next(out.rglob('*.png')).write_bytes(b'x'), 'is missing or differs'),
])
def test_a_folder_with_something_else_is_left_as_it_is(tmp_path, source, damage, named):
    out = tmp_path / 'cifar10'
    prepare_cifar10(source, out, SIZE)
    damage(out)
    before = {f: f.read_bytes() for f in out.rglob('*') if f.is_file()}
    with pytest.raises(FileExistsError, match=named):
        prepare_cifar10(source, out, SIZE)
    assert {f: f.read_bytes() for f in out.rglob('*') if f.is_file()} == before


def test_stranger_in_the_partial_folder_is_refused(tmp_path, source):
    partial = tmp_path / 'cifar10.partial'
    (partial / 'train').mkdir(parents=True)
    (partial / 'train' / 'mine.png').write_bytes(b'precious')
    with pytest.raises(FileExistsError, match='mine.png is not an image of this source'):
        prepare_cifar10(source, tmp_path / 'cifar10', SIZE)
    assert [f for f in partial.rglob('*') if f.is_file()] == [partial / 'train' / 'mine.png']


def test_out_may_not_be_a_file(tmp_path, source):
    (tmp_path / 'cifar10').write_text('mine')
    with pytest.raises(FileExistsError, match='is a file: give the name of a folder'):
        prepare_cifar10(source, tmp_path / 'cifar10', SIZE)
    assert (tmp_path / 'cifar10').read_text() == 'mine'


def test_bad_source_writes_nothing(tmp_path, source):
    (source / 'test_batch.bin').write_bytes(b'x')
    with pytest.raises(ValueError, match='test_batch.bin has 1 bytes'):
        prepare_cifar10(source, tmp_path / 'cifar10', SIZE)
    assert sorted(tmp_path.iterdir()) == [source]


def test_command_line_error_is_one_line(tmp_path):
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / 'nowhere.tgz'), str(tmp_path / 'out')])
    message = str(stop.value)
    assert message.startswith('prepare_cifar10: ') and 'does not exist' in message
    assert '\n' not in message and 'npm pack' in message


def test_command_line_says_what_was_done(tmp_path, source, monkeypatch, capsys):
    read = tool.read_cifar10
    monkeypatch.setattr(tool, 'read_cifar10', lambda path, size: read(path, SIZE))
    out = tmp_path / 'out'
    main([str(source), str(out)])
    assert capsys.readouterr().out.endswith('images, written.\n')
    assert_complete(out, source)
    main([str(source), str(out)])
    assert 'already prepared: nothing to do' in capsys.readouterr().out
