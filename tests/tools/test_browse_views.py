# SPDX-License-Identifier: Apache-2.0
"""The picture of augmented views shows what the network gets."""
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from pic_plugin.analysis.picture_reader import reader_of
from pic_plugin.analysis.views import _original, draw_views
from pic_plugin.datasets import ImageGrid
from pic_plugin.tools import browse_views

TINY = Path(__file__).with_name('tiny_config.py')
PACK = dict(type='PackInputs', meta_keys=('sample_idx', ))


def rows_of(work_dir, pipeline, num_images=3, num_draws=2, **model):
    cfg = Config.fromfile(TINY)
    cfg.work_dir = str(work_dir)
    cfg.train_dataloader.dataset.pipeline = pipeline
    cfg.train_dataloader.collate_fn = dict(type='default_collate')
    cfg.model.update(model)
    return draw_views(Runner.from_cfg(cfg), num_images, num_draws)


@pytest.mark.parametrize('to_rgb', [True, False])
def test_without_augmentation_views_are_the_images(work_dir, to_rgb):
    rows = rows_of(work_dir, [PACK], data_preprocessor=dict(
        type='SelfSupDataPreprocessor', mean=[125, 123, 114], std=[63, 62, 67], to_rgb=to_rgb))
    images = ImageGrid(img_file='cifar10_test_1000.webp', indices=40)
    assert [row.name for row in rows] == ['0', '13', '26']
    for row, place in zip(rows, (0, 13, 26)):
        expected = images.get_data_info(place)['img'][..., ::-1]
        np.testing.assert_array_equal(row.original, expected)
        assert len(row.draws) == 2
        for (view, ) in row.draws:
            np.testing.assert_array_equal(view, expected)


def test_pictures_are_drawn_without_the_cache(work_dir):
    crop = dict(type='DecodeRandomCrop', size=24, cache=dict(short_edge=24, max_bytes=2**60))
    assert len(rows_of(work_dir, [crop, PACK])) == 3


def test_views_of_several_sizes(work_dir):
    crops = [[dict(type='RandomResizedCrop', scale=side)] for side in (24, 16)]
    rows = rows_of(work_dir, [dict(type='MultiView', num_views=[1, 2], transforms=crops), PACK])
    for row in rows:
        assert [[view.shape for view in draw] for draw in row.draws] == [
            [(24, 24, 3), (16, 16, 3), (16, 16, 3)]] * 2
        assert not np.array_equal(row.draws[0][0], row.draws[1][0])


def test_the_first_column_is_the_whole_file_in_its_own_units(work_dir, tmp_path):
    """A ramp of 16 bits, whose black is 20,000 and whose white is 50,000."""
    ramp = np.linspace(10000, 60000, 90 * 40).round().astype(np.uint16).reshape(40, 90)
    cv2.imwrite(str(tmp_path / '$1$.png'), ramp)
    crop = dict(type='DecodeRandomCrop', size=24, channels=1, depth='own', scale=(1.0, 1.0))
    cfg = Config.fromfile(TINY)
    cfg.work_dir = str(work_dir)
    cfg.train_dataloader.dataset = dict(
        type='ImageFiles', data_root=str(tmp_path), pipeline=[crop, PACK])
    cfg.train_dataloader.collate_fn = dict(type='default_collate')
    cfg.model.data_preprocessor = dict(
        type='AugmentPreprocessor', mean=[30000.], std=[9000.], value_range=(20000, 50000),
        views=dict(jitter=None, grey=0, blur=None, flip=0))
    (row, ) = draw_views(Runner.from_cfg(cfg), 1, 2)
    black_to_white = np.rint(((ramp.astype(float) - 20000) / 30000).clip(0, 1) * 255)
    assert row.original.shape == (40, 90, 3)
    assert (np.abs(row.original - black_to_white[..., None]) <= 1).all()
    for (view, ) in row.draws:
        assert view.shape == (24, 24, 3)
        assert (view == 255).mean() < 0.4 and (view == 0).any() and len(np.unique(view)) > 30
    cfg.dump(tmp_path / 'config.py')
    browse_views.main([str(tmp_path / 'config.py'), '--out', str(tmp_path / 'views.svg'),
                       '--num-draws', '1'])
    assert '>$1$.png<' in (tmp_path / 'views.svg').read_text()


def test_a_file_that_cannot_be_read_has_no_first_column(work_dir):
    cfg = dict(train_dataloader=dict(dataset=dict(pipeline=[])))
    reader = reader_of(cfg)
    assert _original(reader, {}) is None
    assert _original(reader, dict(img_path=str(work_dir / 'gone.png'))) is None


def test_the_command_writes_a_picture(tmp_path, capsys):
    browse_views.main([str(TINY), '--num-images', '2', '--num-draws', '3', '--out',
                       str(tmp_path / 'new/views.png'), '--work-dir', str(tmp_path)])
    with Image.open(tmp_path / 'new/views.png') as picture:
        assert picture.width > picture.height > 200
    assert '2 images, 3 draws each; views of 32x32 pixels' in capsys.readouterr().out


def test_errors_in_one_line(tmp_path):
    config = tmp_path / 'empty.py'
    config.write_text('model = dict()\n')
    with pytest.raises(SystemExit, match='browse_views: .* has no train_dataloader'):
        browse_views.main([str(config)])
