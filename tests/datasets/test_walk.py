# SPDX-License-Identifier: Apache-2.0
"""Folders as people have them: links, loops, copies that programs keep, names of any bytes."""
import os

import pytest

from pic_plugin.analysis.images import FolderImages
from pic_plugin.datasets import endings
from pic_plugin.datasets.walk import walk


def names_in(folder, kinds=('.png', '.jpg')):
    return [os.fsdecode(name) for name in walk(folder, kinds).names]


def test_names_are_sorted_and_relative(tmp_path, images):
    images(tmp_path, ['b/2.png', 'a/1.PNG', 'c.JPG', 'a/b/3.png'])
    assert names_in(tmp_path) == ['a/1.PNG', 'a/b/3.png', 'b/2.png', 'c.JPG']
    assert walk(tmp_path, ['.png', '.jpg']).report.read == {'.png': 3, '.jpg': 1}


@pytest.mark.parametrize('kept', [
    'cats/.ipynb_checkpoints', '@eaDir', '.thumbnails', '.hidden/deeper', '__MACOSX/cats',
    '$RECYCLE.BIN', '.Trash-1000/files', '#recycle', 'cats/@eaDir/1.png'])
def test_what_programs_keep_is_left_out_and_counted(tmp_path, images, kept):
    images(tmp_path, ['cats/1.png', 'cats/2.png'])
    images(tmp_path / kept, ['1.png', '2.png', '3.png'])
    found = walk(tmp_path, ['.png'])
    assert list(found.names) == [b'cats/1.png', b'cats/2.png']
    assert found.report.num_left_out == 3
    assert 'Left out: 3 pictures in folders that are' in str(found.report)


@pytest.mark.parametrize('marks', [['pretrain.py', 'pretrain.json'], ['last_checkpoint']])
def test_figures_of_a_training_among_the_pictures(tmp_path, images, marks):
    images(tmp_path, ['cats/1.png', 'cats/2.png'])
    work = images(tmp_path / 'work_dirs' / 'pretrain_cats', ['report/health.png', 'map.png'])
    # Not without the marks.
    assert len(walk(tmp_path, ['.png']).names) == 4
    for mark in marks:
        (work / mark).touch()
    found = walk(tmp_path, ['.png'])
    assert list(found.names) == [b'cats/1.png', b'cats/2.png']
    assert 'Left out: 2 pictures in folders that are work folders of trainings' in str(found.report)
    # Who names it means it.
    assert len(walk(work, ['.png']).names) == 2


def test_hidden_files_are_left_out_and_a_hidden_root_is_not(tmp_path, images):
    root = images(tmp_path / '.data', ['1.png', '._1.png', '.png'])
    (root / 'Thumbs.db').write_bytes(b'x')
    found = walk(root, ['.png'])
    assert list(found.names) == [b'1.png']
    assert '1 hidden picture (._1.png' in str(found.report)
    assert 'Thumbs.db' not in str(found.report)


def test_endings_that_are_not_read_are_named_with_what_to_do(tmp_path, images):
    images(tmp_path, ['1.png', 'x.dcm', 'y.tga', 'z.tga', 'notes.txt', 'none'])
    text = str(walk(tmp_path, ['.png']).report)
    assert 'Pictures: 1 (1 .png).' in text
    assert '2 .tga files, not read: convert' in text and '(y.tga, z.tga)' in text
    assert '1 .dcm file,' in text and 'DICOM' in text
    assert '2 other files (none, notes.txt)' in text


@pytest.mark.parametrize('ending', ['.heic', '.heif', '.avif'])
def test_plug_ins_decide_what_is_read(tmp_path, images, monkeypatch, ending):
    images(tmp_path, [f'1{ending.upper()}', '2.png'])
    for there in (False, True):
        monkeypatch.setattr(endings, 'has_heif', lambda there=there: there)
        monkeypatch.setattr(endings, 'has_avif', lambda there=there: there)
        found = walk(tmp_path, endings.readable_endings())
        assert len(found.names) == 1 + there
        assert ('pip install' in str(found.report)) is not there


def test_every_ending_that_is_not_read_says_why():
    assert not set(endings.PLAIN) & set(endings._NOT_READ)
    for ending in ('.gif', '.jp2', '.dcm', '.tga', '.mp4', '.cr2', '.zip', '.npy'):
        assert endings.why_not_read(ending)
    assert endings.why_not_read('.txt') is None


@pytest.mark.parametrize('name, ending', [
    (b'a/b.JPG', '.jpg'), (b'a.b/c', ''), (b'.png', ''), (b'a/.png', ''), (b'x.tar.gz', '.gz'),
    (b'caf\xe9.png', '.png'), (b'a.\xe9', '.é')])
def test_ending(name, ending):
    assert endings.ending_of(name) == ending


def test_links_to_folders_are_followed(tmp_path, images):
    images(tmp_path / 'elsewhere', ['1.png', 'deep/2.png'])
    (tmp_path / 'data').mkdir()
    os.symlink(tmp_path / 'elsewhere', tmp_path / 'data' / 'link')
    assert names_in(tmp_path / 'data') == ['link/1.png', 'link/deep/2.png']
    assert FolderImages(tmp_path / 'data').names == ['link/1.png', 'link/deep/2.png']


@pytest.mark.parametrize('target', ['..', '.', '../..', '../b'])
def test_a_link_to_what_is_read_anyway_gives_no_picture_twice(tmp_path, images, target):
    root = images(tmp_path / 'root', ['a/1.png', 'b/2.png'])
    os.symlink(target, root / 'a' / 'back')
    found = walk(root, ['.png'])
    own = [name for name in found.names if not name.startswith(b'a/back')]
    assert own == [b'a/1.png', b'b/2.png']
    assert len(found.names) == 2
    assert '1 link to folders that are read anyway (a/back' in str(found.report)


def test_two_links_that_lead_into_each_other(tmp_path, images):
    images(tmp_path / 'x', ['1.png'])
    images(tmp_path / 'y', ['2.png'])
    os.symlink(tmp_path / 'y', tmp_path / 'x' / 'to_y')
    os.symlink(tmp_path / 'x', tmp_path / 'y' / 'to_x')
    assert names_in(tmp_path / 'x') == ['1.png', 'to_y/2.png']


def test_a_link_into_a_hidden_folder_is_followed(tmp_path, images):
    images(tmp_path / '.store/v2', ['1.png', '2.png'])
    images(tmp_path, ['3.png'])
    os.symlink('.store/v2', tmp_path / 'data')
    os.symlink('.store/v2', tmp_path / 'same')
    found = walk(tmp_path, ['.png'])
    assert list(found.names) == [b'3.png', b'data/1.png', b'data/2.png']
    assert '1 link to folders that are read anyway (same)' in str(found.report)
    assert '2 pictures in folders that are hidden' in str(found.report)


def test_names_of_any_bytes(tmp_path, images):
    images(tmp_path, ['1.png'])
    os.rename(os.fsencode(tmp_path / '1.png'), os.fsencode(tmp_path) + b'/caf\xe9\n.png')
    assert list(walk(tmp_path, ['.png']).names) == [b'caf\xe9\n.png']
    assert FolderImages(tmp_path).read(0).shape == (8, 8, 3)


def test_broken_links_and_folders_without_permission(tmp_path, images, monkeypatch):
    images(tmp_path, ['a/1.png', 'b/2.png'])
    os.symlink('nowhere', tmp_path / 'gone.png')
    os.symlink('round', tmp_path / 'round')
    scandir = os.scandir

    def refuse(path):
        if os.fsencode(path).endswith(b'/b'):
            raise PermissionError(13, 'Permission denied')
        return scandir(path)

    with monkeypatch.context() as patched:  # the folder is removed before the fixture ends
        patched.setattr(os, 'scandir', refuse)
        found = walk(tmp_path, ['.png'])
    assert list(found.names) == [b'a/1.png']
    assert '2 broken links (gone.png, round)' in str(found.report)
    assert '1 folder that cannot be read: Permission denied (b)' in str(found.report)
    assert sorted(found.unreadable) == ['b', 'gone.png', 'round']


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder'):
        walk(tmp_path / 'missing', ['.png'])
