# SPDX-License-Identifier: Apache-2.0
"""Pooled features of all shapes that backbones give."""
import pytest
import torch

from pic_plugin.models.pooling import pooled

MAPS = torch.arange(24.0).reshape(2, 3, 2, 2)  # (B, C, H, W)
TOKENS = MAPS.flatten(2).transpose(1, 2)  # (B, T, C)
VECTORS = torch.tensor([[1.5, 5.5, 9.5], [13.5, 17.5, 21.5]])


@pytest.mark.parametrize('outputs', [MAPS, TOKENS, VECTORS, (MAPS, VECTORS), [MAPS, TOKENS]])
def test_one_feature(outputs):
    assert torch.equal(pooled(outputs), VECTORS)


def test_several_features_of_an_image_are_joined():
    assert torch.equal(pooled((MAPS, [MAPS, VECTORS])), torch.cat([VECTORS, VECTORS], dim=1))


@pytest.mark.parametrize('outputs', [None, torch.zeros(3), (MAPS, None), [], (MAPS, ())])
def test_what_is_no_feature(outputs):
    with pytest.raises(ValueError, match='a backbone must give'):
        pooled(outputs)
