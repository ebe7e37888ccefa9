# SPDX-License-Identifier: Apache-2.0
"""AugmentPreprocessor as mmengine calls it."""
import functools
import pickle

import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torchvision.transforms.functional import gaussian_blur

from pic_plugin.models import AugmentPreprocessor
from pic_plugin.models.augment.colour import change_colours

UINT16 = getattr(torch, 'uint16', torch.int16)  # from torch 2.3 on
MEAN, STD = [120., 110., 100.], [60., 55., 50.]
OFF = dict(jitter=None, grey=0., blur=None, flip=0.)


def batch(size=(3, 12, 10), number=6, dtype=torch.uint8, high=256):
    pixels = torch.randint(0, high, (number, *size), generator=torch.Generator().manual_seed(0))
    return pixels.to(dtype)


def drawn(preprocessor, inputs, seed=0):
    torch.manual_seed(seed)
    return preprocessor(dict(inputs=inputs, data_samples=None), True)['inputs']


def test_evaluation_is_that_of_mmpretrains():
    ours = MODELS.build(dict(type='AugmentPreprocessor', mean=MEAN, std=STD, to_rgb=True))
    theirs = MODELS.build(dict(type='SelfSupDataPreprocessor', mean=MEAN, std=STD, to_rgb=True))
    samples = [DataSample(metainfo=dict(sample_idx=i)) for i in range(6)]
    data = dict(inputs=batch(), data_samples=samples)
    expected = theirs(data)
    found = ours(data)
    # Another order of the same float32 operations, on numbers up to 3.
    torch.testing.assert_close(found['inputs'], expected['inputs'], rtol=0, atol=1e-6)
    assert [sample.sample_idx for sample in found['data_samples']] == list(range(6))
    listed = ours(dict(data, inputs=[batch()]))['inputs']
    assert isinstance(listed, list) and torch.equal(listed[0], found['inputs'])


def test_without_operations_training_only_normalises():
    preprocessor = AugmentPreprocessor(MEAN, STD, to_rgb=True, views=OFF)
    view, = drawn(preprocessor, batch())
    torch.testing.assert_close(view, preprocessor(dict(inputs=batch()))['inputs'],
                               rtol=0, atol=1e-6)
    plain = AugmentPreprocessor(views=OFF)
    assert torch.equal(drawn(plain, batch())[0].round().to(torch.uint8), batch())


def test_flip_mirrors_some_images():
    preprocessor = AugmentPreprocessor(views=dict(OFF, flip=0.5))
    view, = drawn(preprocessor, batch(number=64))
    pixels = batch(number=64)
    mirrored = [torch.equal(new.round().to(torch.uint8), old.flip(-1))
                for new, old in zip(view, pixels)]
    kept = [torch.equal(new.round().to(torch.uint8), old) for new, old in zip(view, pixels)]
    assert all(a != b for a, b in zip(mirrored, kept))
    assert 15 < sum(mirrored) < 49


def test_only_images_drawn_for_it_are_blurred():
    preprocessor = AugmentPreprocessor(views=dict(OFF, blur=dict(sigma=(2., 2.), prob=0.5)))
    pixels = batch(number=64)
    view, = drawn(preprocessor, pixels)
    roughness = (view[..., 1:] - view[..., :-1]).abs().mean((1, 2, 3))
    before = (pixels[..., 1:].float() - pixels[..., :-1]).abs().mean((1, 2, 3))
    blurred = roughness < 0.3 * before
    assert 15 < blurred.sum() < 49
    torch.testing.assert_close(roughness[~blurred], before[~blurred])


def test_views_of_several_sizes_and_recipes():
    views = [dict(size=12, **OFF), dict(size=(8, 6), num_views=2, jitter=None, grey=1., blur=None)]
    preprocessor = AugmentPreprocessor(MEAN, STD, views=views)
    inputs = [batch((3, 12, 12)), batch((3, 8, 6)), batch((3, 8, 6))]
    large, *small = drawn(preprocessor, inputs)
    assert [tuple(view.shape) for view in (large, *small)] == [
        (6, 3, 12, 12), (6, 3, 8, 6), (6, 3, 8, 6)]
    pixels = small[0] * preprocessor.std + preprocessor.mean
    torch.testing.assert_close(pixels[:, 0], pixels[:, 2], rtol=0, atol=1e-3)
    assert not torch.equal(*small), 'each view has its own draws'
    with pytest.raises(ValueError, match='delivers 2 views.*declares 3'):
        drawn(preprocessor, inputs[:2])
    with pytest.raises(ValueError, match='view 1 is 12x12 pixels .* declares 8x6'):
        drawn(preprocessor, [inputs[0], inputs[0], inputs[1]])


def test_one_default_recipe_serves_any_number_of_views():
    preprocessor = AugmentPreprocessor(MEAN, STD)
    first, second = drawn(preprocessor, [batch(), batch()])
    assert not torch.equal(first, second)
    assert len(drawn(preprocessor, batch())) == 1


def test_same_state_same_views():
    preprocessor = AugmentPreprocessor(MEAN, STD)
    first, again, other = (drawn(preprocessor, batch(), seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_half_precision_around_it_changes_nothing():
    preprocessor = AugmentPreprocessor(
        views=dict(OFF, blur=dict(sigma=(1.5, 1.5), prob=1.)))
    expected = gaussian_blur(batch().float(), [11, 11], [1.5, 1.5])
    with torch.autocast('cpu', torch.bfloat16):
        view, = drawn(preprocessor, batch())
    assert view.dtype == torch.float32
    # float32 on numbers up to 255; bfloat16 would be wrong by 1.
    torch.testing.assert_close(view, expected, rtol=0, atol=1e-3)


def test_channels_last_changes_the_format_alone():
    plain, = drawn(AugmentPreprocessor(MEAN, STD), batch())
    view, = drawn(AugmentPreprocessor(MEAN, STD, channels_last=True), batch())
    assert view.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, view)


def test_colours_for_a_compiler_are_the_same_in_one_graph(monkeypatch):
    # Without generating code, which takes a minute on a CPU: what tracing can break is tested.
    whole = functools.partial(torch.compile, backend='eager', fullgraph=True)
    monkeypatch.setattr(torch, 'compile', whole)
    plain, = drawn(AugmentPreprocessor(MEAN, STD), batch())
    preprocessor = AugmentPreprocessor(MEAN, STD, compile=True)
    view, = drawn(preprocessor, batch())
    assert preprocessor._change_colours is not change_colours, 'it was not compiled'
    # Another order of float32 operations; the scale is that of normalised pixels.
    torch.testing.assert_close(view, plain, rtol=0, atol=2e-5)
    smaller, = drawn(preprocessor, batch(number=5))
    torch.testing.assert_close(smaller, drawn(AugmentPreprocessor(MEAN, STD), batch(number=5))[0],
                               rtol=0, atol=2e-5)


def test_what_cannot_be_compiled_runs_as_it_is(monkeypatch):
    def no_compiler(function):
        def fail(*args):
            raise RuntimeError('no compiler')
        return fail

    monkeypatch.setattr(torch, 'compile', no_compiler)
    preprocessor = AugmentPreprocessor(MEAN, STD, compile=True)
    view, = drawn(preprocessor, batch())
    assert torch.equal(view, drawn(AugmentPreprocessor(MEAN, STD), batch())[0])


@pytest.mark.parametrize('dtype', [UINT16, torch.int32, torch.float32])
def test_other_depths_with_a_declared_range(dtype):
    settings = dict(mean=[1100.] * 3, std=[100.] * 3, value_range=(1000, 1250))
    pixels = batch(dtype=torch.int32, high=250) + 1000
    pixels[0, :, 0, 0], pixels[1, :, 0, 0] = 400, 2000  # cut off
    preprocessor = AugmentPreprocessor(**settings, views=OFF)
    view, = drawn(preprocessor, pixels.to(dtype))
    expected = (pixels.float().clamp(1000, 1250) - 1100) / 100
    torch.testing.assert_close(view, expected, rtol=0, atol=1e-5)
    full, = drawn(AugmentPreprocessor(**settings), pixels.to(dtype))
    assert full.min() >= -1.001 and full.max() <= 1.501
    assert not torch.equal(full, view)


@pytest.mark.parametrize('training', [False, True])
def test_pixels_without_a_value_are_black(training):
    pixels = batch(dtype=torch.int32, high=250).float() + 1000
    black = pixels.clone()
    pixels[:, :, 0, 0], black[:, :, 0, 0] = torch.nan, 1000
    pixels[:, :, 1, 1], black[:, :, 1, 1] = torch.inf, 1250
    preprocessor = AugmentPreprocessor([1100.] * 3, [100.] * 3, value_range=(1000, 1250))
    found, expected = (preprocessor(dict(inputs=some), training)['inputs']
                       for some in (pixels, black))
    if not training:
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    else:
        assert found[0].isfinite().all()


@pytest.mark.parametrize('channels', [1, 4])
def test_other_channels(channels, caplog):
    preprocessor = AugmentPreprocessor([100.] * channels, [50.] * channels, to_rgb=True)
    assert drawn(preprocessor, batch((channels, 9, 9)))[0].shape == (6, channels, 9, 9)
    one_for_all = AugmentPreprocessor([100.], [50.])
    assert drawn(one_for_all, batch((channels, 9, 9)))[0].shape == (6, channels, 9, 9)


@pytest.mark.parametrize('size', [(3, 1, 1), (3, 1, 5), (3, 2, 2), (1, 3, 3)])
def test_tiny_images(size):
    view, = drawn(AugmentPreprocessor([0.], [1.]), batch(size, number=40))
    assert view.shape == (40, *size) and view.isfinite().all()


def test_wrong_inputs_are_named():
    preprocessor = AugmentPreprocessor(MEAN, STD)
    with pytest.raises(TypeError, match='view 0 is float32.*expects uint8.*value_range'):
        drawn(preprocessor, batch(dtype=torch.float32))
    with pytest.raises(TypeError, match='view 0 is u?int.*value_range'):
        drawn(preprocessor, batch(dtype=UINT16))
    for value_range in ((0, 4095), (0, 1)):
        with pytest.raises(TypeError, match='view 0 is uint8, and value_range=.*another depth'):
            drawn(AugmentPreprocessor(MEAN, STD, value_range=value_range), batch())
    drawn(AugmentPreprocessor(MEAN, STD, value_range=[0, 255]), batch())
    with pytest.raises(ValueError, match='view 0 has 4 channels.*mean and std of 3'):
        drawn(preprocessor, batch((4, 8, 8)))
    with pytest.raises(ValueError, match='view 0 is list, expected a tensor.*default_collate'):
        preprocessor(dict(inputs=[[batch()[0]], [batch()[0]]]))  # as pseudo_collate leaves views
    with pytest.raises(ValueError, match='expected a tensor'):
        drawn(preprocessor, batch()[0])
    for settings, message in [
            (dict(mean=[1.]), 'go together'), (dict(mean=[1.], std=[0.]), 'above 0'),
            (dict(mean=[1.], std=[1., 1.]), 'one number for each channel'),
            (dict(value_range=(5, 5)), 'black, white'), (dict(views=[]), 'views is empty')]:
        with pytest.raises(ValueError, match=message):
            AugmentPreprocessor(**settings)


def test_it_can_be_pickled():
    preprocessor = pickle.loads(pickle.dumps(AugmentPreprocessor(MEAN, STD)))
    assert torch.equal(drawn(preprocessor, batch())[0],
                       drawn(AugmentPreprocessor(MEAN, STD), batch())[0])
