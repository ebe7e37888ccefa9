# SPDX-License-Identifier: Apache-2.0
"""What a step of each method keeps in memory, counted tensor by tensor; the same on any machine."""
from __future__ import annotations

import torch
from torch import Tensor

from .images import Images
from .report import table
from .search import RIVALS
from .setting import PASSES_PER_IMAGE, Setting
from .training import Training

NAMES = dict(pic='PIC', simclr='SimCLR', mocov2='MoCo v2', diet='DIET', byol='BYOL',
             simsiam='SimSiam', barlow='Barlow Twins', swav='SwAV')


def memory_table(passes: int, width: int, classes: int, size: int) -> str:
    """Markdown: megabytes of each method, all in float32.

    Args:
        passes (int): Forward passes of a step.
        width (int): Channels of the network's first stage.
        classes (int): Of PIC and DIET: those in the softmax.
        size (int): Pixels of an image's side.
    """
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (classes, 3, size, size), generator=generator,
                           dtype=torch.uint8)
    images = Images(pixels, torch.zeros(classes, dtype=torch.int64), {}, references=1, size=size,
                    mean=torch.full((3, ), 0.5), std=torch.full((3, ), 0.25))
    rows = []
    for method, name in NAMES.items():
        setting = RIVALS[name][0] if name in RIVALS else Setting(method)
        setting = setting.but(batch=passes, passes=passes, images=classes, width=width)
        state, kept = step_bytes(Training(setting, images))
        rows.append((name, PASSES_PER_IMAGE[method], f'{state / 1e6:.0f}', f'{kept / 1e6:.0f}',
                     f'{(state + kept) / 1e6:.0f}'))
    return table(['method', 'passes an image', 'weights and optimizer, MB',
                  'kept for the backward pass, MB', 'sum, MB'], rows)


def step_bytes(training: Training) -> tuple[int, int]:
    """Bytes between two steps, and those that a step keeps beside them until its backward pass.

    Gradients count among the first. Not counted are the images of other steps, and what an
    operation needs while it runs.

    Args:
        training (Training): Takes a step.
    """
    trained = [training.parameters.values]
    if training.objective.weight_optimizer is not None:
        trained.append(training.objective.weight_optimizer.values)
    known = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage()
             for tensor in [*trained, *training.state()]}
    kept: dict[int, torch.UntypedStorage] = {}  # held here, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        training.step()
    gradients = sum(tensor.nbytes for tensor in trained)
    return (gradients + sum(storage.nbytes() for storage in known.values()),
            sum(storage.nbytes() for storage in kept.values()))
