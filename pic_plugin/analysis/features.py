# SPDX-License-Identifier: Apache-2.0
"""Features of pictures, and what their neighbours say about labels."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pic_plugin.analysis.images import Images
from pic_plugin.analysis.inputs import progress
from pic_plugin.analysis.network import Network
from pic_plugin.evaluation.knn import knn_predict, normalise

NEIGHBOURS = 20


class Features(NamedTuple):
    """Features of the pictures that could be read.

    Attributes:
        indices (list[int]): Which pictures these are.
        values (Tensor): (n, C) float32.
    """

    indices: list[int]
    values: Tensor


def extract(network: Network,
            images: Images,
            indices: Sequence[int],
            side: int,
            batch_size: int = 128) -> Features:
    """Pooled features of the pictures at ``indices``, brought to ``side`` pixels, on the CPU.

    Raises:
        ValueError: If no picture can be read, or a feature is not finite.
    """
    kept: list[int] = []
    parts: list[Tensor] = []
    with progress(len(indices)) as advance:
        for batch, pictures in images.batches(indices, side, batch_size):
            kept += batch
            parts.append(network.features(network.normalise(pictures)).cpu())
            advance(len(batch))
    images.check_any(kept)
    values = torch.cat(parts)
    finite = values.isfinite().all(dim=1)
    if not finite.all():
        worst = images.names[kept[int(finite.logical_not().nonzero()[0])]]
        raise ValueError(f'the feature of {worst} is not finite: the network gives nothing that '
                         'could be compared; look at its checkpoint and losses.')
    return Features(kept, values)


def knn_accuracy(features: Features, images: Images) -> float | None:
    """Share of every second picture whose label its neighbours among the others vote for.

    Args:
        features (Features): Of at least two pictures.
        images (Images): With labels.

    Returns:
        float | None: Percent; None if there are no labels, or one picture.
    """
    if images.labels is None or len(features.indices) < 2:
        return None
    _, classes = np.unique([images.labels[index] for index in features.indices],
                           return_inverse=True)
    labels = torch.from_numpy(classes)
    unit = normalise(features.values)
    # Every second: files are sorted by class, so that both halves have all classes.
    references, queries = slice(0, None, 2), slice(1, None, 2)
    k = min(NEIGHBOURS, len(labels[references]))
    predicted = knn_predict(unit[queries], unit[references], labels[references], (k, ))
    return float((predicted[:, 0] == labels[queries]).double().mean() * 100)
