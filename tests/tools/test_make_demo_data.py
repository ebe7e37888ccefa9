# SPDX-License-Identifier: Apache-2.0
"""make_demo_data: the documented grid, and the pictures that ship."""
import re

import cv2
import numpy as np
import pytest
from PIL import Image

from pic_plugin.datasets import make_demo_data as grids
from pic_plugin.datasets.cifar10_archive import CLASSES
from pic_plugin.datasets.image_grid import DATA_DIR
from pic_plugin.datasets.make_demo_data import make_grid, write_webp
from pic_plugin.tools import make_demo_data as tool


@pytest.fixture
def folder(tmp_path):
    """What prepare_cifar10 writes, 7 images of each class in both splits; {path: BGR pixels}."""
    rng = np.random.default_rng(0)
    images = {}
    for split in ('train', 'test'):
        for label, name in enumerate(CLASSES):
            (tmp_path / 'cifar10' / split / name).mkdir(parents=True)
            # Written last to first, so that the order of names is not the order of creation.
            for i in reversed(range(7)):
                path = tmp_path / 'cifar10' / split / name / f'{10 * i + label:05d}.png'
                # Few values: the encoder needs many seconds for noise.
                images[path] = 80 * rng.integers(0, 4, (32, 32, 3), dtype=np.uint8)
                cv2.imwrite(str(path), images[path])
    return tmp_path / 'cifar10', images


def test_tiles_are_where_the_readme_says(folder):
    root, images = folder
    grid = make_grid(root / 'train', 5)
    assert grid.shape == (32, 1600, 3) and grid.dtype == np.uint8
    for tile in range(50):
        label, number = divmod(tile, 5)
        path = root / 'train' / CLASSES[label] / f'{10 * number + label:05d}.png'
        y, x = 32 * (tile // 50), 32 * (tile % 50)
        assert np.array_equal(grid[y:y + 32, x:x + 32], images[path])


def test_rows_follow_each_other(folder, monkeypatch):
    root, images = folder
    monkeypatch.setattr(grids, 'COLUMNS', 10)
    grid = make_grid(root / 'test', 7)
    assert grid.shape == (7 * 32, 320, 3)
    tile = 43  # image 1 of class 6
    path = root / 'test' / CLASSES[6] / '00016.png'
    y, x = 32 * (tile // 10), 32 * (tile % 10)
    assert np.array_equal(grid[y:y + 32, x:x + 32], images[path])


def test_command_writes_pictures_that_decode_to_the_same_pixels(folder, tmp_path, monkeypatch,
                                                               capsys):
    root, _ = folder
    monkeypatch.setattr(tool, 'PER_CLASS', {'train': 5, 'test': 5})
    tool.main([str(root), '--out', str(tmp_path)])
    sizes = []
    for split in ('train', 'test'):
        file = tmp_path / f'cifar10_{split}_50.webp'
        grid = make_grid(root / split, 5)
        assert np.array_equal(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), grid)
        # A second decoder agrees.
        with Image.open(file) as picture:
            assert np.array_equal(np.asarray(picture)[:, :, ::-1], grid)
        sizes.append(f'{file}: {file.stat().st_size} bytes')
    assert capsys.readouterr().out.splitlines() == sizes
    assert not list(tmp_path.glob('*.partial'))


def test_lossy_encoder_is_noticed_and_the_old_file_kept(tmp_path, monkeypatch):
    file = tmp_path / 'x.webp'
    file.write_bytes(b'old')
    save = Image.Image.save
    monkeypatch.setattr(Image.Image, 'save', lambda self, out, kind, **options: save(
        self, out, kind, quality=50))
    noise = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    with pytest.raises(RuntimeError, match='does not survive'):
        write_webp(noise, file)
    assert file.read_bytes() == b'old' and list(tmp_path.iterdir()) == [file]


def test_bad_folders(folder, tmp_path):
    root, images = folder
    with pytest.raises(ValueError, match='airplane has 7 images, 10 are needed'):
        make_grid(root / 'train', 10)
    for number in (0, 3):
        with pytest.raises(ValueError, match='choose a multiple of 5'):
            make_grid(root / 'train', number)
    path = next(p for p in sorted(images) if 'train/bird' in p.as_posix())
    for damage in (np.zeros((32, 32), np.uint8), np.zeros((16, 32, 3), np.uint8)):
        cv2.imwrite(str(path), damage)
        with pytest.raises(ValueError, match=f'{path.name} is not a 32x32 colour image'):
            make_grid(root / 'train', 5)
    with pytest.raises(SystemExit, match='^make_demo_data: .*airplane has 7 images, 500 are'):
        tool.main([str(root), '--out', str(tmp_path)])


def test_shipped_pictures_are_as_documented():
    """Sizes and counts of README.md's table, and the issue's limit of 15 MB."""
    readme = (DATA_DIR / 'README.md').read_text()
    total = 0
    for split, per_class in tool.PER_CLASS.items():
        number = 10 * per_class
        file = DATA_DIR / f'cifar10_{split}_{number}.webp'
        height = number // 50 * 32
        size = file.stat().st_size
        assert re.search(rf'{file.name}` \| {number} \| {per_class} \| 1600 x {height} \| {size:,}',
                         readme)
        with Image.open(file) as picture:
            assert picture.size == (1600, height) and picture.mode == 'RGB'
        total += size
    assert total < 15e6
