# SPDX-License-Identifier: Apache-2.0
"""Occlusion saliency in batches against one occluded image at a time.

    python tests/benchmarks/bench_saliency.py
    python tests/benchmarks/bench_saliency.py --side 224 --images 1 --device cuda

Both ways compute the same maps, in turns; the table has the better of two measurements of each, and
the largest relative difference of their distances.
"""
import argparse
import platform
import time

import torch
from mmpretrain.registry import MODELS

from pic_plugin.analysis.network import Network
from pic_plugin.analysis.saliency import occlusion_distances
from pic_plugin.analysis.saliency_study import occlusion

BACKBONES = {
    'thin ResNet-18 (demo)': dict(type='ResNet_CIFAR', depth=18, stem_channels=16,
                                  base_channels=16, strides=(2, 1, 2, 2)),
    'ResNet-18': dict(type='ResNet', depth=18),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--side', type=int, default=32)
    parser.add_argument('--images', type=int, default=2)
    parser.add_argument('--batch-sizes', type=int, nargs='+', default=[32, 128, 512])
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    settings = occlusion(args.side)
    images = torch.rand(args.images, 3, args.side, args.side, device=args.device)
    total = args.images * settings.num_places
    print(f'Python {platform.python_version()}, torch {torch.__version__}, {args.device}, '
          f'{torch.get_num_threads()} threads; {args.images} images of {args.side}x{args.side}, '
          f'patch {settings.patch}, stride {settings.stride}, {total} occlusions')
    print(f'{"backbone":<24} {"batch":>6} {"occlusions/s":>13} {"speed-up":>9} {"difference":>11}')
    for name, cfg in BACKBONES.items():
        torch.manual_seed(0)
        network = Network(MODELS.build(cfg), device=args.device)

        def measure(batch_size, network=network):
            begin = time.perf_counter()
            distances = occlusion_distances(network.features, images, network.grey, settings.patch,
                                            settings.stride, batch_size)
            return distances, time.perf_counter() - begin

        measure(args.batch_sizes[0])  # the first pass allocates
        sizes = [1, *args.batch_sizes]
        runs = [[measure(size) for size in sizes] for _ in range(2)]
        seconds = [min(run[i][1] for run in runs) for i in range(len(sizes))]
        single = runs[0][0][0]
        for i, size in enumerate(sizes):
            difference = float((runs[0][i][0] - single).abs().max() / single.max())
            print(f'{name:<24} {size:>6} {total / seconds[i]:>13.0f} '
                  f'{seconds[0] / seconds[i]:>9.1f} {difference:>11.1e}', flush=True)


if __name__ == '__main__':
    main()
