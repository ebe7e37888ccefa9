# SPDX-License-Identifier: Apache-2.0
"""Images a second that one core loads, by pipeline, stage and decoder, side by side.

Times are the processor's for this process, and what is compared runs in turns, so that little
depends on what else the machine does.
"""
from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS

from pic_plugin.datasets import decoding
from pic_plugin.datasets.walk import walk

PACK = dict(type='PackInputs', meta_keys=('sample_idx', ))
# The ImageNet config of version 0.1.0, by stage.
HOST_STAGES: dict[str, list[dict]] = {
    'decode': [dict(type='LoadImageOrSkip')],
    'crop': [dict(type='NumpyToPIL', to_rgb=True),
             dict(type='torchvision/RandomResizedCrop', size=224, scale=(0.2, 1.0))],
    'jitter, grey': [
        dict(type='RandomApply', prob=0.8, transforms=[
            dict(type='torchvision/ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4,
                 hue=0.1)]),
        dict(type='torchvision/RandomGrayscale', p=0.2)],
    'blur': [dict(type='PILToNumpy', to_bgr=True),
             dict(type='GaussianBlur', magnitude_range=(0.1, 2.0), magnitude_std='inf', prob=0.5)],
    'flip, pack': [dict(type='RandomFlip', prob=0.5), PACK],
}
WINDOW, PASSES = 131072, 8  # of the ImageNet config
MULTI_CROPS = [dict(size=160, scale=(0.14, 1.0)), dict(size=96, scale=(0.08, 0.14), num_views=3)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``benchmark pipeline``."""
    parser.add_argument('--images', type=Path,
                        help='folder with JPEG files (default: artificial ones of 500x375 pixels, '
                        'about 40 kB each)')
    parser.add_argument('--num-images', type=int, default=32, help='of them (default: 32)')
    parser.add_argument('--rounds', type=int, default=7,
                        help='turns, of which the median is taken (default: 7)')
    parser.add_argument('--no-large', action='store_true', help='leave out photos of 4000x3000')
    parser.add_argument('--needed', type=float, default=3242.,
                        help='images a second that the GPU trains on, see `benchmark training` '
                        '(default: 3242, PIC with ResNet-50 in channels_last on an H100)')


def run(args: argparse.Namespace) -> str:
    """Measure, print the tables and return them."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        if args.images is None:
            files = [write_photo(Path(folder, f'{i}.jpg'), 375, 500, i)
                     for i in range(args.num_images)]
        else:
            found = walk(args.images, ['.jpg', '.jpeg']).names
            files = [args.images / os.fsdecode(name) for name in found][:args.num_images]
        lines = [f'torch {torch.__version__}, OpenCV {cv2.__version__}, one core; {len(files)} '
                 f'images of {statistics.fmean(f.stat().st_size for f in files) / 1e3:.0f} kB on '
                 'average']
        lines += _stages(files, args.rounds)
        lines += _compare(files, args, f'crops of {"500x375" if args.images is None else "them"}')
        lines += _decoders(files, args.rounds)
        lines += _cached(files, args, Path(folder))
        if not args.no_large:
            large = [write_photo(Path(folder, f'large{i}.jpg'), 3000, 4000, i) for i in range(2)]
            lines += _compare(large, args, 'crops of 4000x3000')
    table = '\n'.join(lines)
    print(table)
    return table


def write_photo(path: Path, height: int, width: int, seed: int) -> Path:
    """Write a JPEG of coloured noise with a photo's mixture of coarse and fine structure."""
    generator = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.float32)
    for octave in range(9):
        step = 2**octave
        noise = generator.normal(
            0, step**0.75, (height // step + 2, width // step + 2, 3)).astype(np.float32)
        pixels += cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
    pixels = (pixels - pixels.mean()) / pixels.std() * 55 + 115
    cv2.imwrite(str(path), pixels.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 96])
    return path


def build(pipeline: Sequence[dict]) -> Compose:
    """A pipeline of mmpretrain's scope."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Compose([TRANSFORMS.build(copy.deepcopy(transform)) for transform in pipeline])


def _stages(files: Sequence[Path], rounds: int) -> list[str]:
    """Where the host's pipeline spends its time."""
    stages = {name: build(transforms) for name, transforms in HOST_STAGES.items()}
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(rounds):
        samples: list[Any] = [dict(img_path=str(file), sample_idx=0) for file in files]
        for name, stage in stages.items():
            begin = time.process_time()
            samples = [stage(sample) for sample in samples]
            seconds[name].append((time.process_time() - begin) / len(files))
    parts = [f'{name} {1e3 * statistics.median(values):.2f}' for name, values in seconds.items()]
    return ['augmentation on the host, ms an image: ' + ', '.join(parts)]


def _compare(files: Sequence[Path], args: argparse.Namespace, title: str) -> list[str]:
    """Whole pipelines."""
    pipelines = {'augmented on the host (0.1.0)': build(sum(HOST_STAGES.values(), []))}
    for decoder in ('cv2', 'simplejpeg'):
        if decoder == 'simplejpeg' and decoding.simplejpeg is None:
            continue
        pipelines[f'DecodeRandomCrop, {decoder}'] = build(
            [dict(type='DecodeRandomCrop', size=224, decoder=decoder), PACK])
    pipelines['DecodeRandomCrop, quick=False'] = build([dict(type='DecodeRandomCrop', size=224,
                                                             quick=False), PACK])
    pipelines['DecodeRandomCrop, 4 crops'] = build([dict(type='DecodeRandomCrop',
                                                         crops=MULTI_CROPS), PACK])
    pipelines['LoadImageOrSkip alone'] = build([dict(type='LoadImageOrSkip')])
    samples = [str(file) for file in files]
    milliseconds = _in_turns({
        name: partial(_load, pipeline, samples) for name, pipeline in pipelines.items()},
        args.rounds, len(files))
    first = next(iter(milliseconds.values()))
    lines = [f'{title:34}{"ms":>9}{"images/s":>10}{"speed-up":>10}{"cores":>8}']
    for name, value in milliseconds.items():
        lines.append(f'{name:34}{value:9.2f}{1e3 / value:10.0f}{first / value:10.1f}'
                     f'{args.needed * value / 1e3:8.1f}')
    return [*lines, f'cores: for {args.needed:.0f} images a second.']


def _cached(files: Sequence[Path], args: argparse.Namespace, folder: Path) -> list[str]:
    """With a cache of the window: the first showing of an image, and the following seven."""
    lines = [f'{"cache of decoded images":34}{"ms":>9}{"images/s":>10}{"GB for a window":>17}']
    for short_edge in (256, 375):
        crop: Any = build([
            dict(type='DecodeRandomCrop', size=224, cache=dict(
                short_edge=short_edge, max_bytes=2**28, window_size=10**6, folder=str(folder))),
            PACK])
        passes = []
        for _ in range(PASSES):
            begin = time.process_time()
            for i, file in enumerate(files):
                crop(dict(img_path=str(file), sample_idx=i))
            passes.append(1e3 * (time.process_time() - begin) / len(files))
        num_bytes = statistics.fmean(
            crop.transforms[0].load_through_cache(
                dict(img_path=str(file), sample_idx=i)).pixels.nbytes
            for i, file in enumerate(files))
        mean = statistics.fmean(passes)
        lines.append(f'{f"short edge {short_edge}, mean of {PASSES}":34}{mean:9.2f}'
                     f'{1e3 / mean:10.0f}{num_bytes * WINDOW / 1e9:17.1f}')
        lines.append(f'{"  first showing":34}{passes[0]:9.2f}{1e3 / passes[0]:10.0f}')
        rest = statistics.median(passes[1:])
        lines.append(f'{"  the others, from the cache":34}{rest:9.2f}{1e3 / rest:10.0f}')
    return [*lines, f'window: {WINDOW:,} images, as for ImageNet.']


def _decoders(files: Sequence[Path], rounds: int) -> list[str]:
    """Decoding alone, at full size and at a half."""
    contents = [file.read_bytes() for file in files]
    ways = _ways_to_decode()
    milliseconds = _in_turns({name: partial(_each, way, contents) for name, way in ways.items()},
                             rounds, len(files))
    return ['decoding alone, ms an image: ' + ', '.join(
        f'{name} {value:.2f}' for name, value in milliseconds.items())]


def _ways_to_decode() -> dict[str, Callable[[bytes], Any]]:
    import io

    from PIL import Image
    from torchvision.io import decode_jpeg

    def pillow(content: bytes, reduction: int = 1) -> Any:
        image = Image.open(io.BytesIO(content))
        if reduction > 1:
            image.draft('RGB', (image.width // reduction, image.height // reduction))
        return np.asarray(image.convert('RGB'))

    ways: dict[str, Callable[[bytes], Any]] = {
        'OpenCV': lambda content: decoding.decode(content),
        'OpenCV 1/2': lambda content: decoding.decode(content, 3, 'cv2', lambda size: 2),
        'torchvision': lambda content: decode_jpeg(
            torch.frombuffer(bytearray(content), dtype=torch.uint8)),
        'Pillow': pillow,
        'Pillow 1/2': lambda content: pillow(content, 2),
    }
    if decoding.simplejpeg is not None:
        ways['simplejpeg'] = lambda content: decoding.decode(content, 3, 'simplejpeg')
        ways['simplejpeg 1/2'] = lambda content: decoding.decode(content, 3, 'simplejpeg',
                                                                 lambda size: 2)
    return ways


def _load(pipeline: Compose, paths: Sequence[str]) -> None:
    for path in paths:
        pipeline(dict(img_path=path, sample_idx=0))


def _each(way: Callable[[bytes], Any], contents: Sequence[bytes]) -> None:
    for content in contents:
        way(content)


def _in_turns(ways: dict[str, Callable[[], Any]], rounds: int, number: int) -> dict[str, float]:
    """Median milliseconds for one of ``number`` images, each way once in a round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(rounds + 1):
        for name, way in ways.items():
            begin = time.process_time()
            way()
            if i:  # the first round warms up
                seconds[name].append(time.process_time() - begin)
    return {name: 1e3 * statistics.median(values) / number for name, values in seconds.items()}
