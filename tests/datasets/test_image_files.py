# SPDX-License-Identifier: Apache-2.0
"""The data set over folders, lists, archives and back-ends: what a training gets of it."""
import functools
import http.server
import os
import pickle
import shutil
import tarfile
import threading

import numpy as np
import pytest
from mmengine.fileio import LocalBackend, register_backend
from mmpretrain.registry import DATASETS
from torch.utils.data import DataLoader

from pic_plugin.datasets import (
    ImageFiles,
    SlidingWindowSampler,
    image_files,
    instance_grouping,
    skip_broken,
)
from pic_plugin.datasets.file_index import IndexStore
from pic_plugin.engine.checkpoint.instance_keys import instance_keys

LOAD = dict(type='LoadImageOrSkip')
PACK = dict(type='PackInputs', meta_keys=('sample_idx', 'img_path'))


def infos_of(dataset):
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def names_of(dataset, root):
    return [os.path.relpath(info['img_path'], root) for info in infos_of(dataset)]


def pixels_of(dataset):
    """Each sample's pixels by its id, as bytes."""
    return {sample['data_samples'].sample_idx: sample['inputs'].numpy().tobytes()
            for sample in (dataset[i] for i in range(len(dataset)))}


def test_a_folder(tmp_path, images):
    images(tmp_path, ['b/2.png', 'a/1.png', '.ipynb_checkpoints/1.png', 'x.dcm'])
    dataset = DATASETS.build(dict(type='ImageFiles', data_root=str(tmp_path)))
    assert infos_of(dataset) == [
        dict(img_path=str(tmp_path / 'a/1.png'), sample_idx=0),
        dict(img_path=str(tmp_path / 'b/2.png'), sample_idx=1)]
    assert dataset.get_data_info(-1)['sample_idx'] == 1
    with pytest.raises(IndexError):
        dataset.get_data_info(2)
    assert 'Pictures: 2' in str(dataset.report) and '.dcm' in repr(dataset)


def test_resume_of_a_training_on_custom_dataset(tmp_path, images):
    images(tmp_path, ['b/2.png', 'a/1.png', 'c.png'])
    old = DATASETS.build(dict(type='CustomDataset', data_root=str(tmp_path), with_label=False))
    new = ImageFiles(str(tmp_path))
    old_keys, new_keys = (
        dict(zip(names_of(one, tmp_path), instance_keys(one, 'img_path'))) for one in (old, new))
    assert old_keys == new_keys and len(old_keys) == 3


def test_several_folders_and_names_for_them(tmp_path, images):
    a, b = images(tmp_path / 'a', ['1.png', '2.png']), images(tmp_path / 'b', ['1.png'], 2)
    dataset = ImageFiles([str(a), str(b)], pipeline=[LOAD, PACK])
    assert names_of(dataset, tmp_path) == ['a/1.png', 'a/2.png', 'b/1.png']
    assert len(set(pixels_of(dataset).values())) == 3
    assert len(set(instance_keys(dataset, 'img_path').tolist())) == 3
    # A pattern of one name, too.
    named = ImageFiles({'both': f'{tmp_path}/*'})
    assert len(named) == len(set(instance_keys(named, 'img_path').tolist())) == 3
    alone = instance_keys(ImageFiles(str(a)), 'img_path')
    named = instance_keys(ImageFiles({'later': str(b)}), 'img_path')
    assert not set(alone.tolist()) & set(named.tolist())


@pytest.mark.parametrize('roots', [
    ['a', 'a'], ['a', 'a/b'], ['a', 'link'], ['a/0.tar', 'a', 'a/b'], ['a/0.tar', 'a/0.tar']])
def test_a_folder_in_another_one(tmp_path, images, roots):
    pack_tars(images(tmp_path / 'a', ['b/1.png']), tmp_path / 'a', 1)
    os.symlink('a', tmp_path / 'link')
    with pytest.raises(ValueError, match='is the same folder or lies in it.*leave one'):
        ImageFiles([str(tmp_path / root) for root in roots])


def test_an_archive_in_a_folder_has_images_of_its_own(tmp_path, images):
    """As the report of the folder says: name it in data_root."""
    folder = images(tmp_path, ['b/1.png', 'b/2.png'])
    pack_tars(folder, folder, 1)
    assert '1 .tar file, not read: archives: name them in data_root' in str(
        ImageFiles(str(folder)).report)
    assert len(ImageFiles([str(folder), f'{folder}/0.tar'])) == 4


def test_labels_are_folders(tmp_path, images):
    images(tmp_path, ['dog/x/1.png', 'cat/1.png', 'dog/2.png'])
    dataset = ImageFiles(str(tmp_path), with_label=True)
    assert [info['gt_label'] for info in infos_of(dataset)] == [0, 1, 1]
    assert dataset.CLASSES == ('cat', 'dog') and dataset.get_gt_labels().tolist() == [0, 1, 1]
    assert dataset.get_cat_ids(1) == [1]
    dataset = ImageFiles(str(tmp_path), with_label=True, classes=['dog', 'cat'])
    assert [info['gt_label'] for info in infos_of(dataset)] == [1, 0, 0]
    with pytest.raises(ValueError, match='folder dog is not among the classes'):
        ImageFiles(str(tmp_path), with_label=True, classes=['cat'])
    images(tmp_path, ['loose.png'])
    with pytest.raises(ValueError, match='loose.png lies in no folder'):
        ImageFiles(str(tmp_path), with_label=True)


def test_lists(tmp_path, images):
    images(tmp_path / 'data', ['a/1.png', 'b/2.png', 'c.png'])
    (tmp_path / 'x.csv').write_text(
        f'file,label\nb/2.png,dog\n{tmp_path}/data/a/1.png,cat\nhttp://host/3.png,dog\n')
    dataset = ImageFiles(str(tmp_path / 'data'), ann_file=str(tmp_path / 'x.csv'), with_label=True)
    assert [info['img_path'] for info in infos_of(dataset)] == [
        str(tmp_path / 'data/b/2.png'), str(tmp_path / 'data/a/1.png'), 'http://host/3.png']
    assert [info['gt_label'] for info in infos_of(dataset)] == [1, 0, 1]
    # By their place in the classes that are given, as folders are.
    dataset = ImageFiles(str(tmp_path / 'data'), ann_file=str(tmp_path / 'x.csv'), with_label=True,
                         classes=['dog', 'bird', 'cat'])
    assert [info['gt_label'] for info in infos_of(dataset)] == [0, 2, 0]
    with pytest.raises(ValueError, match='label cat is not among the classes'):
        ImageFiles(str(tmp_path / 'data'), ann_file=str(tmp_path / 'x.csv'), with_label=True,
                   classes=['dog'])
    # Beside the images, and below data_root.
    (tmp_path / 'data/x.txt').write_text('c.png\n')
    for options in (dict(ann_file=str(tmp_path / 'data/x.txt')),
                    dict(data_root=str(tmp_path / 'data'), ann_file='x.txt')):
        assert names_of(ImageFiles(**options), tmp_path) == ['data/c.png']


def test_an_image_that_is_listed_again_is_one_class(tmp_path, images):
    images(tmp_path, ['1.png', '2.png', '3.png'])
    (tmp_path / 'x.txt').write_text('2.png\n1.png\n2.png\n')
    (tmp_path / 'y.txt').write_text('3.png\n1.png\n')
    dataset = ImageFiles(ann_file=str(tmp_path / 'x.txt'))
    assert names_of(dataset, tmp_path) == ['2.png', '1.png']
    assert '1 entry lists an image again' in str(dataset.report)
    assert 'copies' not in str(dataset.report) and 'copy' not in str(dataset.report)
    shutil.copy(tmp_path / '1.png', tmp_path / '3.png')
    dataset = ImageFiles(ann_file=[str(tmp_path / f'{name}.txt') for name in 'xy'])
    assert '1 exact copy of other images (such as 3.png = 1.png): each' in str(dataset.report)
    assert names_of(dataset, tmp_path) == ['2.png', '1.png', '3.png']


def test_a_list_whose_images_are_not_there(tmp_path):
    (tmp_path / 'x.txt').write_text('1.png\n2.png\n')
    with pytest.raises(FileNotFoundError, match='1.png: set data_root'):
        ImageFiles(ann_file=str(tmp_path / 'x.txt'))
    with pytest.raises(FileNotFoundError, match='no list .*check ann_file'):
        ImageFiles(ann_file=str(tmp_path / 'y.txt'))


def pack_tars(folder, tmp_path, count):
    files = sorted(folder.rglob('*.png'))
    for shard in range(count):
        with tarfile.open(tmp_path / f'{shard}.tar', 'w') as tar:
            for file in files[shard::count]:
                tar.add(file, file.relative_to(folder))


def test_shards_give_the_pixels_of_the_folder(tmp_path, images, monkeypatch):
    folder = images(tmp_path / 'data', [f'{i % 3}/{i:02d}.png' for i in range(20)])
    pack_tars(folder, tmp_path, 3)
    shutil.make_archive(str(tmp_path / '3'), 'zip', folder)
    pipeline = [LOAD, PACK]
    expected = set(pixels_of(ImageFiles(str(folder), pipeline=pipeline)).values())
    shards = ImageFiles(f'{tmp_path}/*.tar', pipeline=pipeline)
    assert len(shards) == 20 and set(pixels_of(shards).values()) == expected
    plain = ImageFiles(f'{tmp_path}/*.tar', pipeline=[dict(type='LoadImageFromFile'), PACK])
    assert pixels_of(plain) == pixels_of(shards)
    zipped = ImageFiles(str(tmp_path / '3.zip'), pipeline=pipeline, with_label=True)
    assert set(pixels_of(zipped).values()) == expected
    assert len(set(instance_keys(shards, 'img_path').tolist())) == 20
    # The index is made once.
    monkeypatch.setattr('pic_plugin.datasets.sources.index_archive', None)
    assert pixels_of(ImageFiles(f'{tmp_path}/*.tar', pipeline=pipeline)) == pixels_of(shards)
    os.utime(tmp_path / '0.tar')
    with pytest.raises(TypeError):
        ImageFiles(f'{tmp_path}/*.tar')


@pytest.mark.parametrize('method', ['fork', 'forkserver'])
def test_workers(tmp_path, images, method):
    folder = images(tmp_path / 'data', [f'{i}.png' for i in range(8)])
    os.rename(os.fsencode(folder / '0.png'), os.fsencode(folder) + b'/caf\xe9.png')
    pack_tars(folder, tmp_path, 2)
    dataset = ImageFiles([str(folder), f'{tmp_path}/*.tar'], pipeline=[LOAD, PACK])
    expected = pixels_of(dataset)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=method)
    assert {sample['data_samples'].sample_idx: sample['inputs'].numpy().tobytes()
            for sample in loader} == expected
    assert len(expected) == 16


def test_broken_and_unreadable_names_are_skipped(tmp_path, images):
    folder = images(tmp_path, [f'{i}.png' for i in range(3)])
    with open(os.fsencode(folder) + b'/caf\xe9.png', 'wb') as file:
        file.write(b'no picture')
    dataset = ImageFiles(str(folder), pipeline=[LOAD, PACK])
    place = next(i for i, info in enumerate(infos_of(dataset)) if '\udce9' in info['img_path'])
    assert dataset[place]['data_samples'].sample_idx != place
    assert len(instance_keys(dataset, 'img_path')) == 4


def test_an_evaluation_names_what_it_leaves_out(tmp_path, images, monkeypatch):
    """Surrogates, which stand for bytes that are not UTF-8, would break the line of the log."""
    folder, said = images(tmp_path, ['1.png']), []
    with open(os.fsencode(folder) + b'/caf\xe9.png', 'wb') as file:
        file.write(b'no picture')
    monkeypatch.setattr(skip_broken, 'print_log', lambda line, **kwargs: said.append(line))
    dataset = ImageFiles(str(folder), pipeline=[LOAD, PACK], test_mode=True)
    skip_broken.skip_broken(dataset)
    assert len(dataset.__getitems__([0, 1])) == 2
    assert len(said) == 1 and r'caf\xe9.png: ' in said[0] and said[0].isascii()


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *args):
        pass


def test_a_list_on_a_web_server(tmp_path, images):
    folder = images(tmp_path, ['a/1.png', '2.png'])
    (folder / 'x.txt').write_text('a/1.png\n2.png\n')
    with http.server.ThreadingHTTPServer(
            ('127.0.0.1', 0), functools.partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f'http://127.0.0.1:{server.server_address[1]}'
        served = ImageFiles(root, ann_file='x.txt', pipeline=[LOAD, PACK])
        with pytest.raises(ValueError, match='cannot list http.*give the images as a list'):
            ImageFiles(root)
        got = pixels_of(served)
        server.shutdown()
    assert set(got.values()) == set(pixels_of(
        ImageFiles(str(folder), pipeline=[LOAD, PACK])).values())
    assert len(set(instance_keys(served, 'img_path').tolist())) == 2


@register_backend('stub-of-tests')
class StubBackend(LocalBackend):
    """Files of a folder that no path names."""

    def __init__(self, folder):
        self.folder = folder

    def get(self, filepath):
        return super().get(f'{self.folder}/{filepath[5:]}')

    def list_dir_or_file(self, dir_path, **kwargs):
        return super().list_dir_or_file(f'{self.folder}/{dir_path[5:]}', **kwargs)


def test_a_storage_back_end_that_the_config_names(tmp_path, images):
    folder = images(tmp_path, ['top/a/1.png', 'top/2.png', 'top/@eaDir/2.png'])
    args = dict(backend='stub-of-tests', folder=str(folder))
    dataset = ImageFiles('stub/top', backend_args=args, pipeline=[LOAD, PACK])
    assert [info['img_path'] for info in infos_of(dataset)] == [
        'stub/top/2.png', 'stub/top/a/1.png']
    assert len(set(pixels_of(dataset).values())) == 2
    assert 'of the system (@eaDir/2.png)' in str(dataset.report)


@pytest.mark.parametrize('options, error, message', [
    (dict(), ValueError, 'neither data_root nor ann_file'),
    (dict(data_root='missing'), FileNotFoundError, 'nothing at .*missing: check data_root'),
    (dict(data_root='*.tar'), FileNotFoundError, 'nothing matches'),
    (dict(data_root='note.txt'), ValueError, 'neither a folder nor .*ann_file'),
    (dict(data_root='empty'), ValueError, r'(?s)no images in .*1 other file \(a.txt\)'),
    (dict(data_root=['data', 'empty'], ann_file='note.txt'), ValueError,
     'with ann_file, data_root is the one folder'),
    (dict(data_root='data', duplicates='drop'), ValueError, "duplicates='drop' is unknown"),
    (dict(data_root='data', instance_key=dict(pattern='video')), ValueError,
     "'video' is in none of the 1 paths, such as 1.png"),
    (dict(data_root='data', instance_key=dict(column='video')), ValueError, 'give lists'),
])
def test_mistakes(tmp_path, images, monkeypatch, options, error, message):
    images(tmp_path / 'data', ['1.png'])
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty/a.txt').touch()
    (tmp_path / 'note.txt').touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        ImageFiles(**options)


def test_subsets(tmp_path, images):
    images(tmp_path, [f'{i}.png' for i in range(6)])
    assert names_of(ImageFiles(str(tmp_path), indices=2), tmp_path) == ['0.png', '1.png']
    assert names_of(ImageFiles(str(tmp_path), indices=-2), tmp_path) == ['4.png', '5.png']
    dataset = ImageFiles(str(tmp_path), indices=[5, 0, 3])
    assert names_of(dataset, tmp_path) == ['5.png', '0.png', '3.png']
    assert [info['sample_idx'] for info in infos_of(dataset)] == [0, 1, 2]
    part = dataset.get_subset([2, 0])
    assert names_of(part, tmp_path) == ['3.png', '5.png'] and len(dataset) == 3
    whole = instance_keys(ImageFiles(str(tmp_path)), 'img_path')
    np.testing.assert_array_equal(instance_keys(part, 'img_path'), whole[[3, 5]])
    kept = pickle.loads(pickle.dumps(part))
    assert names_of(kept, tmp_path) == ['3.png', '5.png']


def test_a_subset_of_what_a_sampler_has_seen(tmp_path, images):
    images(tmp_path, [f'{i}.png' for i in range(3)])
    dataset = ImageFiles(str(tmp_path), pipeline=[LOAD, PACK])
    SlidingWindowSampler(dataset)
    sample, = next(iter(DataLoader(dataset.get_subset([2]), collate_fn=list)))
    assert sample['data_samples'].img_path == str(tmp_path / '2.png')


def test_a_folder_whose_name_is_that_of_an_archive(tmp_path, images):
    assert len(ImageFiles(str(images(tmp_path / 'unpacked.tar', ['1.png'])))) == 1


def test_lazy_init(tmp_path, images):
    dataset = ImageFiles(str(tmp_path / 'later'), lazy_init=True)
    images(tmp_path / 'later', ['1.png'])
    assert len(dataset) == 1


@pytest.mark.parametrize('change', ['add', 'remove', 'rename', 'deep'])
def test_a_kept_index_follows_the_folder(tmp_path, images, monkeypatch, change):
    monkeypatch.setattr(IndexStore.get, '__defaults__', (1, ))
    folder = images(tmp_path / 'data', ['a/1.png', 'a/b/2.png'])
    for place in ('', 'a', 'a/b'):
        os.utime(folder / place, ns=(0, 10**18))  # long ago: no doubt about what they held
    ImageFiles(str(folder))
    monkeypatch.setattr('pic_plugin.datasets.sources.walk', None)
    assert len(ImageFiles(str(folder))) == 2  # not walked again
    monkeypatch.undo()
    monkeypatch.setattr(IndexStore.get, '__defaults__', (1, ))
    if change == 'add':
        images(folder, ['a/3.png'])
    elif change == 'remove':
        os.remove(folder / 'a/b/2.png')
    elif change == 'rename':
        os.rename(folder / 'a/1.png', folder / 'a/x.png')
    else:
        images(folder, ['a/b/c/9.png'])
    expected = sorted(str(file.relative_to(folder)) for file in folder.rglob('*.png'))
    assert names_of(ImageFiles(str(folder)), folder) == expected


@pytest.mark.parametrize('kind', ['disk', 'permission'])
def test_a_kept_index_notices_what_can_be_read_now(tmp_path, images, monkeypatch, kind):
    """A disk is mounted, or a folder opened: no folder that was read has changed."""
    monkeypatch.setattr(IndexStore.get, '__defaults__', (1, ))
    folder = images(tmp_path / 'data', ['1.png'])
    if kind == 'disk':
        os.symlink('../disk/more', folder / 'more')
    else:
        images(folder / 'more', ['2.png'])
    os.utime(folder, ns=(0, 10**18))
    scandir, access = os.scandir, os.access

    def refuse(path):
        if os.fsencode(path).endswith(b'/more'):
            raise PermissionError(13, 'Permission denied')
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)  # the tests' user may be one who may read all
    monkeypatch.setattr(os, 'access', lambda path, mode: (
        not os.fspath(path).endswith('more') and access(path, mode)))
    for _ in range(2):
        assert len(ImageFiles(str(folder))) == 1
    monkeypatch.setattr(os, 'scandir', scandir)
    monkeypatch.setattr(os, 'access', access)
    if kind == 'disk':
        images(tmp_path / 'disk/more', ['2.png'])
    assert names_of(ImageFiles(str(folder)), folder) == ['1.png', 'more/2.png']


def test_a_folder_that_has_just_changed_is_not_believed(tmp_path, images, monkeypatch):
    monkeypatch.setattr(IndexStore.get, '__defaults__', (1, ))
    folder = images(tmp_path / 'data', ['1.png'])
    before = os.stat(folder)
    ImageFiles(str(folder))
    images(folder, ['2.png'])
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))  # a clock that ticks slowly
    assert len(ImageFiles(str(folder))) == 2


def test_exact_copies_are_reported_and_merged(tmp_path, images):
    images(tmp_path, ['a/1.png', 'a/2.png', 'b/3.png', 'b/4.png'])
    shutil.copy(tmp_path / 'a/2.png', tmp_path / 'b/0.png')
    content = (tmp_path / 'a/1.png').read_bytes()
    (tmp_path / 'b/9.png').write_bytes(content[:-1] + b'?')  # as long, another end
    dataset = ImageFiles(str(tmp_path))
    assert len(dataset) == 6
    assert '1 exact copy of other images (such as b/0.png = a/2.png)' in str(dataset.report)
    assert "duplicates='merge'" in str(dataset.report)
    merged = ImageFiles(str(tmp_path), duplicates='merge', pipeline=[LOAD, PACK])
    assert names_of(merged, tmp_path) == ['a/1.png', 'a/2.png', 'b/3.png', 'b/4.png', 'b/9.png']
    assert 'they are one class with them' in str(merged.report)
    drawn = {merged[1]['data_samples'].img_path[-7:] for _ in range(40)}
    assert drawn == {'a/2.png', 'b/0.png'}
    assert 'copies' not in str(ImageFiles(str(tmp_path), duplicates='ignore').report)


def test_copies_between_an_archive_and_a_folder(tmp_path, images):
    folder = images(tmp_path / 'data', [f'{i}.png' for i in range(4)])
    pack_tars(folder, tmp_path, 1)
    shutil.make_archive(str(tmp_path / '0'), 'zip', folder)
    roots = [str(folder), str(tmp_path / '0.tar'), str(tmp_path / '0.zip')]
    assert len(ImageFiles(roots, duplicates='merge')) == 4
    assert len(ImageFiles(roots)) == 12


def test_many_images_are_searched_on_demand_alone(tmp_path, images, monkeypatch):
    monkeypatch.setattr(instance_grouping, 'MAX_SEARCHED', 2)
    images(tmp_path, ['1.png', '2.png', '3.png'])
    shutil.copy(tmp_path / '1.png', tmp_path / '4.png')
    assert 'were not looked for' in str(ImageFiles(str(tmp_path)).report)
    assert '1 exact copy' in str(
        ImageFiles(str(tmp_path), duplicates='report').report)


def test_images_of_one_key_are_one_class(tmp_path, images):
    names = [f'v{i % 3}/f{i}.png' for i in range(9)] + ['still.png']
    images(tmp_path, names)
    dataset = ImageFiles(str(tmp_path), instance_key=dict(pattern=r'(v\d)/'), pipeline=[LOAD, PACK])
    assert len(dataset) == 4
    assert '1 image without a key' in str(dataset.report)
    assert 'Instance classes: 4 of 10 images' in str(dataset.report)
    for number in range(4):
        visits = [dataset[number]['data_samples'] for _ in range(60)]
        assert {visit.sample_idx for visit in visits} == {number}
        drawn = {os.path.relpath(visit.img_path, tmp_path) for visit in visits}
        start = 'still' if number == 0 else f'v{number - 1}/'  # in the order of names
        assert drawn == {name for name in names if name.startswith(start)}
    # Frames that come later change nothing of the class; a test always sees the same one.
    keys = instance_keys(dataset, 'img_path')
    images(tmp_path, ['v0/f0a.png', 'v9/f1.png'])
    grown = ImageFiles(str(tmp_path), instance_key=dict(pattern=r'(v\d)/'), test_mode=True,
                       pipeline=[LOAD, PACK])
    assert len(grown) == 5 and set(keys) < set(instance_keys(grown, 'img_path'))
    assert len({grown[1]['data_samples'].img_path for _ in range(20)}) == 1


def test_the_cache_holds_images_and_not_classes(tmp_path, images):
    """A class of several images is shown by any of them, cached or not."""
    images(tmp_path, ['v/1.png', 'v/2.png'])
    crop = dict(type='DecodeRandomCrop', size=8, scale=(1.0, 1.0), ratio=(1.0, 1.0),
                cache=dict(short_edge=8, max_bytes=10**5, window_size=10))
    dataset = ImageFiles(str(tmp_path), instance_key=dict(pattern='v'), pipeline=[crop, PACK])
    shown = {(sample['data_samples'].img_path[-5:], sample['inputs'].numpy().tobytes())
             for sample in (dataset[0] for _ in range(40))}
    assert len(dataset) == 1 and len(shown) == 2 and len({pixels for _, pixels in shown}) == 2
    assert dataset.pipeline.transforms[0].cache.hits == 38


def test_two_videos_of_one_name_in_two_folders_are_two(tmp_path, images):
    for place in 'ab':
        images(tmp_path / place, ['v/1.png', 'v/2.png'], ord(place))
    assert len(ImageFiles([str(tmp_path / 'a'), str(tmp_path / 'b')],
                          instance_key=dict(pattern='v'))) == 2


def test_keys_of_a_column_are_keys_in_all_lists(tmp_path, images):
    images(tmp_path, [f'{i}.png' for i in range(5)])
    (tmp_path / 'x.csv').write_text('path,patient\n0.png,p\n1.png,q\n2.png,p\n')
    (tmp_path / 'y.jsonl').write_text('{"path": "3.png", "patient": "q"}\n'
                                      '{"path": "4.png", "patient": "r"}\n')
    dataset = ImageFiles(ann_file=[str(tmp_path / 'x.csv'), str(tmp_path / 'y.jsonl')],
                         instance_key=dict(column='patient'))
    assert names_of(dataset, tmp_path) == ['0.png', '1.png', '4.png']


def test_images_without_a_key_in_a_column(tmp_path, images):
    for place in 'ab':
        images(tmp_path / place, [f'{i}.png' for i in range(3)], ord(place))
        (tmp_path / place / 'x.csv').write_text('path,patient\n0.png,p\n1.png,\n2.png,\n')
    dataset = ImageFiles(ann_file=[str(tmp_path / place / 'x.csv') for place in 'ab'],
                         instance_key=dict(column='patient'))
    assert names_of(dataset, tmp_path) == ['a/0.png', 'a/1.png', 'a/2.png', 'b/1.png', 'b/2.png']
    assert "4 images without a key in the column 'patient': each is" in str(dataset.report)


def test_duplicates_that_neighbours_found(tmp_path, images):
    images(tmp_path, [f'{i}.png' for i in range(5)])
    file = tmp_path / 'duplicates.csv'
    file.write_text('first,second,kind,similarity,pixel_difference\n'
                    f'0.png,3.png,similar,0.99,1\n3.png,{tmp_path}/4.png,similar,0.985,1\n'
                    '1.png,2.png,similar,0.9,1\ngone.png,2.png,similar,0.99,1\n')
    dataset = ImageFiles(str(tmp_path), instance_key=dict(duplicates=str(file), similarity=0.98))
    assert names_of(dataset, tmp_path) == ['0.png', '1.png', '2.png']
    assert '1 name in' in str(dataset.report) and 'gone.png' in str(dataset.report)
    file.write_text('first,second\nx,y\n')
    with pytest.raises(ValueError, match='none of the names .*such as x'):
        ImageFiles(str(tmp_path), instance_key=dict(duplicates=str(file)))


def test_a_name_of_two_pictures_joins_neither(tmp_path, images):
    a, b = (images(tmp_path / name, ['0.png', '1.png', f'{name}.png']) for name in 'ab')
    file = tmp_path / 'duplicates.csv'

    def names(pairs):
        file.write_text('first,second,similarity\n' + pairs)
        return names_of(ImageFiles([str(a), str(b)], instance_key=dict(
            duplicates=str(file), similarity=0.98)), tmp_path)

    with pytest.raises(ValueError, match='names 1.png, which is .*/a/1.png and .*/b/1.png: .*'
                                         'whole paths, such as .*/b/1.png'):
        names('b.png,1.png,0.99\n')
    assert 'b/b.png' not in names(f'b.png,{b}/1.png,0.99\n0.png,1.png,0.9\n')


def test_registered_name():
    assert DATASETS.get('ImageFiles') is image_files.ImageFiles
