# SPDX-License-Identifier: Apache-2.0
"""Time of the device's augmentation for one batch, by memory format and with torch.compile."""
from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, Callable

import torch
from torch import Tensor

from pic_plugin.models.augment import AugmentPreprocessor

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
PARTS: dict[str, dict] = {  # one operation at a time
    'normalise alone': dict(jitter=None, grey=0., blur=None, flip=0.),
    'flip': dict(jitter=None, grey=0., blur=None),
    'jitter and grey': dict(blur=None, flip=0.),
    'blur': dict(jitter=None, grey=0., flip=0.),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``benchmark augment``."""
    parser.add_argument('--batch-size', type=int, default=256, help='images (default: 256)')
    parser.add_argument('--size', type=int, default=224, help='side, pixels (default: 224)')
    parser.add_argument('--steps', type=int, default=30, help='measured batches (default: 30)')
    parser.add_argument('--warmup', type=int, default=5, help='batches before (default: 5)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu',
                        help='cpu or cuda (default: cuda if there is one)')
    parser.add_argument('--no-compile', action='store_true', help='leave torch.compile out')


def run(args: argparse.Namespace) -> str:
    """Measure, print a table and return it."""
    device = torch.device(args.device)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (args.batch_size, 3, args.size, args.size), dtype=torch.uint8,
                           generator=generator).to(device)
    settings: dict[str, dict] = {
        'whole recipe': dict(), 'whole recipe, channels_last': dict(channels_last=True)}
    if not args.no_compile:
        settings['whole recipe, compiled'] = dict(compile=True)
        settings['whole recipe, channels_last, compiled'] = dict(channels_last=True, compile=True)
    settings.update({name: dict(views=view) for name, view in PARTS.items()})
    lines = [f'torch {torch.__version__}, {_name(device)}; {args.batch_size} images of '
             f'{args.size}x{args.size}, uint8 on the device, to normalised float32',
             f'{"":40}{"ms a batch":>12}{"host ms":>10}{"first, s":>10}']
    views: dict[str, Tensor] = {}
    for name, setting in settings.items():
        preprocessor = AugmentPreprocessor(MEAN, STD, to_rgb=True, **setting).to(device)

        def step(preprocessor: Any = preprocessor) -> Tensor:
            return preprocessor(dict(inputs=pixels), True)['inputs'][0]

        torch.manual_seed(0)
        views[name] = step()
        lines.append(_row(name, step, args, device))
    if not args.no_compile:
        difference = (views['whole recipe, compiled'] - views['whole recipe']).abs().max()
        lines.append(f'compiled against uncompiled: differs by at most {float(difference):.1e} of '
                     'a normalised pixel.')
    kornia = _kornia(device)
    if kornia is None:
        lines.append('kornia is not installed.')
    else:
        lines.append(_row('kornia', lambda: kornia(pixels.float() / 255), args, device))
    table = '\n'.join(lines)
    print(table)
    return table


def _row(name: str, step: Callable[[], Any], args: argparse.Namespace,
         device: torch.device) -> str:
    begin = time.perf_counter()
    step()
    _wait(device)
    first = time.perf_counter() - begin
    for _ in range(args.warmup):
        step()
    host: list[float] = []
    _wait(device)
    begin = time.perf_counter()
    for _ in range(args.steps):
        start = time.perf_counter()
        step()
        host.append(time.perf_counter() - start)
    _wait(device)
    whole = (time.perf_counter() - begin) / args.steps
    return f'{name:40}{1e3 * whole:12.2f}{1e3 * statistics.median(host):10.2f}{first:10.2f}'


def _kornia(device: torch.device) -> Any:
    """The same recipe by kornia, or None."""
    try:
        from kornia import augmentation as K  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    return torch.nn.Sequential(
        K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8), K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((13, 13), (0.1, 2.0), p=0.5), K.RandomHorizontalFlip(p=0.5),
        K.Normalize(torch.tensor(MEAN) / 255, torch.tensor(STD) / 255)).to(device)


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else (
        f'CPU, {torch.get_num_threads()} thread(s)')
