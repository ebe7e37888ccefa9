# SPDX-License-Identifier: Apache-2.0
"""Frames of a video as one class teach what frames of it share; as rivals they do not."""
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import nn

from toys.training import make_config, train

SIDE, NUM_VIDEOS, NUM_FRAMES = 8, 40, 6


@MODELS.register_module()
class ToyPixelBackbone(nn.Module):
    """(B, 3, 8, 8) to a tuple of (B, 16)."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * SIDE**2, 16)

    def forward(self, images):
        return (self.linear(images.flatten(1)), )


def make_frames(folder):
    """Shifted crops of a scene for each video; the last frame of each is held out.

    Frames differ by the shift and by strong light from a side, so that pixels alone do not tell.
    """
    rng = np.random.default_rng(0)
    held_out = []
    lights = rng.normal(size=(3, SIDE, SIDE, 3))
    for video in range(NUM_VIDEOS):
        scene = cv2.resize(rng.normal(size=(3, 3, 3)), (SIDE + 2, SIDE + 2))
        for frame in range(NUM_FRAMES + 1):
            top, left = rng.integers(0, 3, 2)
            light = np.tensordot(rng.normal(size=3), lights, 1)
            pixels = 127 + 25 * scene[top:top + SIDE, left:left + SIDE] + 25 * light
            pixels = pixels.clip(0, 255).astype(np.uint8)
            if frame == NUM_FRAMES:
                held_out.append(pixels)
                continue
            file = folder / f'v{video:02d}' / f'{frame}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), pixels)
    return np.stack(held_out)


def found_videos(runner, folder, held_out):
    """Share of held-out frames whose nearest trained frame is of the same video."""
    files = sorted(folder.rglob('*.png'))
    known = np.stack([cv2.imread(str(file)) for file in files])
    videos = np.array([int(file.parent.name[1:]) for file in files])

    def features(pixels):
        images = (torch.tensor(pixels).permute(0, 3, 1, 2).float() - 127) / 127
        with torch.no_grad():
            return F.normalize(runner.model.backbone(images)[0], dim=1)

    nearest = (features(held_out) @ features(known).T).argmax(1).numpy()
    return (videos[nearest] == np.arange(NUM_VIDEOS)).mean()


def test_frames_of_shifted_crops(tmp_path):
    folder = tmp_path / 'videos'
    held_out = make_frames(folder)
    pipeline = [dict(type='LoadImageOrSkip', to_float32=True),
                dict(type='Normalize', mean=[127.0] * 3, std=[127.0] * 3),
                dict(type='PackInputs', meta_keys=('sample_idx', ))]

    def share(name, epochs, **dataset):
        arguments = dict(seed=0, batch_size=16, max_epochs=epochs, head=dict(num_negatives=None))
        config = make_config(tmp_path, **arguments)
        loader = dict(config['train_dataloader'], dataset=dict(
            type='ImageFiles', data_root=str(folder), pipeline=pipeline, **dataset))
        model = dict(config['model'], backbone=dict(type='ToyPixelBackbone'))
        runner = train(
            tmp_path / name, train_dataloader=loader, model=model, param_scheduler=None,
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1000)), **arguments)
        return found_videos(runner, folder, held_out)

    # As many images seen: an epoch has 240 images, or 40 videos.
    rivals = share('rivals', 20)
    keyed = share('keyed', 20 * NUM_FRAMES, instance_key=dict(pattern=r'(v\d+)/'))
    assert keyed > rivals + 0.15, (keyed, rivals)
