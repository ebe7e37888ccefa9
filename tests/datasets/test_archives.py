# SPDX-License-Identifier: Apache-2.0
"""Archives of every common make: what their index finds is what the library unpacks."""
import io
import multiprocessing
import os
import tarfile
import zipfile
from concurrent.futures import ProcessPoolExecutor

import pytest
from mmengine import fileio

from pic_plugin.datasets import open_archives
from pic_plugin.datasets.archives import index_archive
from pic_plugin.datasets.members import MemberBackend, member_path, read_bytes, split_member_path
from pic_plugin.datasets.sources import Part

NAMES = ['cats/1.png', 'cats/2.PNG', 'b/' + 'long' * 60 + '.png', 'caf\u00e9 ?+!.png', '0.jpg']
OTHERS = ['notes.txt', '__MACOSX/cats/1.png', 'cats/._1.png', 'x.gif']


def make_tar(path, encoded, format=tarfile.PAX_FORMAT):
    with tarfile.open(path, 'w', format=format) as tar:
        for number, name in enumerate([*NAMES, *OTHERS]):
            info = tarfile.TarInfo(f'./{name}' if number % 2 else name)
            info.size = len(encoded(number))
            tar.addfile(info, io.BytesIO(encoded(number)))
        link = tarfile.TarInfo('cats/link.png')
        link.type, link.linkname = tarfile.SYMTYPE, '1.png'
        tar.addfile(link)
        folder = tarfile.TarInfo('folder.png')
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    return str(path)


def make_zip(path, encoded):
    with zipfile.ZipFile(path, 'w') as archive:
        for number, name in enumerate([*NAMES, *OTHERS]):
            content = encoded(number) * (1 + number % 3)
            kind = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[number % 2]
            archive.writestr(name, content, compress_type=kind)
        archive.writestr('cats/bz.png', b'x', compress_type=zipfile.ZIP_BZIP2)
        archive.mkdir('folder.png')
    return str(path)


def read_all(path, endings=('.png', '.jpg')):
    """What a loader reads of each name."""
    index = index_archive(path, endings)
    part = Part(index.meta['kind'], path, path, None, index)
    return {os.fsdecode(name): fileio.get(part.path(i)) for i, name in enumerate(index.names)}


@pytest.mark.parametrize('format', [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_tar(tmp_path, encoded, format):
    path = make_tar(tmp_path / 'a!?+b.tar', encoded, format)
    assert read_all(path) == {name: encoded(i) for i, name in enumerate(NAMES)}
    report = str(index_archive(path, ['.png', '.jpg']).report)
    assert '1 link in archives (cats/link.png)' in report
    assert 'picture in folders that are of the system (__MACOSX/cats/1.png)' in report
    assert '1 .gif file,' in report and '1 other file (notes.txt)' in report


def test_zip(tmp_path, encoded):
    path = make_zip(tmp_path / 'a.zip', encoded)
    with zipfile.ZipFile(path) as archive:
        assert read_all(path) == {name: archive.read(name) for name in NAMES}
    assert 'encrypted or not deflated (cats/bz.png)' in str(index_archive(path, ['.png']).report)


def test_order_is_that_of_names(tmp_path, encoded):
    path = make_tar(tmp_path / 'a.tar', encoded)
    names = list(index_archive(path, ['.png', '.jpg']).names)
    assert names == sorted(names)


@pytest.mark.parametrize('name, content, message', [
    ('a.tar.gz', b'x', 'no picture in it can be read without those before it'),
    ('a.tar', b'x' * 2000, 'not a complete archive'),
    ('a.zip', b'x' * 2000, 'not a complete archive'),
])
def test_what_is_no_archive(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        index_archive(str(tmp_path / name), ['.png'])
    with pytest.raises(FileNotFoundError, match='no archive'):
        index_archive(str(tmp_path / 'missing.zip'), ['.png'])


def test_a_tar_that_is_cut_or_damaged_anywhere(tmp_path, encoded):
    path = tmp_path / 'a.tar'
    make_tar(path, encoded, tarfile.GNU_FORMAT)
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        *_, picture, _, folder = tar.getmembers()  # and a link
    header, data = picture.offset, picture.offset_data
    for content in (whole[:header + 200], whole[:data + picture.size // 2],
                    whole[:header] + b'?' * 512 + whole[data:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match='not a complete archive'):
            read_all(str(path))
    path.write_bytes(whole[:folder.offset_data])  # a writer that was stopped before the end mark
    assert len(read_all(str(path))) == len(NAMES)


def test_archives_that_change_under_a_run(tmp_path, encoded):
    path = make_zip(tmp_path / 'a.zip', encoded)
    index = index_archive(path, ['.png'])
    part = Part('zip', path, path, None, index)
    (tmp_path / 'a.zip').write_bytes(b'short')
    with pytest.raises(OSError, match='cut off or replaced'):
        fileio.get(part.path(0))
    (tmp_path / 'a.zip').write_bytes(b'x' * 10_000)
    with pytest.raises(OSError, match='replaced during the run'):
        fileio.get(part.path(0))


def test_few_archives_are_open_at_a_time(tmp_path, encoded, monkeypatch):
    monkeypatch.setattr(open_archives, 'MAX_OPEN', 2)
    open_archives.close_archives()
    paths = [make_tar(tmp_path / f'{i}.tar', encoded) for i in range(4)]
    for _ in range(2):
        for path in paths:
            assert read_all(path)['cats/1.png'] == encoded(0)
            assert len(open_archives._open) <= 2


def test_paths_come_apart_again():
    for name in ('a!/b?c', 'x?tar+1+2'):
        path = member_path('zip', '/d!/a?b.zip', name, 3, 4)
        assert split_member_path(path) == ('zip', '/d!/a?b.zip', name, (3, 4))




@pytest.mark.parametrize('method', ['fork', 'forkserver'])
def test_another_process_reads_too(tmp_path, encoded, method):
    path = make_tar(tmp_path / 'a.tar', encoded)
    part = Part('tar', path, path, None, index_archive(path, ['.jpg']))
    info = dict(img_path=part.path(0))
    read_bytes(info)  # open here already
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert pool.submit(read_bytes, info).result() == encoded(4)


def test_read_bytes(tmp_path, encoded):
    file = tmp_path / 'a.png'
    file.write_bytes(encoded(1))
    assert read_bytes(dict(img_path=str(file))) == encoded(1)
    assert read_bytes(dict(img_bytes=b'x', img_path=str(file))) == b'x'
    assert MemberBackend().get_text(member_path('tar', str(file), 'a', 1, 3)) == 'PNG'
