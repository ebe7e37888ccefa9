# SPDX-License-Identifier: Apache-2.0
"""What a survey has found, for people."""
from __future__ import annotations

from pic_plugin.datasets.file_names import printable
from pic_plugin.datasets.file_report import counted_reason
from pic_plugin.pretrain import rules
from pic_plugin.pretrain.machine import Machine
from pic_plugin.pretrain.survey import Survey
from pic_plugin.wording import counted, first_few


def describe(survey: Survey, machine: Machine, listed: str) -> str:
    """What was found, for people.

    Args:
        survey (Survey): Of the pictures.
        machine (Machine): That trains.
        listed (str): File that has :attr:`Survey.findings`.
    """
    endings = ', '.join(f'{number:,} {ending}' for ending, number in survey.by_ending.items())
    least, median, largest = survey.sides
    lines = [f'Pictures: {len(survey.files):,} images in {", ".join(survey.folders)} ({endings}); '
             f'shorter sides {least} to {largest} pixels, {median} in the middle (of '
             f'{survey.num_sampled:,} opened).']
    lines += survey.notices
    if survey.left_out.num_left_out:
        lines.append('Left out: ' + '; '.join(
            counted_reason(number, reason)
            for reason, number in survey.left_out.left_out.most_common()) + '.')
    if survey.broken:
        lines.append(f'Broken: {len(survey.broken):,} of {survey.num_sampled:,} opened cannot be '
                     f'read ({_pairs(survey.broken, ": ")}); training skips and names what it '
                     'cannot read.')
    if survey.copies:
        lines.append(f'Copies: {len(survey.copies):,} of the pictures with the very bytes of '
                     f'another one ({_pairs(survey.copies)}); each is trained as a class of its '
                     'own, away from its twin. If they are many, remove them, or train from the '
                     "config with `instance_key=dict(duplicates='merge')` in the data set.")
    if survey.near:
        lines.append(f'Near copies: {len(survey.near):,} of {survey.num_sampled:,} opened with the '
                     f'looks of another one ({_pairs(survey.near)}). Look at them before you '
                     'remove any: other things before the same background look alike too.')
    if survey.transparent:
        lines.append(f'Transparent: {len(survey.transparent):,} of {survey.num_sampled:,} opened '
                     f'have transparent pixels ({_pairs(survey.transparent, ": ")}). Training sees '
                     'the colours that are stored beneath, often plain black: if the transparency '
                     'is the picture, put it on one colour first (docs/your_data.md, Transparent '
                     'pictures, has the lines).')
    if survey.findings:
        lines.append(f'All of these are listed in {listed}.')
    if survey.pixels is not None:
        black, white = survey.pixels.value_range
        lines.append(
            f'Pixels: {" and ".join(survey.pixels.depths)} from {survey.pixels.extremes[0]:g} to '
            f'{survey.pixels.extremes[1]:g} (of {survey.pixels.num_images} read). {black:g} is '
            f'taken for black and {white:g} for white, with a thousandth of the pixels beyond '
            'each; value_range in the config changes that.')
    memory = (f', {machine.device_bytes / rules.GIB:.0f} GiB free'
              if machine.device_bytes else '')
    processes = (f'{machine.num_processes} processes with {counted(machine.num_cores, "core")} each'
                 if machine.num_processes > 1 else counted(machine.num_cores, 'core'))
    lines.append(f'Machine: {machine.device_name}{memory}, {processes}, '
                 f'{machine.host_bytes / rules.GIB:.0f} GiB of memory and '
                 f'{machine.disk_bytes / rules.GIB:.0f} GiB of disk free.')
    if machine.num_devices > machine.num_processes and machine.device == 'cuda':
        lines.append(f'{machine.num_devices} GPUs are here; this trains on '
                     f'{machine.num_processes}. For all: torchrun --nproc_per_node '
                     f'{machine.num_devices} -m pic_plugin.tools.pretrain ...')
    return '\n'.join(lines)


def _pairs(found: dict[str, str], between: str = ' = ') -> str:
    return printable(first_few([f'{name}{between}{what}' for name, what in found.items()]))
