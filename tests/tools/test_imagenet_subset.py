# SPDX-License-Identifier: Apache-2.0
"""Lists of labelled ImageNet images: SimCLR's form in, mmpretrain's out."""
from collections import Counter

import pytest
from mmpretrain.datasets import ImageNet

from pic_plugin.evaluation.imagenet_subset import choose_images
from pic_plugin.tools import imagenet_subset

CLASSES = ('n01440764', 'n01443537', 'n01484850')


@pytest.fixture
def train(tmp_path):
    """Three classes of 20, 21 and 22 images, and a file that is none."""
    for extra, name in enumerate(CLASSES):
        folder = tmp_path / 'imagenet' / 'train' / name
        folder.mkdir(parents=True)
        for i in range(20 + extra):
            (folder / f'{name}_{10 * i}.JPEG').touch()
    (folder / 'notes.txt').touch()
    return tmp_path / 'imagenet' / 'train'


def run(tmp_path, train, lines=None, *options):
    file = tmp_path / 'list.txt'
    if lines is not None:
        file.write_text(''.join(f'{line}\n' for line in lines))
    out = train.parent / 'meta' / 'train_part.txt'
    imagenet_subset.main([str(file), str(train), '--out', str(out), *options])
    return out


def test_a_given_list_becomes_what_mmpretrain_reads(tmp_path, train, capsys):
    names = ['n01484850_30.JPEG', 'n01440764_0.JPEG', 'n01443537_10.JPEG', 'n01440764_190.JPEG']
    out = run(tmp_path, train, names)
    assert out.read_text().splitlines()[:2] == [
        'n01484850/n01484850_30.JPEG 2', 'n01440764/n01440764_0.JPEG 0']
    said = capsys.readouterr()
    assert '4 images of 3 classes' in said.out
    # A folder too few, and all labels behind it are other classes'.
    assert '3 folders, and ImageNet-1K 1000' in said.err
    dataset = ImageNet(data_root=str(train.parent), split='train', ann_file='meta/train_part.txt')
    found = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [info['gt_label'] for info in found] == [2, 0, 1, 0]
    assert [info['img_path'].rsplit('/', 1)[1] for info in found] == names
    assert all(info['img_path'].startswith(str(train)) for info in found)


def test_a_share_is_not_rounded_down_twice():
    """In floating point 29 / 100 * 100 is less than 29."""
    images = {name: [f'{name}_{number}.JPEG' for number in range(50)] for name in CLASSES[:2]}
    assert len(choose_images(images, 29, seed=0)) == 29


def test_a_made_list_is_balanced_and_passes_its_own_check(tmp_path, train):
    run(tmp_path, train, None, '--make', '10.5')
    names = (tmp_path / 'list.txt').read_text().split()
    counts = Counter(name.split('_')[0] for name in names)
    assert len(names) == 6 and set(counts) == set(CLASSES)  # 10.5 % of 63 images
    assert max(counts.values()) - min(counts.values()) <= 1
    first = run(tmp_path, train).read_text()
    (tmp_path / 'list.txt').unlink()
    assert run(tmp_path, train, None, '--make', '10.5').read_text() == first
    (tmp_path / 'list.txt').unlink()
    assert run(tmp_path, train, None, '--make', '10.5', '--seed', '1').read_text() != first


@pytest.mark.parametrize('lines, message', [
    ([], 'is empty'),
    (['n01440764_0.JPEG', 'n01440764_0.JPEG'], 'more than once, n01440764_0.JPEG'),
    (['n01440764_5.JPEG'], '1 of the 1 images .* are not there, n01440764_5.JPEG'),
    (['n09999999_0.JPEG'], 'are not there'),
    (['n01440764/n01440764_0.JPEG'], 'are not there'),
    (['n01440764_0.JPEG', 'n01440764_10.JPEG', 'n01443537_0.JPEG'],
     'not balanced: 0 images of n01484850 and 2 of n01440764'),
])
def test_bad_lists(tmp_path, train, lines, message):
    with pytest.raises(SystemExit, match=f'imagenet_subset: .*{message}'):
        run(tmp_path, train, lines)
    assert not (train.parent / 'meta').exists()


def test_other_bad_input(tmp_path, train):
    with pytest.raises(SystemExit, match='so that each class has one'):
        run(tmp_path, train, None, '--make', '1')
    with pytest.raises(SystemExit, match='n01440764 has 20: choose a smaller part'):
        run(tmp_path, train, None, '--make', '100')
    with pytest.raises(SystemExit, match='list.txt exists'):
        run(tmp_path, train, ['n01440764_0.JPEG'], '--make', '10')
    with pytest.raises(SystemExit, match='a folder for each class|folder of images for each class'):
        run(tmp_path, tmp_path / 'gone', ['n01440764_0.JPEG'])
    (train / 'n01500000').mkdir()
    with pytest.raises(SystemExit, match='n01500000 has no images'):
        run(tmp_path, train, ['n01440764_0.JPEG'])
