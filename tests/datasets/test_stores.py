# SPDX-License-Identifier: Apache-2.0
"""LMDB and Hugging Face data sets, with the real packages where these are installed."""
import importlib.util
import subprocess
import sys

import pytest
from torch.utils.data import DataLoader

from pic_plugin.datasets import ImageFiles
from pic_plugin.datasets.members import read_bytes
from pic_plugin.datasets.open_archives import close_archives
from pic_plugin.datasets.stores import is_lmdb, is_rows
from pic_plugin.engine.checkpoint.instance_keys import instance_keys

PIPELINE = [dict(type='LoadImageOrSkip'),
            dict(type='PackInputs', meta_keys=('sample_idx', 'img_path'))]
needs_lmdb = pytest.mark.skipif(importlib.util.find_spec('lmdb') is None,
                                reason='lmdb is not installed (pip install lmdb)')
# This folder is a package of that name to Python, without an origin.
needs_datasets = pytest.mark.skipif(
    getattr(importlib.util.find_spec('datasets'), 'origin', None) is None,
    reason='datasets is not installed (pip install datasets)')


def pixels_of(dataset):
    return [dataset[i]['inputs'].numpy().tobytes() for i in range(len(dataset))]


def write_lmdb(path, contents):
    import lmdb
    close_archives()
    with lmdb.open(str(path), map_size=2**20) as environment, environment.begin(
            write=True) as transaction:
        for key, content in contents.items():
            transaction.put(key, content)


@needs_lmdb
def test_lmdb(tmp_path, images, encoded):
    folder = images(tmp_path / 'data', [f'{i}.png' for i in range(6)])
    write_lmdb(tmp_path / 'db', {b'__len__': b'6', **{
        b'caf\xe9/%d' % i: encoded(i) for i in range(6)}})
    assert is_lmdb(str(tmp_path / 'db')) and not is_lmdb(str(folder))
    dataset = ImageFiles(str(tmp_path / 'db'), pipeline=PIPELINE)
    assert pixels_of(dataset) == pixels_of(ImageFiles(str(folder), pipeline=PIPELINE))
    assert '1 key of an LMDB with "__" in front (__len__)' in str(dataset.report)
    assert 'Exact copies were not looked for' in str(dataset.report)
    assert len(set(instance_keys(dataset, 'img_path').tolist())) == 6
    # Workers, forked and pickled, after this process has opened it.
    for method in ('fork', 'forkserver'):
        loader = DataLoader(dataset, batch_size=None, num_workers=1,
                            multiprocessing_context=method)
        assert [sample['inputs'].numpy().tobytes() for sample in loader] == pixels_of(dataset)
    with pytest.raises(ValueError, match='duplicates="merge" needs files'):
        ImageFiles(str(tmp_path / 'db'), duplicates='merge')
    write_lmdb(tmp_path / 'db', {b'new': encoded(9)})
    assert len(ImageFiles(str(tmp_path / 'db'))) == 7


@needs_lmdb
def test_a_key_that_is_gone(tmp_path, encoded):
    write_lmdb(tmp_path / 'db', {b'a': encoded(1)})
    info = ImageFiles(str(tmp_path / 'db')).get_data_info(0)
    assert read_bytes(info) == encoded(1)
    with pytest.raises(OSError, match="has no key 'b'"):
        read_bytes(dict(img_path=info['img_path'].replace('!/a?', '!/b?')))


WRITE_ROWS = """
import sys, datasets
features = datasets.Features(dict(
    image=datasets.Image(), label=datasets.ClassLabel(names=['cat', 'dog']),
    patient=datasets.Value('string')))
data = datasets.Dataset.from_dict(dict(
    image=[dict(bytes=open(f'{sys.argv[1]}/{i}.png', 'rb').read(), path=None) for i in range(6)],
    label=[0, 1, 0, 1, 0, 1], patient=list('ppqqrr')), features=features)
data.save_to_disk(sys.argv[2])
datasets.DatasetDict(train=data).save_to_disk(sys.argv[3])
"""


@needs_datasets
def test_rows_of_a_hugging_face_data_set(tmp_path, images):
    folder = images(tmp_path / 'data', [f'{i}.png' for i in range(6)])
    # In a process of its own: what it pickles for its fingerprints differs with what is imported.
    subprocess.run([sys.executable, '-c', WRITE_ROWS, folder, tmp_path / 'rows',
                    tmp_path / 'splits'], check=True)
    assert is_rows(str(tmp_path / 'rows')) and not is_rows(str(folder))
    dataset = ImageFiles(str(tmp_path / 'rows'), pipeline=PIPELINE, with_label=True)
    assert pixels_of(dataset) == pixels_of(ImageFiles(str(folder), pipeline=PIPELINE))
    assert dataset.CLASSES == ('cat', 'dog') and dataset.get_gt_labels().tolist() == [0, 1] * 3
    named = ImageFiles(str(tmp_path / 'rows'), with_label=True, label_column='patient')
    assert named.CLASSES == ('p', 'q', 'r') and named.get_gt_labels().tolist() == [0, 0, 1, 1, 2, 2]
    grouped = ImageFiles(str(tmp_path / 'rows'), instance_key=dict(column='patient'))
    assert len(grouped) == 3
    with pytest.raises(ValueError, match="none is 'video'"):
        ImageFiles(str(tmp_path / 'rows'), instance_key=dict(column='video'))
    with pytest.raises(ValueError, match=r"splits \['train'\]: name the folder"):
        ImageFiles(str(tmp_path / 'splits'))
    assert len(ImageFiles(str(tmp_path / 'splits/train'))) == 6


@pytest.mark.parametrize('kind, package', [('db.lmdb', 'lmdb'), ('rows', 'datasets')])
def test_a_missing_package_is_named(tmp_path, monkeypatch, kind, package):
    monkeypatch.setitem(sys.modules, package, None)
    if package == 'lmdb':
        (tmp_path / kind).write_bytes(b'x')
    else:
        (tmp_path / kind).mkdir()
        (tmp_path / kind / 'state.json').write_text('{}')
        assert not is_rows(str(tmp_path / kind))  # anybody's
        (tmp_path / kind / 'dataset_info.json').write_text('{}')
    with pytest.raises(ImportError, match=f'run `pip install {package}`'):
        ImageFiles(str(tmp_path / kind))
