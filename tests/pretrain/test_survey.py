# SPDX-License-Identifier: Apache-2.0
"""Folders as people have them: what is found, what is left out, and what is said."""
import os
import shutil
import struct
import sys
import types
import zlib
from importlib.machinery import ModuleSpec

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pic_plugin.datasets.decoding import decode
from pic_plugin.pretrain.describe import describe
from pic_plugin.pretrain.machine import Machine
from pic_plugin.pretrain.survey import survey_folders
from pic_plugin.pretrain.walk import find_pictures
from toys.pages import block
from toys.pictures import picture, write_pictures, write_scans


def test_numbers_sizes_and_endings(tmp_path):
    write_pictures(tmp_path / 'a', 6, side=40)
    write_pictures(tmp_path / 'a' / 'deep er' / 'ü', 5, side=80, first=10, ending='.JPG')
    found = survey_folders([tmp_path / 'a'])
    assert len(found.files) == 11 and found.by_ending == {'.png': 6, '.jpg': 5}
    assert found.sides == (40, 40, 80) and found.num_sampled == 11 and not found.broken
    assert all(os.path.isfile(os.path.join(found.root, name)) for name in found.files)


def test_the_range_of_deep_pictures_is_measured(tmp_path):
    write_scans(tmp_path / 'scans', 9)
    found = survey_folders([tmp_path / 'scans'])
    assert found.pixels.depths == ['uint16'] and found.pixels.extremes == (1003, 1241)
    assert 1003 <= found.pixels.value_range[0] < 1010 < 1230 < found.pixels.value_range[1] <= 1241
    write_pictures(tmp_path / 'eight', 9)
    assert survey_folders([tmp_path / 'eight']).pixels is None


@pytest.mark.parametrize('kind', ['png', 'tif', 'ppm', 'rgb.png', 'float.tif'])
def test_the_few_of_another_depth_are_left_out(tmp_path, kind):
    """Found by their headers, also those of which the sample has none."""
    write_pictures(tmp_path, 30)
    deep = np.full((20, 20, 3), 30000, np.float32 if 'float' in kind else np.uint16)
    name = f'scan.{kind}'
    cv2.imwrite(str(tmp_path / name), deep if kind in ('ppm', 'rgb.png') else deep[..., 0])
    found = survey_folders([tmp_path])
    assert len(found.files) == 30 and name not in found.files and found.pixels is None
    assert f'left out\t{name}\tpictures of more than 8 bits, unlike most' in found.findings


def test_the_few_of_8_bits_are_left_out(tmp_path):
    write_scans(tmp_path / 'scans', 30)
    write_pictures(tmp_path / 'previews', 3, ending='.jpg')
    found = survey_folders([tmp_path])
    assert len(found.files) == 30 and found.pixels.depths == ['uint16']
    assert found.left_out.left_out['pictures of 8 bits, unlike most'] == 3


def test_many_of_two_depths_are_refused(tmp_path):
    write_scans(tmp_path / 'scans', 9)
    write_pictures(tmp_path / 'eight', 9)
    with pytest.raises(ValueError, match=r'9 pictures of more than 8 bits \(scans.* and 7 more\) '
                                         r'and 9 of 8 \(eight.*Train on files of one depth'):
        survey_folders([tmp_path])


def write_icons(folder):
    """One of each kind that has transparency, black on black; and opaque ones."""
    folder.mkdir()
    alpha = np.zeros((40, 40), np.uint8)
    alpha[:30] = 255
    icon = Image.fromarray(np.dstack([np.zeros((40, 40, 3), np.uint8), alpha]))
    icon.save(folder / 'colour.png')
    icon.convert('LA').save(folder / 'grey.png')
    icon.save(folder / 'icon.webp', lossless=True)
    Image.fromarray(alpha).convert('P').save(folder / 'palette.png', transparency=0)
    opaque = Image.fromarray(picture(1)).convert('RGBA')
    opaque.save(folder / 'opaque.png')
    write_pictures(folder / 'more', 9)


def test_transparent_pictures_are_said(tmp_path):
    write_icons(tmp_path / 'icons')
    found = survey_folders([tmp_path / 'icons'])
    assert found.transparent == dict.fromkeys(
        ['colour.png', 'grey.png', 'icon.webp', 'palette.png'], '25 %')
    assert 'transparent\tcolour.png\t25 %' in found.findings
    assert ('Transparent: 4 of 14 opened have transparent pixels (colour.png: 25 %, '
            in describe(found, Machine(), 'findings.txt'))
    write_pictures(tmp_path / 'others', 9)
    assert 'Transparent' not in describe(survey_folders([tmp_path / 'others']), Machine(), 'f.txt')


def test_the_lines_of_the_page_put_pictures_on_white(tmp_path, monkeypatch):
    write_icons(tmp_path / 'FOLDER')
    monkeypatch.chdir(tmp_path)
    assert not decode((tmp_path / 'FOLDER' / 'colour.png').read_bytes()).pixels.any()
    exec(block('flatten').text, {})
    pixels = decode((tmp_path / 'FLAT' / 'colour.png').read_bytes()).pixels
    assert not pixels[:30].any() and (pixels[30:] == 255).all()
    found = survey_folders([tmp_path / 'FLAT'])
    assert not found.transparent and len(found.files) == 13  # not the WebP


def test_heic_pictures_are_opened(tmp_path, monkeypatch):
    """Pillow takes them once the package for them is registered; here PNG files stand for them."""
    write_pictures(tmp_path, 9)
    monkeypatch.setitem(sys.modules, 'pillow_heif', types.SimpleNamespace(
        __spec__=ModuleSpec('pillow_heif', None),
        register_heif_opener=lambda: Image.register_open('PNG', PngImagePlugin.PngImageFile,
                                                         PngImagePlugin._accept)))
    monkeypatch.setattr('pic_plugin.datasets.pillow_formats.has_heif', lambda: True)
    monkeypatch.delitem(Image.OPEN, 'PNG')
    found = survey_folders([tmp_path])
    assert len(found.files) == found.num_sampled == 9 and not found.broken


def test_what_is_left_out_is_named(tmp_path):
    write_pictures(tmp_path, 8)
    for name in ('film.mp4', 'paper.pdf', 'notes', 'phone.HEIC', '.hidden.png'):
        (tmp_path / name).write_bytes(b'x')
    (tmp_path / 'empty.png').write_bytes(b'')
    (tmp_path / 'gone.png').symlink_to(tmp_path / 'nowhere.png')
    for name in ('.ipynb_checkpoints', '__MACOSX', '@eaDir'):
        write_pictures(tmp_path / name, 2)
    found = find_pictures([tmp_path])
    assert len(found.files) == 8
    reasons = ' '.join(found.left_out.left_out)
    for word in ('.mp4', '.pdf', 'other files', '.heic', 'hidden', 'empty files', 'broken links',
                 'of the system'):
        assert word in reasons, word
    listed = survey_folders([tmp_path]).findings
    for name in ('film.mp4', 'phone.HEIC', 'empty.png', 'gone.png', '.hidden.png'):
        assert any(line.startswith(f'left out\t{name}\t') for line in listed), name


def test_many_files_left_out_are_counted_beyond_some(tmp_path):
    write_pictures(tmp_path, 8)
    for number in range(130):
        (tmp_path / f'{number}.txt').touch()
    listed = survey_folders([tmp_path]).findings
    assert len(listed) == 101 and listed[-1].startswith('left out\tand 30 more\t')


def test_links_are_followed_once(tmp_path):
    data = write_pictures(tmp_path / 'data', 8)
    more = write_pictures(tmp_path / 'more', 3, first=20)
    (data / 'link').symlink_to(more)
    (data / 'up').symlink_to(tmp_path)
    found = find_pictures([data])
    assert len(found.files) == 11
    assert found.left_out.left_out['links to folders that are read anyway'] >= 1


def test_several_folders_and_the_same_twice(tmp_path):
    one = write_pictures(tmp_path / 'one', 5)
    two = write_pictures(tmp_path / 'two', 4, first=5)
    found = find_pictures([one, two, f'{one}/', one / '..' / 'one'])
    assert len(found.files) == 9 and len(set(found.files)) == 9
    assert found.root == str(tmp_path) and found.folders == (str(one), str(two))
    assert len(found.notices) == 2 and 'twice' in found.notices[0]
    assert len(find_pictures([tmp_path, one]).files) == 9


def test_broken_ones_are_counted(tmp_path):
    write_pictures(tmp_path, 8)
    (tmp_path / 'text.png').write_bytes(b'no picture at all')
    whole = (tmp_path / '0000.png').read_bytes()
    (tmp_path / 'cut.png').write_bytes(whole[:len(whole) // 2])
    found = survey_folders([tmp_path])
    assert sorted(found.broken) == ['cut.png', 'text.png'] and len(found.files) == 10


def test_large_pictures(tmp_path, monkeypatch):
    """Pillow refuses what could be an attack; training decodes it, up to OpenCV's own limit."""
    write_pictures(tmp_path, 8)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    assert not survey_folders([tmp_path]).broken and Image.MAX_IMAGE_PIXELS == 100
    header = struct.pack('>4s2I5B', b'IHDR', 40000, 40000, 8, 2, 0, 0, 0)
    (tmp_path / 'huge.png').write_bytes(
        b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + header
        + struct.pack('>I', zlib.crc32(header)) + struct.pack('>I4s', 100, b'IDAT') + bytes(100))
    assert list(survey_folders([tmp_path]).broken) == ['huge.png']


def test_copies_and_near_copies(tmp_path):
    write_pictures(tmp_path, 20, side=64)
    shutil.copy(tmp_path / '0003.png', tmp_path / 'copy.png')
    darker = (picture(5, 64) * 0.9).astype(np.uint8)
    Image.fromarray(darker).save(tmp_path / 'near.jpg', quality=90)
    found = survey_folders([tmp_path])
    assert found.copies == {'copy.png': '0003.png'}
    assert found.near == {'near.jpg': '0005.png'}
    said = describe(found, Machine(), '/work/findings.txt')
    assert 'the very bytes of another one (copy.png = 0003.png)' in said
    assert 'the looks of another one (near.jpg = 0005.png)' in said
    assert 'listed in /work/findings.txt' in said and '1 core,' in said
    assert found.findings == ['copy of\tcopy.png\t0003.png', 'looks like\tnear.jpg\t0005.png']


@pytest.mark.parametrize('make, message', [
    (lambda folder: None, 'holds no pictures: it is empty'),
    (lambda folder: (folder / 'a.mp4').write_bytes(b'x'),
     r'holds no pictures \(left out: 1 .mp4 file, not read'),
    (lambda folder: write_pictures(folder, 3), 'has only 3 pictures'),
    (lambda folder: [(folder / f'{number}.png').write_bytes(b'x') for number in range(9)],
     'none of 9 pictures of .* can be read'),
])
def test_what_cannot_be_trained_on(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(ValueError, match=message):
        survey_folders([tmp_path])


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        survey_folders([tmp_path / 'missing'])
    file = tmp_path / 'a.png'
    file.write_bytes(b'x')
    with pytest.raises(ValueError, match='is a file'):
        survey_folders([file])


def test_a_folder_without_permission(tmp_path, monkeypatch):
    """Root may read everything: the answer of the system is what is tried."""
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    with pytest.raises(ValueError, match='may not be read'):
        survey_folders([tmp_path])
