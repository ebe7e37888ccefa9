# SPDX-License-Identifier: Apache-2.0
"""The lines of Python that use an exported backbone where pic_plugin is not installed."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pic_plugin.analysis.images import DEFAULT_SIDE, training_side
from pic_plugin.analysis.network import Settings
from pic_plugin.analysis.picture_reader import reader_of
from pic_plugin.transfer.config_text import dicts_of_training


def torchvision_lines(file: Path, code: Sequence[str], content: dict) -> list[str]:
    """Lines that give features of one picture, as :func:`pic_plugin.embed` does.

    Args:
        file (Path): A backbone that was exported for torchvision.
        code (Sequence[str]): Makes torchvision's ``network``.
        content (dict): Of that file, or of the checkpoint that it was taken from.
    """
    settings = Settings.of(
        dicts_of_training(content, 'model', 'data_preprocessor', 'train_dataloader'))
    mean, std, to_rgb = settings.normalisation
    reader = reader_of(settings.training)
    lines = ['import torch, torchvision', *code,
             f"network.load_state_dict(torch.load({str(file)!r})['state_dict'])",
             'network.eval()']
    if mean is None or std is None:
        return [*lines, '# It gives features (B, C) of pixels as they were in training.']
    if not to_rgb or len(mean) != 3 or reader.channels != 3 or reader.value_range is not None:
        return [*lines, f'# It gives features (B, C) of (pixels - mean) / std in '
                f'{"RGB" if to_rgb else "BGR"}, mean = {list(mean)} and std = {list(std)}.']
    side = training_side(settings.training) or DEFAULT_SIDE
    scaled = [[round(float(value) / 255, 4) for value in values] for values in (mean, std)]
    return [*lines, 'from PIL import Image, ImageOps', 'from torchvision import transforms',
            'prepare = transforms.Compose([',
            f'    transforms.Resize({side}), transforms.CenterCrop({side}), '
            'transforms.ToTensor(),',
            f'    transforms.Normalize({scaled[0]}, {scaled[1]})])',
            "picture = ImageOps.exif_transpose(Image.open('PICTURE')).convert('RGB')",
            'features = network(prepare(picture)[None])  # (1, C)']
