# SPDX-License-Identifier: Apache-2.0
"""What tests of data sets share: a cache of their own, and small pictures."""
import cv2
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Indices are kept in a folder of the test's own."""
    folder = tmp_path_factory.mktemp('cache')
    monkeypatch.setenv('PIC_PLUGIN_CACHE', str(folder))
    return folder


def encode(number, ending='.png'):
    """The bytes of a small picture that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.imencode(ending, pixels)[1].tobytes()


def write_images(folder, names, first=0):
    """Write different pictures by names below a folder."""
    for number, name in enumerate(names, first):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(number))
    return folder


@pytest.fixture
def images():
    """:func:`write_images`."""
    return write_images


@pytest.fixture
def encoded():
    """:func:`encode`."""
    return encode
