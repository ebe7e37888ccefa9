# SPDX-License-Identifier: Apache-2.0
"""kNN accuracy on the device, in one go: what evaluation.knn gives, for small sets."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def knn_accuracies(features: Tensor, labels: Tensor, references: Tensor, reference_labels: Tensor,
                   topk: Sequence[int] = (20, 200), temperature: float = 0.07) -> dict[str, float]:
    """Accuracy of the weighted vote of the nearest references.

    Args:
        features (Tensor): (Q, C) of the images to classify.
        labels (Tensor): (Q,) int64.
        references (Tensor): (R, C).
        reference_labels (Tensor): (R,) int64.
        topk (Sequence[int]): Numbers of neighbours; more than R become R.
        temperature (float): Of the votes.

    Returns:
        dict[str, float]: ``knn20`` and so on, percent.
    """
    queries, rows = (F.normalize(part.float(), dim=1) for part in (features, references))
    num_classes = int(reference_labels.max()) + 1
    hits = dict.fromkeys(topk, 0)
    for query, label in zip(queries.split(2048), labels.split(2048)):
        similarity, place = (query @ rows.T).topk(min(max(topk), len(rows)), dim=1)
        votes = reference_labels[place]
        weights = (similarity / temperature).exp()
        for k in topk:
            total = torch.zeros(len(query), num_classes, device=query.device)
            total.scatter_add_(1, votes[:, :k], weights[:, :k])
            hits[k] += int((total.argmax(dim=1) == label).sum())
    return {f'knn{k}': round(hit / len(labels) * 100, 2) for k, hit in hits.items()}
