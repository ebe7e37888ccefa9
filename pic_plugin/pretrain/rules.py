# SPDX-License-Identifier: Apache-2.0
"""The rules by which ``pretrain`` chooses: facts and wishes in, values with a reason each out.

Pure functions: nothing is read, timed or built here, so that each rule can be tested at 60 pictures
and at ten million, on one core and on eight GPUs.
"""
from __future__ import annotations

import math
from typing import Any, NamedTuple

from pic_plugin.datasets.sliding_window_sampler import default_stride, default_window
from pic_plugin.pretrain.machine import Machine
from pic_plugin.wording import counted, duration

FEAT_DIM = 128
# The authors' setting, on 1,281,167 images.
AUTHORS_RATE, AUTHORS_BATCH, AUTHORS_NEGATIVES = 0.03, 256, 65536
# Steps at which the package's own tunings stand: the demo's rate is 8 times the authors', at 780
# steps of 5,000 images; theirs is for a million steps.
SHORT_STEPS, LONG_STEPS, SHORT_FACTOR = 2_000, 200_000, 8.0
# Of the rate, for a network that has been trained: docs/continue.md has the tries.
GOING_ON = 0.3
# Of few images, or where few of many come up: rows are turned to the present feature when an image
# comes back, and smaller windows show it more often. docs/pretrain.md and docs/results/ahead.md
# have the trainings, of up to 50,000 images; in 600,000 visits they come to 19,000.
FEW_IMAGES, FEW_SEEN, MORE_VISITS, MOST_BATCHES = 50_000, 600_000, 32, 8
# Passes up to which rounding down to whole ones would leave too much of a budget unused.
FEW_PASSES = 10
CPU_IMAGES, CPU_WHY = 300_000, 'enough for a first try on a CPU'
# Bytes of a stored row: weight and momentum as float32, and the step it left at.
ROW_BYTES = 8 * FEAT_DIM + 8
GIB = 2**30
#: Options that say how long to train.
LENGTHS = 'epochs', 'images_seen', 'budget'


class Choice(NamedTuple):
    """A value and why it was chosen."""

    value: Any
    reason: str


class Facts(NamedTuple):
    """What is known before anything is chosen.

    Attributes:
        num_images (int): N.
        median_side (int): Median of the pictures' shorter sides, pixels.
        machine (Machine): Where it runs.
    """

    num_images: int
    median_side: int
    machine: Machine


class Wishes(NamedTuple):
    """What the user has set; None where the rules choose.

    Attributes:
        backbone (str | None): Usual name.
        image_size (int | None): Pixels.
        epochs (int | None): Passes over the images.
        images_seen (int | None): Length in images.
        budget (float | None): Length in seconds.
        batch_size (int | None): Images of a step on one process.
        start (str | None): Network that was trained before, from which this training goes on.
    """

    backbone: str | None = None
    image_size: int | None = None
    epochs: int | None = None
    images_seen: int | None = None
    budget: float | None = None
    batch_size: int | None = None
    start: str | None = None


def check_wishes(wishes: Wishes) -> None:
    """Refuse what cannot be meant.

    Raises:
        ValueError: If a number is not positive, or more than one length is given.
    """
    for name in ('image_size', 'epochs', 'images_seen', 'batch_size', 'budget'):
        value = getattr(wishes, name)
        if value is not None and not value > 0:
            raise ValueError(f'--{name.replace("_", "-")} must be more than 0, not {value}.')
    lengths = [f'--{name.replace("_", "-")}' for name in LENGTHS
               if getattr(wishes, name) is not None]
    if len(lengths) > 1:
        raise ValueError(f'{" and ".join(lengths)} both say how long to train: give one of them.')
    if wishes.start is not None and wishes.backbone is not None:
        raise ValueError('--from brings a network of its own: leave --backbone out.')
    if wishes.batch_size == 1:
        raise ValueError('--batch-size must be at least 2: BatchNorm needs several images.')


def choose_image_size(facts: Facts, wishes: Wishes) -> Choice:
    """Side of the crops, pixels."""
    if wishes.image_size is not None:
        return Choice(wishes.image_size, 'as asked for')
    side = facts.median_side
    on_cpu = facts.machine.device == 'cpu'
    for limit, size in ((44, 32), (80, 64), (120, 96), (200, 128)):
        if side <= limit and not (on_cpu and size > 96):
            return Choice(size, f'half of the pictures are at most {side} pixels high or wide')
    if on_cpu:
        return Choice(96, 'the pictures have more pixels, but 128 or 224 would take a CPU two or '
                      'five times as long')
    return Choice(224, "the field's usual size, and the pictures have as many pixels")


def choose_backbone(facts: Facts, wishes: Wishes, image_size: int) -> Choice:
    """Usual name of the network."""
    if wishes.backbone is not None:
        return Choice(wishes.backbone, 'as asked for')
    small = image_size <= 44
    if facts.machine.device == 'cpu':
        # Measured on 3,068 photos of clothes at 96 pixels; docs/pretrain.md has the numbers.
        return Choice(
            'resnet-cifar-18-quarter' if small else 'resnet18-quarter',
            'a ResNet-18 with a quarter of the channels: the whole one takes five times as long, '
            'and learns less in the same time')
    if small:
        return Choice('resnet-cifar-18', 'a stem that keeps the resolution of small pictures')
    if facts.num_images < 5000:
        return Choice('resnet18', f'{facts.num_images:,} pictures are few for a larger network')
    return Choice('resnet50', "the paper's network")


def choose_batch(facts: Facts, wishes: Wishes, image_size: int, num_parameters: int) -> Choice:
    """Images of a step on one process."""
    machine = facts.machine
    # A window of at most half of the images has to hold four batches of all processes, or, where
    # BatchNorm would be left with fewer than 8 images, one.
    share = facts.num_images // machine.num_processes
    most = max(2, min(max(8, _power_of_two_below(share // 8)), _power_of_two_below(share // 2)))
    if wishes.batch_size is not None:
        if wishes.batch_size * machine.num_processes > facts.num_images:
            raise ValueError(
                f'--batch-size {wishes.batch_size} on {machine.num_processes} processes is more '
                f'than the {facts.num_images} pictures: choose at most '
                f'{facts.num_images // machine.num_processes}.')
        return Choice(wishes.batch_size, 'as asked for')
    size, reason = 256, "the authors' batch"
    if machine.device == 'cpu':
        size, reason = 64, 'more steps in the same time on a CPU'
    elif machine.num_processes > 1:
        size = max(32, AUTHORS_BATCH // machine.num_processes)
        reason = f"the authors' {AUTHORS_BATCH} shared by {machine.num_processes} processes"
        if size == 32 and machine.num_processes > 8:
            reason = 'fewer images a process would leave GPUs idle'
    if machine.device_bytes:
        # Measured on ResNet-50, 224 pixels, mixed precision: about 90 MB an image; activations
        # grow with pixels and, roughly, with the root of the parameters.
        each = 90e6 * (image_size / 224)**2 * math.sqrt(max(num_parameters, 1) / 23.5e6)
        fits = _power_of_two_below(int(0.7 * machine.device_bytes / each))
        if fits < size:
            size, reason = max(8, fits), (f'{machine.device_bytes / GIB:.0f} GiB of free memory on '
                                          'the device')
    if most < size:
        size, reason = most, f'of {facts.num_images:,} pictures a window has to hold several'
        if machine.num_processes > 1:
            reason += f', shared by {machine.num_processes} processes'
    return Choice(size, reason)


def _power_of_two_below(number: int) -> int:
    return 2**max(0, number.bit_length() - 1)


def choose_window(num_images: int, global_batch: int, more_visits: bool = False) -> Choice:
    """(window, stride): images of the sliding window, and by how many it moves.

    What the sampler takes by itself where a config says nothing: a tenth of the images as in the
    paper, but at least four batches and at most half of the images; the stride is an eighth of it.
    With more visits the window is at most eight batches, and the stride is a 32nd of it.
    """
    window = default_window(num_images, global_batch)
    stride = default_stride(window)
    if more_visits:
        window = min(window, MOST_BATCHES * global_batch)
        stride = max(1, window // MORE_VISITS)
    if window == num_images // 10:
        reason = "a tenth of the images, the paper's share"
    elif window == num_images // 2:
        reason = 'half of the images: a larger one would be plain shuffling'
    elif window == MOST_BATCHES * global_batch:
        reason = (f'eight batches of {global_batch}: better than more in the short runs that were '
                  'tried')
    else:
        reason = f'four batches of {global_batch}: a tenth of the images would be fewer'
    return Choice((window, stride), f'{reason}; an image returns {window // stride} times in a row')


def choose_images_seen(facts: Facts, wishes: Wishes, global_batch: int,
                       images_per_second: float | None = None) -> Choice:
    """Length of the training in images; None while a budget waits for a measured speed.

    What is no multiple of the images is trained in steps, all else in passes.
    """
    num_images = facts.num_images
    if wishes.epochs is not None:
        return Choice(wishes.epochs * num_images, f'{_passes(wishes.epochs)}, as asked for')
    if wishes.images_seen is not None:
        passes = wishes.images_seen / num_images
        return Choice(wishes.images_seen if passes < 1 else round(passes) * num_images,
                      'as asked for')
    if wishes.budget is not None:
        if images_per_second is None:
            return Choice(None, 'what fits the budget, once the speed is measured')
        # A tenth is for start, checkpoints and the report.
        seen = int(0.9 * wishes.budget * images_per_second)
        whole = num_images if seen > FEW_PASSES * num_images else global_batch
        return Choice(
            max(1, seen // whole) * whole,
            f'{duration(wishes.budget)} at {images_per_second:,.0f} images/s, in whole '
            f'{"passes" if whole == num_images else "steps"}; a tenth is kept for checkpoints and '
            'the report')
    if facts.machine.device == 'cpu':
        passes = min(200, max(1, round(CPU_IMAGES / num_images)))
        if passes * num_images > 2 * CPU_IMAGES:
            return Choice(CPU_IMAGES, f'{CPU_WHY}; less than a pass')
        return Choice(passes * num_images, f'{_passes(passes)}: {CPU_WHY}')
    passes = 200 if num_images >= 2000 else min(2000, -(-400_000 // num_images))
    if passes * num_images > 260_000_000:
        passes = max(1, round(260_000_000 / num_images))
        return Choice(passes * num_images, f"{passes} passes: as many images as the authors' 200 "
                      'passes over ImageNet')
    why = ("the authors' length" if passes == 200 else
           'of few pictures more passes than the 200 of the authors')
    return Choice(passes * num_images, f'{passes} passes, {why}')


def _passes(number: int) -> str:
    return counted(number, 'pass', 'passes')


def choose_rate(optimizer: str, global_batch: int, num_steps: int,
                goes_on: bool = False) -> Choice:
    """Learning rate at its peak."""
    if goes_on:
        rate, reason = choose_rate(optimizer, global_batch, num_steps)
        return Choice(_digits(rate * GOING_ON), f'{reason}, times {GOING_ON} to keep what the '
                      'network knows')
    if optimizer == 'AdamW':
        rate = 5e-4 * global_batch / 256
        return Choice(_digits(rate), f'0.0005 for 256 images, a step has {global_batch:,}')
    factor = _short_factor(num_steps)
    rate = AUTHORS_RATE * global_batch / AUTHORS_BATCH * factor
    reason = f"the authors' 0.03 for 256 images, a step has {global_batch:,}"
    if factor > 1:
        reason += f', times {factor:.1f} because the run has few steps'
    return Choice(_digits(rate), reason)


def _short_factor(num_steps: int) -> float:
    """8 up to 2,000 steps, 1 from 200,000 on, between them a straight line over the logarithm."""
    share = math.log(LONG_STEPS / num_steps) / math.log(LONG_STEPS / SHORT_STEPS)
    return SHORT_FACTOR**min(1.0, max(0.0, share))


def _digits(value: float) -> float:
    return float(f'{value:.3g}')


def choose_optimizer(is_transformer: bool) -> Choice:
    """'SGD' or 'AdamW'."""
    if not is_transformer:
        return Choice('SGD', "the authors', momentum 0.9; right for convolutions with BatchNorm")
    return Choice('AdamW', 'what networks with LayerNorm and attention are trained with')


def choose_negatives(num_images: int) -> Choice:
    """K, classes in the softmax; None for all."""
    if num_images <= AUTHORS_NEGATIVES:
        return Choice(None, f'{num_images:,} are few enough for a softmax over all of them')
    return Choice(AUTHORS_NEGATIVES, 'the most recent, with the weight-update correction; more '
                  'hardly help (Table 2 of the paper)')


def choose_refresh(num_images: int, images_seen: int, is_short: bool, goes_on: bool) -> Choice:
    """Share by which the row of an image that comes back is turned to its present feature."""
    if goes_on:
        return Choice(1.0, 'a class begins as the feature that the network has for its image')
    if is_short and (num_images <= FEW_IMAGES or images_seen <= FEW_SEEN):
        return Choice(1.0, 'when an image comes back, its class starts from its present feature: '
                      'better in the short runs that were tried')
    return Choice(0.0, "classes are exactly as the optimizer makes them: the authors' method")


def choose_temperature(is_short: bool) -> Choice:
    """Temperature of the softmax."""
    if is_short:
        return Choice(0.1, "half of the authors', better in the short runs that were tried")
    return Choice(0.2, "the authors'")


def choose_storage(facts: Facts, num_negatives: int | None) -> Choice:
    """Where the class weights outside the softmax are: 'device', 'memory', 'disk', 'disk-half'.

    Raises:
        ValueError: If they fit nowhere.
    """
    if num_negatives is None:
        return Choice('device', 'all of them are in the softmax')
    machine = facts.machine
    needed = facts.num_images * ROW_BYTES
    text = f'{needed / GIB:.1f} GiB for {facts.num_images:,} rows'
    if not machine.host_bytes or needed < machine.host_bytes / 4:
        return Choice('memory', f'{text} are less than a quarter of the free memory')
    if not machine.disk_bytes or needed < machine.disk_bytes / 3:
        return Choice('disk', f'{text} are more than a quarter of the free memory')
    if needed / 2 < machine.disk_bytes / 3:
        return Choice('disk-half', f'{text}, as bfloat16: half as much, for a disk that is small')
    raise ValueError(f'the class weights need {text}, as much again for each checkpoint, and the '
                     f'disk of the work folder has {machine.disk_bytes / GIB:.1f} GiB: give --out '
                     'on a larger disk.')


def choose_workers(machine: Machine) -> Choice:
    """Loader workers of one process."""
    if machine.num_cores == 1:
        return Choice(0, 'one core: it loads and computes by turns')
    if machine.device == 'cpu':
        workers = min(4, machine.num_cores // 2)
        return Choice(workers, f'half of {machine.num_cores} cores, the others compute')
    workers = min(16, machine.num_cores - 1)
    return Choice(workers, f'all but one of {machine.num_cores} cores for each process')


def choose_precision(machine: Machine) -> Choice:
    """'float32', 'bfloat16' or 'float16'."""
    if machine.device != 'cuda':
        return Choice('float32', f'mixed precision is no faster on {machine.device}')
    if machine.bfloat16:
        return Choice('bfloat16', 'half the memory traffic, and no loss scale to watch')
    return Choice('float16', 'with a loss scale: this GPU has no bfloat16')


def choose_memory_format(machine: Machine, is_transformer: bool) -> Choice:
    """'channels_last' or 'contiguous'.

    Args:
        machine (Machine): Where.
        is_transformer (bool): Whether the network is made of matrix products.
    """
    if machine.device == 'cuda' and not is_transformer:
        return Choice('channels_last', "the order that a GPU's half-precision convolutions want")
    return Choice('contiguous', 'channels_last serves convolutions on GPUs')


def explain(choices: dict[str, Choice]) -> str:
    """Lines for people: name, value, reason."""
    rows = [(name, text_of(name, choice.value), choice.reason)
            for name, choice in choices.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return '\n'.join(f'  {name:<{widths[0]}}  {value:<{widths[1]}}  {reason}'
                     for name, value, reason in rows)


def text_of(name: str, value: Any) -> str:
    """A value for people."""
    if value is None:
        return 'all' if '(K)' in name else 'open'
    if isinstance(value, int) and not isinstance(value, bool):
        return f'{value:,}'
    if isinstance(value, tuple):
        return ' / '.join(text_of(name, one) for one in value)
    return str(value)
