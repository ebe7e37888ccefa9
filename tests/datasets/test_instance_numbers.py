# SPDX-License-Identifier: Apache-2.0
"""Ids of joined and repeated data sets, against the images that samples really show."""
import os

import numpy as np
import pytest
import torch.utils.data
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmpretrain.datasets import KFoldDataset

from pic_plugin.datasets import ImageFiles, instance_numbers
from pic_plugin.datasets.instance_numbers import number_instances
from pic_plugin.engine.checkpoint.instance_keys import instance_keys
from pic_plugin.engine.preflight import check_dataset_ids


class Named(BaseDataset):
    """Files by name; a sample is (file, id)."""

    def __init__(self, names, folder='/data', **kwargs):
        self.names, self.folder = names, folder
        kwargs = dict(dict(data_root=folder, pipeline=[pair]), **kwargs)
        super().__init__(**kwargs)

    def load_data_list(self):
        return [dict(img_path=f'{self.folder}/{name}', gt_label=i % 3)
                for i, name in enumerate(self.names)]

    def get_cat_ids(self, idx):
        return [self.get_data_info(idx)['gt_label']]


class Unnamed(Named):
    """Images that no file names; a sample is (label, id)."""

    def load_data_list(self):
        return [dict(gt_label=name) for name in self.names]


def pair(results):
    return results.get('img_path', results.get('gt_label')), results['sample_idx']


def repeated(dataset, times=2):
    wrapped = RepeatDataset.__new__(RepeatDataset)  # __init__ takes no wrapper, a config does
    wrapped.dataset, wrapped.times, wrapped._metainfo = dataset, times, {}
    wrapped._fully_initialized = False
    wrapped.full_init()
    return wrapped


def fold(dataset):
    wrapped = KFoldDataset.__new__(KFoldDataset)
    vars(wrapped).update(dataset=dataset, fold=1, num_splits=3, test_mode=False, seed=0,
                         _metainfo={}, _fully_initialized=False)
    wrapped.full_init()
    return wrapped


A, B, C = 'abcdefg', 'hij', 'efgxyz'

CASES = dict(
    plain=lambda: Named(A),
    joined=lambda: ConcatDataset([Named(A), Named(B)]),
    joined_with_common_files=lambda: ConcatDataset([Named(A), Named(B), Named(C)]),
    joined_with_itself=lambda: ConcatDataset([Named(A), Named(A)]),
    joined_object_twice=lambda: ConcatDataset([(one := Named(A)), Named(B), one]),
    repeated=lambda: RepeatDataset(Named(A), times=3),
    repeated_single=lambda: RepeatDataset(Named('a'), times=2),
    repeated_joined=lambda: repeated(ConcatDataset([Named(A), Named(C)])),
    joined_repeated=lambda: torch.utils.data.ConcatDataset(
        [RepeatDataset(Named(A), 2), Named(B)]),
    balanced=lambda: ClassBalancedDataset(Named(A + B), oversample_thr=0.9),
    folds=lambda: fold(Named(A + B)),
    torch_joined=lambda: torch.utils.data.ConcatDataset([Named(A), Named(B)]),
    torch_subset=lambda: torch.utils.data.Subset(Named(A), [5, 1, 5, 3]),
    subset_of_joined=lambda: torch.utils.data.Subset(
        ConcatDataset([Named(A), Named(B)]), [8, 1, 8, 3]),
    subset=lambda: Named(A, indices=[4, 2, 0]),
    subset_with_copies=lambda: Named(A, indices=[4, 2, 4, 0]),
    joined_subsets=lambda: ConcatDataset([Named(A, indices=[4, 2, 4]), Named(A, indices=3)]),
    unserialized=lambda: ConcatDataset([Named(A, serialize_data=False), Named(B)]),
)


@pytest.mark.parametrize('case', CASES)
def test_one_id_for_each_image(case):
    dataset = CASES[case]()
    num_instances = check_dataset_ids(dataset, None)
    samples = [dataset[i] for i in range(len(dataset))]
    files = {file for file, _ in samples}
    assert len(set(samples)) == len(files) == num_instances
    assert {number for _, number in samples} == set(range(num_instances))
    ids = number_instances(dataset).ids
    assert [number for _, number in samples] == (
        list(range(len(dataset))) if ids is None else ids.tolist())
    # In the order in which the data set has them.
    first = list(dict.fromkeys(number for _, number in samples))
    assert first == sorted(first)
    # Each is known by its file.
    keys = instance_keys(dataset, 'img_path')
    assert len(keys) == num_instances == len(set(keys.tolist()))


def test_without_file_names_parts_are_different_images():
    dataset = ConcatDataset([Unnamed([5, 6]), Unnamed([5]), Unnamed([7, 8], indices=[1, 0, 1])])
    assert check_dataset_ids(dataset, None) == 5
    assert [dataset[i][1] for i in range(6)] == [0, 1, 2, 3, 4, 3]
    assert instance_keys(dataset, 'img_path') is None


def test_a_replaced_image_outside_of_the_subset_is_refused():
    leaf = Named(A)
    dataset = torch.utils.data.Subset(leaf, [5, 1])
    number_instances(dataset)
    transform = leaf.pipeline.transforms[0]
    assert transform(dict(sample_idx=2)) is None
    assert transform(dict(sample_idx=5)) == dict(sample_idx=0)


def test_numbering_again_changes_nothing():
    parts = [Named(A), Named(B)]
    dataset = ConcatDataset(parts)
    assert number_instances(dataset).renumbered
    for again in (dataset, ConcatDataset(parts)):
        number_instances(again)
        assert [again[i][1] for i in range(10)] == list(range(10))
    number_instances(ConcatDataset(parts[::-1]))
    assert parts[1][0][1] == 0 and parts[0][0][1] == 3


def test_keys_stay_when_data_sets_are_joined_reordered_and_moved():
    def named(dataset):
        number_instances(dataset)
        keys = instance_keys(dataset, 'img_path')
        samples = [dataset[i] for i in range(len(dataset))]
        return {file: keys[number] for file, number in samples}

    alone = named(Named(A, '/one'))
    joined = named(ConcatDataset([Named(B, '/two'), Named(A, '/one')]))
    assert {file: joined[file] for file in alone} == alone
    moved = named(ConcatDataset([Named(A, '/else/one'), Named(B, '/two')]))
    assert {file.replace('/else', ''): key for file, key in moved.items()} == joined


def test_image_files_are_numbered_too(tmp_path, images):
    for place in ('one', 'two', 'one/deep'):
        images(tmp_path / place, ['1.png', '2.png'], first=len(place))
    take = [pair]
    dataset = ConcatDataset([
        ImageFiles(str(tmp_path / 'one'), pipeline=take),
        ImageFiles(str(tmp_path / 'two'), pipeline=take, indices=[1, 0, 1]),
        ImageFiles(str(tmp_path / 'one/deep'), pipeline=take)])
    assert check_dataset_ids(dataset, None) == 6
    samples = {os.path.relpath(dataset[i][0], tmp_path): dataset[i][1] for i in range(9)}
    assert samples == {'one/1.png': 0, 'one/2.png': 1, 'one/deep/1.png': 2, 'one/deep/2.png': 3,
                       'two/2.png': 4, 'two/1.png': 5}
    assert len(set(instance_keys(dataset, 'img_path').tolist())) == 6


class Shifted(Named):
    """A data set that counts from one."""

    def get_data_info(self, idx):
        info = super().get_data_info(idx)
        info['sample_idx'] += 1
        return info


@pytest.mark.parametrize('make', [
    lambda: Shifted(A), lambda: ConcatDataset([Named(A), Shifted(B)])])
def test_ids_that_nothing_is_known_of_are_refused(make):
    with pytest.raises(ValueError, match='Shifted gives image 0 the id 1: .*Use ImageFiles'):
        number_instances(make())


def test_what_cannot_be_renumbered_is_refused():
    one, other = Named(A), Named(B)
    other.pipeline = pair
    with pytest.raises(ValueError, match='no pipeline of transforms'):
        number_instances(ConcatDataset([one, other]))


def test_many_images_of_a_plain_data_set_are_only_probed(monkeypatch):
    dataset = Named([str(i) for i in range(1000)])
    asked = []
    get = dataset.get_data_info
    dataset.get_data_info = lambda i: asked.append(i) or get(i)
    assert check_dataset_ids(dataset, None) == 1000
    assert len(asked) <= instance_numbers.NUM_PROBES
    assert check_dataset_ids(range(1000), 1200) == 1200


def test_ids_equal_those_of_one_list():
    rng = np.random.default_rng(0)
    for _ in range(20):
        parts = [list(map(str, rng.choice(30, rng.integers(1, 12), replace=False)))
                 for _ in range(rng.integers(1, 5))]
        dataset = ConcatDataset([Named(names) for names in parts])
        order = list(dict.fromkeys(sum(parts, [])))
        check_dataset_ids(dataset, None)
        assert [dataset[i][1] for i in range(len(dataset))] == [
            order.index(name) for name in sum(parts, [])]
