# SPDX-License-Identifier: Apache-2.0
"""LoadImageOrSkip in a real loader with workers, and MarkReference."""
import copy
import itertools
import pickle
import re
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
from mmcv.image import io as mmcv_io
from mmengine import fileio
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import TRANSFORMS
from torch.utils.data import DataLoader

from pic_plugin.datasets import LoadImageOrSkip, MarkReference, transforms

NUMBERS = itertools.count()
BROKEN = {2: b'', 5: b'this is text', 7: b'\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR', 10: None}
SKIPPED = re.compile(r'Skipped an image that cannot be loaded \((\d+) loads? skipped so far\): '
                     r'\S*?(\d\d)\.png: (.*)')


@pytest.fixture
def images(tmp_path, work_dir, capfd):
    """A folder of 12 pictures, number i all of colour (10 i, 20 i, 5 i), four of them broken."""
    MMLogger.get_instance(f'skip_{next(NUMBERS)}')  # writes to where capfd listens now
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(12):
        write(folder, i)
    return folder


def write(folder, i):
    cv2.imwrite(str(folder / f'{i:02d}.png'), np.full((8, 6, 3), (10 * i, 20 * i, 5 * i), np.uint8))


def break_images(folder):
    for i, content in BROKEN.items():
        if content is None:
            (folder / f'{i:02d}.png').unlink()
        else:
            (folder / f'{i:02d}.png').write_bytes(content)


def make_dataset(folder, **settings):
    pipeline = [dict(type='LoadImageOrSkip'), dict(type='PackInputs', meta_keys=('sample_idx', ))]
    return CustomDataset(data_root=str(folder), with_label=False, pipeline=pipeline, **settings)


@pytest.mark.parametrize('start, num_workers', [(None, 0), ('fork', 2), ('spawn', 1)])
def test_broken_images_are_skipped_counted_and_their_ids_never_used(
        images, start, num_workers, capfd):
    dataset = make_dataset(images)
    break_images(images)
    loader = DataLoader(dataset, batch_size=4, collate_fn=pseudo_collate, shuffle=True,
                        num_workers=num_workers, multiprocessing_context=start,
                        persistent_workers=start is not None)
    for _ in range(2):
        ids = []
        for batch in loader:
            for image, sample in zip(batch['inputs'], batch['data_samples']):
                i = sample.sample_idx
                assert image[:, 0, 0].tolist() == [10 * i, 20 * i, 5 * i], 'id of another'
                ids.append(i)
        assert len(ids) == 12
        assert not set(ids) & set(BROKEN)
        assert set(ids) == set(range(12)) - set(BROKEN)
    out, err = capfd.readouterr()
    warnings = SKIPPED.findall(out + err)
    counts = sorted(int(count) for count, _, _ in warnings)
    # Each broken image is asked for once an epoch; replacements may hit one again.
    assert dataset.pipeline.transforms[0].num_skipped >= 2 * len(BROKEN)
    # It is named once.
    assert sorted(int(i) for _, i, _ in warnings) == sorted(BROKEN)
    assert counts[0] >= 1 and counts[-1] <= dataset.pipeline.transforms[0].num_skipped
    reasons = {int(i): reason for _, i, reason in warnings}
    assert 'FileNotFoundError' in reasons[10]
    assert 'not an image that the decoder knows' in reasons[5]


@pytest.mark.parametrize('start', ['fork', 'forkserver'])
def test_copies_count_into_one_number(images, start):
    """mmengine's subsets are deep copies, and more workers may follow earlier ones."""
    dataset = make_dataset(images)
    break_images(images)
    subset = dataset.get_subset([2, 3])
    for _ in DataLoader(subset, batch_size=2, collate_fn=pseudo_collate, num_workers=1,
                        multiprocessing_context=start):
        pass
    counted = dataset.pipeline.transforms[0].num_skipped
    assert counted == subset.pipeline.transforms[0].num_skipped >= 1
    dataset[5]
    assert subset.pipeline.transforms[0].num_skipped > counted


def test_processes_do_not_write_to_the_same_number(monkeypatch):
    """Adding one to a shared number is not atomic: counts of two workers could be lost."""
    transform = LoadImageOrSkip()
    for worker in (None, SimpleNamespace(id=0), SimpleNamespace(id=1)):
        monkeypatch.setattr(transforms, 'get_worker_info', lambda worker=worker: worker)
        transform(dict(img_path='/nowhere/01.png'))
    assert transform.num_skipped == 3
    assert transform.skipped._slots.unique(return_counts=True)[0].tolist() == [0, 1]


def test_plain_pickle_starts_a_count_of_its_own():
    transform = LoadImageOrSkip()
    other = pickle.loads(pickle.dumps(transform))
    assert other.transform(dict(img_path='/nowhere/01.png')) is None
    assert (transform.num_skipped, other.num_skipped) == (0, 1)
    assert copy.deepcopy(other).num_skipped == 1


def test_intact_images_load_as_with_mmcv(images):
    path = str(images / '03.png')
    for settings in (dict(), dict(to_float32=True), dict(color_type='grayscale'),
                     dict(imdecode_backend='pillow')):
        results = LoadImageOrSkip(**settings)(dict(img_path=path, sample_idx=3))
        expected = mmcv.transforms.LoadImageFromFile(**settings)(dict(img_path=path))
        assert np.array_equal(results['img'], expected['img'])
        assert results['img'].dtype == expected['img'].dtype
        assert results['img_shape'] == results['ori_shape'] == (8, 6)
        assert results['sample_idx'] == 3


@pytest.mark.parametrize('decoder', ['cv2', 'pillow'])
@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.webp'])
def test_cut_off_file_is_broken(tmp_path, suffix, decoder):
    path = tmp_path / f'01{suffix}'
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(path), noise)
    transform = LoadImageOrSkip(imdecode_backend=decoder)
    assert transform(dict(img_path=str(path)))['img'].shape == (64, 64, 3)
    path.write_bytes(path.read_bytes()[:2000])
    assert transform(dict(img_path=str(path))) is None


def test_file_that_may_not_be_read_is_skipped(images, monkeypatch):
    def refuse(path, backend_args=None):
        raise PermissionError(13, 'Permission denied', path)  # root is never refused: not by chmod

    monkeypatch.setattr(fileio, 'get', refuse)
    assert LoadImageOrSkip()(dict(img_path=str(images / '03.png'))) is None


def test_a_folder_in_place_of_a_file_is_skipped(tmp_path):
    assert LoadImageOrSkip()(dict(img_path=str(tmp_path))) is None


def test_test_mode_stops_instead(images):
    dataset = make_dataset(images, test_mode=True)
    break_images(images)
    assert dataset[3]['data_samples'].sample_idx == 3
    with pytest.raises(Exception, match='Test time pip'):
        dataset[5]


def test_memory_error_is_no_broken_image(images, monkeypatch):
    def fail(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(mmcv, 'imfrombytes', fail)
    transform = LoadImageOrSkip()
    with pytest.raises(MemoryError):
        transform(dict(img_path=str(images / '03.png')))
    assert transform.num_skipped == 0


def test_settings_that_fail_for_every_image_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="imdecode_backend 'turbojpeg' is not supported"):
        LoadImageOrSkip(imdecode_backend='turbojpeg')
    with pytest.raises(ValueError, match="color_type 'colour' is unknown"):
        LoadImageOrSkip(color_type='colour')
    monkeypatch.setattr(mmcv_io, 'tifffile', None)
    with pytest.raises(ImportError, match='pip install tifffile'):
        LoadImageOrSkip(imdecode_backend='tifffile')


def test_mark_reference_reaches_the_data_sample():
    image = np.zeros((4, 4, 3), np.uint8)
    pack = TRANSFORMS.build(dict(type='PackInputs', meta_keys=('sample_idx', 'reference')))
    mark = TRANSFORMS.build(dict(type='MarkReference'))
    assert isinstance(mark, MarkReference)
    marked = pack(mark(dict(img=image, sample_idx=4)))['data_samples']
    plain = pack(dict(img=image, sample_idx=5))['data_samples']
    assert marked.to_dict() == dict(sample_idx=4, reference=True)
    assert plain.to_dict() == dict(sample_idx=5)
