# SPDX-License-Identifier: Apache-2.0
"""All ways in which a config may name a class."""
import pytest
from mmengine.config import ConfigDict
from mmengine.config.lazy import LazyObject
from mmengine.model import PretrainedInit

from pic_plugin.datasets.decode_random_crop import DecodeRandomCrop
from pic_plugin.engine.type_names import is_pretrained, type_name


@pytest.mark.parametrize('kind', [
    'DecodeRandomCrop', 'mmpretrain.DecodeRandomCrop', DecodeRandomCrop,
    'pic_plugin.datasets.decode_random_crop.DecodeRandomCrop',
    LazyObject('pic_plugin.datasets.decode_random_crop', 'DecodeRandomCrop')])
def test_one_name_for_all_spellings(kind):
    assert type_name(dict(type=kind)) == type_name(ConfigDict(type=kind)) == 'DecodeRandomCrop'


def test_no_type():
    assert type_name({}) == type_name(dict(type=None)) == ''


@pytest.mark.parametrize('kind', ['Pretrained', 'mmengine.Pretrained', PretrainedInit,
                                  'mmengine.model.weight_init.PretrainedInit'])
def test_weights_of_a_file(kind):
    assert is_pretrained(dict(type=kind, checkpoint='a.pth'))
    assert not is_pretrained([dict(type=kind)]) and not is_pretrained(None)
    assert not is_pretrained(dict(type='Kaiming'))
