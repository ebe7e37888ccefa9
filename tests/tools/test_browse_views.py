# SPDX-License-Identifier: Apache-2.0
"""The picture of augmented views shows what the network gets."""
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from pic_plugin.analysis.views import draw_views
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


def test_views_of_several_sizes(work_dir):
    crops = [[dict(type='RandomResizedCrop', scale=side)] for side in (24, 16)]
    rows = rows_of(work_dir, [dict(type='MultiView', num_views=[1, 2], transforms=crops), PACK])
    for row in rows:
        assert [[view.shape for view in draw] for draw in row.draws] == [
            [(24, 24, 3), (16, 16, 3), (16, 16, 3)]] * 2
        assert not np.array_equal(row.draws[0][0], row.draws[1][0])


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
