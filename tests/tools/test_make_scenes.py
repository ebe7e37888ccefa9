# SPDX-License-Identifier: Apache-2.0
"""make_scenes: what the command writes, and what it refuses."""
import numpy as np
import pytest

from pic_plugin.studies.scenes.make_scenes import make_scenes
from pic_plugin.tools.make_scenes import main


def test_all_formats(tmp_path, capsys):
    main([str(tmp_path), '--format', 'voc', 'coco', 'cityscapes', '--train', '8', '--val', '4',
          '--size', '64', '48'])
    assert len(capsys.readouterr().out.splitlines()) == 3
    voc = tmp_path / 'VOCdevkit'

    def names(path):
        return (voc / path).read_text().split()

    # Both years have training scenes, of which 2012 has some in the additional set only.
    assert len(names('VOC2007/ImageSets/Main/trainval.txt')) == 4
    assert len(names('VOC2007/ImageSets/Main/test.txt')) == 4
    assert len(names('VOC2012/ImageSets/Main/trainval.txt')) == 4
    assert len(names('VOC2012/ImageSets/Segmentation/train.txt')) == 6
    assert len(names('VOC2012/ImageSets/Segmentation/aug.txt')) == 2
    assert len(list(tmp_path.glob('coco/train2017/*.jpg'))) == 8
    assert len(list(tmp_path.glob('coco/val2017/*.jpg'))) == 4
    assert len(list(tmp_path.glob('cityscapes/gtFine/val/*/*.png'))) == 4


def test_training_and_evaluation_show_different_photos():
    train, val = (make_scenes(split, 4, (64, 48), 0) for split in ('train', 'val'))
    assert not any(np.array_equal(a.image, b.image) for a, b in zip(train, val))
    # More scenes, the same first ones.
    again = make_scenes('train', 2, (64, 48), 0)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(again, train))


def test_refused(tmp_path):
    (tmp_path / 'coco').mkdir()
    with pytest.raises(SystemExit, match='make_scenes: .*coco exists: remove it or choose'):
        main([str(tmp_path), '--format', 'coco'])
    with pytest.raises(SystemExit, match='at least 4 scenes'):
        main([str(tmp_path), '--train', '3'])
