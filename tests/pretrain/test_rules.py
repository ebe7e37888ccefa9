# SPDX-License-Identifier: Apache-2.0
"""The rules at 60 pictures, 5,000, a million and ten million, on a CPU, one GPU and eight."""
import itertools

import numpy as np
import pytest

from pic_plugin.datasets import SlidingWindowSampler
from pic_plugin.pretrain import rules
from pic_plugin.pretrain.machine import Machine
from pic_plugin.pretrain.networks import Backbone
from pic_plugin.pretrain.plan import SHORT_RUN, make_plan
from pic_plugin.pretrain.rules import Facts, Wishes

GIB = 2**30
CPU = Machine(num_cores=2, host_bytes=16 * GIB, disk_bytes=100 * GIB)
GPU = Machine('cuda', 'A GPU', 78 * GIB, 1, 1, 16, 128 * GIB, 500 * GIB, True)
EIGHT = GPU._replace(num_devices=8, num_processes=8)
NONE = Wishes()
MACHINES = {'cpu': CPU, 'gpu': GPU, 'eight': EIGHT}
NUMBERS = (60, 5_000, 1_000_000, 10_000_000)
RESNET50 = Backbone('resnet50', dict(type='ResNet', depth=50), 2048, True, False, 23_508_032)


def plan_of(num_images, machine, median_side=500, wishes=NONE, rate=None, backbone=RESNET50):
    facts = Facts(num_images, median_side, machine)
    size = rules.choose_image_size(facts, wishes)
    network = rules.choose_backbone(facts, wishes, size.value)
    return make_plan(facts, wishes, backbone, size, network, rate)


@pytest.mark.parametrize('num_images, machine', list(itertools.product(NUMBERS, MACHINES)))
def test_what_holds_everywhere(num_images, machine):
    plan = plan_of(num_images, MACHINES[machine])
    batch = plan.global_batch
    # A step's images are distinct, and an image comes back while it is remembered.
    assert batch <= plan.window
    assert 1 <= plan.stride <= plan.window <= num_images // 2
    assert batch <= num_images
    assert plan.num_steps >= 1 and plan.epoch_length >= 1
    assert 2 <= plan.batch_size <= 256
    assert 0 < plan.rate < 1
    assert all(choice.reason for choice in plan.choices.values())
    text = rules.explain(plan.choices)
    assert f'{num_images:,}' in text and f'{plan.window:,}' in text
    # Nothing that a reader would have to look up.
    assert 'None' not in text


@pytest.mark.parametrize('num_images, machine, batch, window, stride, steps', [
    (60, CPU, 8, 30, 1, 1400),
    (60, GPU, 8, 30, 1, 14000),
    (60, EIGHT, 2, 30, 1, 2000 * 4),
    (5_000, CPU, 64, 500, 15, 60 * 78),
    (5_000, GPU, 256, 1024, 32, 200 * 19),
    (5_000, EIGHT, 32, 1024, 32, 200 * 19),
    (1_000_000, CPU, 64, 512, 16, 4688),
    (1_000_000, GPU, 256, 100_000, 12_500, 200 * 3906),
    (1_000_000, EIGHT, 32, 100_000, 12_500, 200 * 3906),
    (10_000_000, GPU, 256, 1_000_000, 125_000, 26 * 39062),
    (10_000_000, EIGHT, 32, 1_000_000, 125_000, 26 * 39062),
])
def test_sizes(num_images, machine, batch, window, stride, steps):
    plan = plan_of(num_images, machine)
    assert (plan.batch_size, plan.window, plan.stride, plan.num_steps) == (
        batch, window, stride, steps)


@pytest.mark.parametrize('num_images', [16, 60, 999, 5000, 10**6])
@pytest.mark.parametrize('batch', [8, 64])
def test_window_is_a_tenth_but_four_batches_and_at_most_half(num_images, batch):
    window, stride = rules.choose_window(num_images, batch).value
    assert window <= num_images / 2
    assert window >= min(4 * batch, num_images // 2)
    if num_images >= 40 * batch:
        assert window == num_images // 10
    assert stride == max(1, window // 8)
    window = min(window, 8 * batch)
    (value, reason) = rules.choose_window(num_images, batch, more_visits=True)
    assert value == (window, max(1, window // 32))
    assert ('eight batches of' in reason) == (window == 8 * batch != num_images // 10)


def test_rows_are_refreshed_in_short_runs_that_come_to_few_images():
    for num_images, machine, length, refresh, visits in (
            (5_000, CPU, {}, 1.0, 33), (20_000, GPU, {}, 1.0, 32), (40_000, GPU, {}, 0.0, 8),
            (50_000, GPU, dict(epochs=50), 1.0, 32), (50_001, GPU, dict(epochs=50), 0.0, 8),
            (1_000_000, CPU, {}, 1.0, 32), (1_000_000, GPU, dict(images_seen=500_000), 1.0, 32),
            (1_000_000, GPU, dict(images_seen=700_000), 0.0, 8)):
        plan = plan_of(num_images, machine, wishes=NONE._replace(**length))
        assert plan.refresh == refresh and plan.window // plan.stride == visits
    long = plan_of(5_000, GPU, wishes=NONE._replace(epochs=2000))
    assert long.refresh == 0 and long.window // long.stride == 8
    # Who goes on from a network starts classes as features, with the usual window.
    goes_on = plan_of(10**6, GPU, wishes=NONE._replace(start='network.pth'))
    assert goes_on.refresh == 1 and goes_on.window // goes_on.stride == 8


def test_sampled_negatives_and_where_rows_are_kept():
    small = plan_of(65_536, GPU)
    assert small.num_negatives is None and small.storage == 'device'
    large = plan_of(1_000_000, GPU)
    assert large.num_negatives == 65_536 and large.storage == 'memory'
    # 10.3 GB of rows: more than a quarter of 16 GiB.
    assert plan_of(10_000_000, CPU).storage == 'disk'
    tight = CPU._replace(disk_bytes=20 * GIB)
    assert plan_of(10_000_000, tight).storage == 'disk-half'
    with pytest.raises(ValueError, match=r'need 9\.6 GiB.*give --out'):
        plan_of(10_000_000, CPU._replace(disk_bytes=4 * GIB))


def test_rate_follows_the_batch_and_is_higher_in_short_runs():
    long = rules.choose_rate('SGD', 256, 10**6).value
    assert long == 0.03
    assert rules.choose_rate('SGD', 128, 10**6).value == long / 2
    # The demo: 128 images, 780 steps, 0.12.
    assert rules.choose_rate('SGD', 128, 780).value == 0.12
    between = [rules.choose_rate('SGD', 256, steps).value for steps in (2e3, 1e4, 5e4, 2e5)]
    assert between == sorted(between, reverse=True) and between[0] == 0.24 and between[-1] == 0.03


def test_temperature_is_lower_in_short_runs():
    assert plan_of(5000, CPU).temperature == 0.1
    assert plan_of(10**6, GPU).temperature == 0.2


def test_small_memory_takes_a_smaller_batch():
    assert plan_of(10**6, GPU._replace(device_bytes=8 * GIB)).batch_size == 64
    assert 'GiB' in plan_of(10**6, GPU._replace(device_bytes=8 * GIB)).choices['batch'].reason


@pytest.mark.parametrize('side, machine, size', [
    (32, CPU, 32), (64, GPU, 64), (96, CPU, 96), (150, CPU, 96), (150, GPU, 128),
    (500, CPU, 96), (500, GPU, 224)])
def test_resolution(side, machine, size):
    assert plan_of(5000, machine, side).image_size == size


def test_networks():
    assert plan_of(5000, CPU, 32).choices['backbone'].value == 'resnet-cifar-18-quarter'
    assert plan_of(5000, CPU).choices['backbone'].value == 'resnet18-quarter'
    assert plan_of(5000, GPU, 32).choices['backbone'].value == 'resnet-cifar-18'
    assert plan_of(4999, GPU).choices['backbone'].value == 'resnet18'
    assert plan_of(5000, GPU).choices['backbone'].value == 'resnet50'
    asked = plan_of(5000, GPU, wishes=Wishes(backbone='vit-small'))
    assert asked.choices['backbone'] == ('vit-small', 'as asked for')


def test_optimizer_and_memory_format_of_transformers():
    vit = RESNET50._replace(is_transformer=True)
    assert plan_of(10**6, GPU, backbone=vit).optimizer == 'AdamW'
    assert plan_of(5000, GPU).memory_format == 'channels_last'
    assert plan_of(5000, GPU, backbone=vit).memory_format == 'contiguous'


def test_precision_and_workers():
    assert [plan_of(5000, one).precision for one in (
        CPU, GPU, GPU._replace(bfloat16=False))] == ['float32', 'bfloat16', 'float16']
    assert [rules.choose_workers(one).value for one in (
        CPU._replace(num_cores=1), CPU, GPU, EIGHT._replace(num_cores=4))] == [0, 1, 15, 3]


def test_lengths():
    assert plan_of(5000, GPU, wishes=Wishes(epochs=3)).num_epochs == 3
    part = plan_of(5000, GPU, wishes=Wishes(images_seen=1000))
    assert part.num_epochs is None and part.num_steps == 4  # 256 images each
    longer = plan_of(5000, GPU, wishes=Wishes(images_seen=9000))
    assert longer.num_epochs == 2
    seen, why = longer.choices['images to see']
    assert seen == longer.num_steps * longer.global_batch != 9000
    assert why == '9,000 asked for, in whole steps and passes'
    open_ = plan_of(5000, GPU, wishes=Wishes(budget=7200.0))
    assert open_.choices['images to see'].value is None
    # Two hours at 100 images/s, less a tenth: 648,000 images hold 129 passes.
    settled = plan_of(5000, GPU, wishes=Wishes(budget=7200.0), rate=100.0)
    assert settled.num_epochs == 129
    why = settled.choices['images to see'].reason
    assert why.startswith('2.0 h at 100 images/s, in whole passes')
    assert settled.rate > plan_of(5000, GPU, wishes=Wishes(epochs=100_000)).rate


@pytest.mark.parametrize('passes', [0.1, 0.9, 1.5, 1.99, 2.6, 9.99, 10.9, 200.5])
@pytest.mark.parametrize('machine', [CPU, GPU, EIGHT])
def test_a_budget_holds_its_training_and_little_is_left(passes, machine):
    hours, fits = 2, int(passes * 100_000)
    plan = plan_of(100_000, machine, wishes=Wishes(budget=hours * 3600.0),
                   rate=fits / (0.9 * hours * 3600))
    seen, why = plan.choices['images to see']
    assert seen == plan.images_seen and 0.9 * fits <= seen <= fits
    assert (plan.num_epochs is None) == (passes < 10)
    assert f'in whole {"steps" if passes < 10 else "passes"}; a tenth is kept' in why


def test_all_that_depends_on_the_number_of_steps_takes_the_same():
    """300 passes hold 20,039 batches, of which each pass leaves out the last part."""
    plan = plan_of(17_100, GPU, wishes=Wishes(epochs=300))
    assert plan.num_steps == 300 * 66 < SHORT_RUN < 300 * 17_100 // 256
    assert plan.is_short and plan.temperature == 0.1 and plan.refresh == 1
    assert plan.rate == rules.choose_rate('SGD', 256, plan.num_steps).value


@pytest.mark.parametrize('wishes, message', [
    (Wishes(epochs=0), '--epochs must be more than 0, not 0'),
    (Wishes(images_seen=-5), '--images-seen must be more than 0'),
    (Wishes(batch_size=0), '--batch-size must be more than 0'),
    (Wishes(batch_size=1), '--batch-size must be at least 2'),
    (Wishes(epochs=2, budget=60.0), '--epochs and --budget both'),
])
def test_wishes_that_cannot_be_meant(wishes, message):
    with pytest.raises(ValueError, match=message):
        rules.check_wishes(wishes)


def test_a_batch_of_more_than_all_pictures():
    with pytest.raises(ValueError, match='at most 7'):
        plan_of(60, EIGHT, wishes=Wishes(batch_size=8))


def test_the_plan_says_how_many_pictures_come_up():
    """Windows show a picture many times in a row: a short run does not come to all."""
    short = plan_of(20_000, CPU)
    assert 'come to about 9,' in short.choices['images'].reason
    visits = short.window // short.stride
    sampler = SlidingWindowSampler(range(20_000), short.window, short.stride, seed=0)
    seen = len(np.unique(sampler.ids_at(0, short.num_steps * short.global_batch)))
    said = short.num_steps * short.global_batch // visits + short.window
    assert abs(seen - said) < 0.02 * said
    assert plan_of(5_000, CPU).choices['images'].reason == 'each is a class of its own'
