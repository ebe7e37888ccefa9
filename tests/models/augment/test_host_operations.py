# SPDX-License-Identifier: Apache-2.0
"""A pipeline that augments on the host before the device does."""
import pytest
from mmengine.dataset import ConcatDataset
from mmengine.registry import DefaultScope

from pic_plugin.datasets import ImageGrid
from pic_plugin.models.augment import ViewRecipe
from pic_plugin.models.augment.host_operations import doubled_operations

JITTER = [dict(type='NumpyToPIL', to_rgb=True),
          dict(type='RandomApply', prob=0.8, transforms=[
              dict(type='torchvision/ColorJitter', brightness=0.4)]),
          dict(type='torchvision/RandomGrayscale', p=0.2),
          dict(type='PILToNumpy', to_bgr=True)]


def dataset(pipeline):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return ImageGrid('cifar10_test_1000.webp', pipeline=pipeline)


@pytest.mark.parametrize('pipeline', [
    JITTER, [dict(type='MultiView', num_views=[2], transforms=[JITTER])]], ids=['plain', 'views'])
def test_they_are_found_inside_of_others(pipeline):
    found = doubled_operations(dataset(pipeline), [ViewRecipe()])
    assert found == ['jitter (ColorJitter)', 'grey (RandomGrayscale)']
    joined = ConcatDataset([dataset([]), dataset(pipeline)])
    assert doubled_operations(joined, [ViewRecipe()]) == found


def test_only_what_both_do():
    pipeline = [dict(type='RandomFlip', prob=0.5), dict(type='DecodeRandomCrop', size=24)]
    assert doubled_operations(dataset(pipeline), [ViewRecipe()]) == ['flip (RandomFlip)']
    assert doubled_operations(dataset(pipeline), [ViewRecipe(flip=0.)]) == []
    assert doubled_operations(dataset(pipeline[1:]), [ViewRecipe()]) == []
