# SPDX-License-Identifier: Apache-2.0
"""Half-precision rows against torch's own conversions, and their error bounds."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pic_plugin.bank import RowCodec

# Nearer to float32's end numbers round to infinity, as in any conversion.
ROWS = hnp.arrays(np.float32, (3, 2, 5), elements=st.floats(-2.0**127, 2.0**127, width=32))


def round_trip(values, dtype, squares=()):
    codec = RowCodec(dtype, squares)
    return codec.decode(codec.encode(values))


def test_float32_is_kept_as_it_is():
    values = np.random.default_rng(0).normal(size=(4, 2, 6)).astype(np.float32)
    np.testing.assert_array_equal(round_trip(values, 'float32'), values)


@settings(max_examples=300)
@given(ROWS)
def test_bfloat16_is_torchs(values):
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    np.testing.assert_array_equal(round_trip(values, 'bfloat16'), expected)


@settings(max_examples=300)
@given(ROWS)
def test_float16_is_right_to_11_bits_of_the_rows_largest(values):
    error = np.abs(round_trip(values, 'float16').astype(np.float64) - values.astype(np.float64))
    largest = np.abs(values.astype(np.float64)).max(axis=2, keepdims=True)
    # Half a unit of the 11th bit; float32's own smallest number where the row is that small.
    assert (error <= largest * 2.0**-11 + 2.0**-149).all()


@settings(max_examples=300)
@given(ROWS, st.sampled_from(['float16', 'bfloat16']))
def test_encoding_again_changes_nothing(values, dtype):
    once = round_trip(values, dtype)
    again = round_trip(once, dtype)
    np.testing.assert_array_equal(again.view(np.uint32), once.view(np.uint32))


def test_float16_keeps_what_lies_below_its_own_range():
    values = (1e-12 * np.random.default_rng(0).normal(size=(8, 1, 128))).astype(np.float32)
    error = np.abs(round_trip(values, 'float16') - values)
    assert error.max() < 2.0**-11 * np.abs(values).max()
    assert np.abs(values.astype(np.float16)).max() == 0, 'without an exponent beside it'


# A square near float32's end rounds to infinity, as numbers do in any conversion.
SQUARES = hnp.arrays(np.float32, (3, 2, 5), elements=st.floats(0, 2.0**120, width=32))


@settings(max_examples=300)
@given(SQUARES, st.sampled_from(['float32', 'float16', 'bfloat16']))
def test_squares(values, dtype):
    once = round_trip(values, dtype, squares=[1])
    again = round_trip(once, dtype, squares=[1])
    np.testing.assert_array_equal(again.view(np.uint32), once.view(np.uint32))
    np.testing.assert_array_equal(once[:, 0], round_trip(values, dtype)[:, 0])
    roots = np.sqrt(values[:, 1].astype(np.float64))
    error = np.abs(np.sqrt(once[:, 1].astype(np.float64)) - roots)
    tolerance = dict(float32=0.0, float16=2.0**-11 * roots.max(axis=1, keepdims=True),
                     bfloat16=2.0**-9 * roots)[dtype]
    # Below 2e-18, which no eps leaves anything of, roots may be kept as zero.
    assert (error <= 1.001 * tolerance + 2e-18).all()


def test_second_moments_of_gradients_over_six_decades():
    moments = np.float32(10.0)**np.arange(-13, 3, dtype=np.float32)[None, None]
    assert (round_trip(moments, 'float16')[0, 0, :3] == 0).all(), 'the plane could be kept plainly'
    for dtype in ('float16', 'bfloat16'):
        kept = round_trip(moments, dtype, squares=[0])
        np.testing.assert_allclose(np.sqrt(kept), np.sqrt(moments), rtol=2.0**-9)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_not_a_number_stays_one(dtype):
    values = np.array([[[np.nan, 1.0], [0.0, -0.0]]], dtype=np.float32)
    decoded = round_trip(values, dtype)
    assert np.isnan(decoded[0, 0, 0]) and (decoded[0, 1] == 0).all()


def test_unknown_dtype():
    with pytest.raises(ValueError, match="'float8': choose one of float32, float16, bfloat16"):
        RowCodec('float8')
