# SPDX-License-Identifier: Apache-2.0
"""What a survey has found, for people."""
from __future__ import annotations

from pic_plugin.pretrain import rules
from pic_plugin.pretrain.machine import Machine
from pic_plugin.pretrain.survey import Survey


def describe(survey: Survey, machine: Machine) -> str:
    """What was found, for people."""
    endings = ', '.join(f'{number:,} {ending}' for ending, number in survey.by_ending.items())
    least, median, largest = survey.sides
    lines = [f'Pictures: {len(survey.files):,} images in {", ".join(survey.folders)} ({endings}); '
             f'shorter sides {least} to {largest} pixels, {median} in the middle (of '
             f'{survey.num_sampled} opened).']
    lines += survey.notices
    if survey.left_out:
        lines.append('Left out: ' + '; '.join(
            f'{number:,} {reason}' for reason, number in survey.left_out.items()) + '.')
    if survey.broken:
        name, reason = next(iter(survey.broken.items()))
        lines.append(f'Broken: {len(survey.broken)} of {survey.num_sampled} opened cannot be read '
                     f'({name}: {reason}); training skips them and says so.')
    if survey.copies:
        lines.append(f'Copies: {survey.copies:,} pictures have the very bytes of another one; each '
                     'is trained as a class of its own, away from its twin. Remove them if they '
                     'are many.')
    if survey.near:
        lines.append(f'Near copies: {survey.near} of {survey.num_sampled} opened look like another '
                     'one (`neighbours` shows them after training).')
    if survey.pixels is not None:
        black, white = survey.pixels.value_range
        lines.append(
            f'Pixels: {" and ".join(survey.pixels.depths)} from {survey.pixels.extremes[0]:g} to '
            f'{survey.pixels.extremes[1]:g} (of {survey.pixels.num_images} read). {black:g} is '
            f'taken for black and {white:g} for white, with a thousandth of the pixels beyond '
            'each; value_range in the config changes that.')
    memory = (f', {machine.device_bytes / rules.GIB:.0f} GiB free'
              if machine.device_bytes else '')
    processes = (f'{machine.num_processes} processes with {machine.num_cores} cores each'
                 if machine.num_processes > 1 else f'{machine.num_cores} cores')
    lines.append(f'Machine: {machine.device_name}{memory}, {processes}, '
                 f'{machine.host_bytes / rules.GIB:.0f} GiB of memory and '
                 f'{machine.disk_bytes / rules.GIB:.0f} GiB of disk free.')
    if machine.num_devices > machine.num_processes and machine.device == 'cuda':
        lines.append(f'{machine.num_devices} GPUs are here; this trains on '
                     f'{machine.num_processes}. For all: torchrun --nproc_per_node '
                     f'{machine.num_devices} -m pic_plugin.tools.pretrain ...')
    return '\n'.join(lines)
