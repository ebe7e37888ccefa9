# SPDX-License-Identifier: Apache-2.0
"""A plan: all values of a training with their reasons, made by the rules from facts and wishes."""
from __future__ import annotations

from typing import NamedTuple

from pic_plugin.pretrain import rules
from pic_plugin.pretrain.networks import Backbone
from pic_plugin.pretrain.rules import Choice, Facts, Wishes

# Steps below which a projection with BatchNorm and a higher rate are better; see the demo's config.
SHORT_RUN = 20_000


class Plan(NamedTuple):
    """What will be trained, and why.

    Attributes:
        num_images (int): N.
        num_processes (int): Each with its own batch.
        backbone (Backbone): The network.
        image_size (int): Pixels.
        batch_size (int): Images of a step on one process.
        window (int): Images.
        stride (int): Images.
        epoch_length (int): Steps of a pass.
        num_epochs (int | None): Whole passes; None where the training is counted in steps.
        num_steps (int): Optimizer steps; 1 while a budget waits for the measured speed.
        rate (float): Peak learning rate.
        optimizer (str): 'SGD' or 'AdamW'.
        num_negatives (int | None): K; None for all.
        temperature (float): Of the softmax.
        refresh (float): Share by which a returning row is turned to its image's present feature.
        storage (str): Where class weights outside the softmax are.
        num_workers (int): Of each process.
        precision (str): 'float32', 'bfloat16' or 'float16'.
        memory_format (str): 'channels_last' or 'contiguous'.
        choices (dict[str, Choice]): All of it as printed, with reasons.
    """

    num_images: int
    num_processes: int
    backbone: Backbone
    image_size: int
    batch_size: int
    window: int
    stride: int
    epoch_length: int
    num_epochs: int | None
    num_steps: int
    rate: float
    optimizer: str
    num_negatives: int | None
    temperature: float
    refresh: float
    storage: str
    num_workers: int
    precision: str
    memory_format: str
    choices: dict[str, Choice]

    @property
    def global_batch(self) -> int:
        """Images of a step on all processes."""
        return self.batch_size * self.num_processes

    @property
    def images_seen(self) -> int:
        """Images of all steps."""
        return self.num_steps * self.global_batch

    @property
    def is_short(self) -> bool:
        """Whether the recipe for few steps is the better one."""
        return self.num_steps < SHORT_RUN


def make_plan(facts: Facts, wishes: Wishes, backbone: Backbone, size: Choice, network: Choice,
              images_per_second: float | None = None) -> Plan:
    """Choose everything.

    Args:
        facts (Facts): What is given.
        wishes (Wishes): What is asked for.
        backbone (Backbone): The network, looked at.
        size (Choice): From :func:`rules.choose_image_size`.
        network (Choice): From :func:`rules.choose_backbone`.
        images_per_second (float, optional): Measured speed of all processes. Defaults to None: a
            budget stays open.

    Raises:
        ValueError: If a wish cannot be met.
    """
    machine, num_images = facts.machine, facts.num_images
    batch = rules.choose_batch(facts, wishes, size.value, backbone.num_parameters)
    global_batch = batch.value * machine.num_processes
    length = rules.choose_images_seen(facts, wishes, global_batch, images_per_second)
    epoch_length = max(1, -(-num_images // machine.num_processes) // batch.value)
    if length.value is None or length.value % num_images:
        epochs, steps = None, max(1, -(-(length.value or 0) // global_batch))
    else:
        epochs = length.value // num_images
        steps = epochs * epoch_length
    is_short, goes_on = steps < SHORT_RUN, wishes.start is not None
    optimizer = rules.choose_optimizer(backbone.is_transformer)
    rate = rules.choose_rate(optimizer.value, global_batch, steps, goes_on)
    negatives = rules.choose_negatives(num_images)
    temperature = rules.choose_temperature(is_short)
    refresh = rules.choose_refresh(num_images, steps * global_batch, is_short, goes_on)
    window = rules.choose_window(num_images, global_batch, refresh.value > 0 and not goes_on)
    storage = rules.choose_storage(facts, negatives.value)
    workers = rules.choose_workers(machine)
    precision = rules.choose_precision(machine)
    memory_format = rules.choose_memory_format(machine, backbone.is_transformer)
    choices: dict[str, Choice] = {
        'images': Choice(num_images, 'each is a class of its own'),
        'backbone': network,
        'image size': size,
        'batch': Choice(batch.value, batch.reason + (
            f'; {global_batch:,} on {machine.num_processes} processes'
            if machine.num_processes > 1 else '')),
        'window / stride': window,
        'images to see': length,
        'optimizer': optimizer,
        'learning rate': rate,
        'classes in the softmax (K)': negatives,
        'temperature': temperature,
        'refresh of returning rows': refresh,
        'class weights are kept': storage,
        'loader workers': workers,
        'precision': precision,
        'memory format': memory_format,
    }
    plan = Plan(num_images, machine.num_processes, backbone, size.value, batch.value,
                window.value[0], window.value[1], epoch_length, epochs, steps, rate.value,
                optimizer.value, negatives.value, temperature.value, refresh.value, storage.value,
                workers.value, precision.value, memory_format.value, choices)
    if length.value is not None:
        seen = plan.images_seen
        choices['images to see'] = length._replace(value=seen)
        if wishes.images_seen is not None and seen != wishes.images_seen:
            choices['images to see'] = Choice(seen, (
                f'{wishes.images_seen:,} asked for, in whole '
                + ('steps' if plan.num_epochs is None else 'steps and passes')))
        # A window shows an image several times in a row before it comes to others.
        shown = seen // (plan.window // plan.stride) + plan.window
        if shown < 0.95 * num_images:
            choices['images'] = Choice(num_images, 'each is a class of its own; in this length the '
                                       f'windows come to about {shown:,} of them')
    return plan
