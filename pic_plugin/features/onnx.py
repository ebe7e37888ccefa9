# SPDX-License-Identifier: Apache-2.0
"""The backbone as an ONNX file, tried in onnxruntime and compared with the network."""
from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import torch

from pic_plugin.features.embedding import LoadedBackbone
from pic_plugin.files import check_file, replacing

# Float32 through tens of layers in another order of sums, of the largest feature.
TOLERANCE = 1e-4
NEEDED = ('onnx', 'onnxruntime', 'onnxscript')


def check_onnx() -> None:
    """Refuse early what is not installed.

    Raises:
        ModuleNotFoundError: With the command to run.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f'ONNX export needs {", ".join(missing)}: run '
                                  f'`pip install {" ".join(NEEDED)}`.', name=missing[0])


def export_onnx(backbone: LoadedBackbone, out: str | Path,
                side: int | None = None) -> float:
    """Write an ONNX file whose batch may have any size, and compare.

    Args:
        backbone (LoadedBackbone): On the CPU. What its ``forward`` takes is the file's input
            ``images`` (B, 3, side, side) float32, and its features are ``features`` (B, C).
        out (str | Path): File.
        side (int, optional): Pixels. Defaults to None: what the network was trained with.

    Returns:
        float: Largest difference between both, of the largest feature.

    Raises:
        ModuleNotFoundError: If a library is missing.
        OSError: If the file cannot be written.
        ValueError: If the features differ by more than rounding, are not finite or all 0, or
            ``side`` is not positive.
    """
    check_onnx()
    import onnxruntime
    side = backbone.image_size if side is None else side
    if side < 1:
        raise ValueError(f'side must be at least 1 pixel, not {side}.')
    file = Path(out).expanduser()
    check_file(file)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, len(backbone.mean), side, side, generator=generator) * 2 - 1
    if backbone.normalise:
        images = (images + 1) * 127.5
    backbone.eval()
    with replacing(file) as partial:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of torch, about itself
            torch.onnx.export(
                backbone, (images, ), str(partial), input_names=['images'],
                output_names=['features'], dynamo=True, external_data=False,
                dynamic_shapes=({0: torch.export.Dim('batch')}, ), verbose=False)
        session = onnxruntime.InferenceSession(str(partial), providers=['CPUExecutionProvider'])
        differences = []
        for size in (1, 3):
            factors = torch.linspace(0.5, 1, size).view(-1, 1, 1, 1)
            batch = images[:1].repeat(size, 1, 1, 1) * factors
            with torch.no_grad():
                expected = backbone(batch).numpy()
            found = session.run(None, {'images': batch.numpy()})[0]
            if found.shape != expected.shape:
                raise ValueError(f'the ONNX file gives {found.shape} for {size} images, the '
                                 f'network {expected.shape}.')
            largest = float(np.abs(expected).max())
            if not 0 < largest < np.inf:
                raise ValueError(f'the largest feature of the network is {largest}: it gives '
                                 'nothing that could be used; take an earlier checkpoint.')
            differences.append(float(np.abs(found - expected).max()) / largest)
        worst = float(np.max(differences))  # NaN if one is
        if not worst < TOLERANCE:
            raise ValueError(f'features of the ONNX file differ by {worst:.1e} of the largest; the '
                             'file was not kept.')
    return worst
