# SPDX-License-Identifier: Apache-2.0
"""Blur of a batch against torchvision's, image by image."""
import pytest
import torch
from torchvision.transforms import functional as F

from pic_plugin.models.augment.blur import gaussian_blur, kernel_radius


@pytest.mark.parametrize('size', [(224, 224), (32, 17), (7, 9)])
def test_it_is_torchvisions(size):
    images = torch.rand(5, 3, *size, generator=torch.Generator().manual_seed(0))
    sigmas = torch.tensor([0.1, 0.3, 0.8, 1.3, 2.0])
    blurred = gaussian_blur(images, sigmas, 6)
    for image, sigma, result in zip(images, sigmas, blurred):
        expected = F.gaussian_blur(image, [13, 13], [float(sigma)] * 2)
        # float32, sums of 13 x 13 numbers of at most 1.
        torch.testing.assert_close(result, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize('size', [(1, 1), (1, 8), (3, 2), (6, 6)])
def test_images_smaller_than_the_kernel_keep_their_mean(size):
    flat = torch.full((2, 3, *size), 0.3)
    torch.testing.assert_close(gaussian_blur(flat, torch.tensor([0.5, 2.]), 6), flat)


def test_a_kernel_of_three_sigma():
    assert kernel_radius(2.0) == 6
    assert kernel_radius(0.1) == 1


def test_one_channel_and_many():
    images = torch.rand(2, 5, 12, 12)
    sigmas = torch.tensor([1., 2.])
    together = gaussian_blur(images, sigmas, 6)
    for c in range(5):
        torch.testing.assert_close(gaussian_blur(images[:, c:c + 1], sigmas, 6)[:, 0],
                                   together[:, c], rtol=0, atol=1e-6)
