# SPDX-License-Identifier: Apache-2.0
"""A linear classifier, and nearest neighbours, on a frozen backbone and labelled pictures."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, NamedTuple

import torch
from mmengine.device import get_device
from torch import Tensor

from pic_plugin.evaluation.knn import knn_predict, normalise
from pic_plugin.evaluation.linear_probe import accuracy_of, fit_linear
from pic_plugin.features.embedding import LoadedBackbone, embed, load_backbone, untrained_twin
from pic_plugin.pretrain.labels import Labelled, read_labels
from pic_plugin.wording import counted

NEIGHBOURS = 20
PENALTY, MAX_ITER = 1e-3, 200


class Probe(NamedTuple):
    """How well labels follow from features.

    Attributes:
        classes (list[str]): Names.
        num_train (int): Labelled pictures that the classifier was fitted to.
        num_test (int): Others, that it was tried on.
        linear (float): Percent of them that it classifies right.
        knn (float): Percent that their nearest neighbours classify right.
        weight (Tensor): (classes, C) float32 of a linear layer on raw features.
        bias (Tensor): (classes,).
    """

    classes: list[str]
    num_train: int
    num_test: int
    linear: float
    knn: float
    weight: Tensor
    bias: Tensor


def probe(backbone: LoadedBackbone, labelled: Labelled, side: int | None = None,
          batch_size: int = 64) -> Probe:
    """Fit to one half of the labelled pictures and try on the other.

    Args:
        backbone (LoadedBackbone): That normalises.
        labelled (Labelled): From :func:`read_labels`.
        side (int, optional): Pixels. Defaults to None: what the network was trained with.
        batch_size (int): Pictures at a time. Defaults to 64.
    """
    train, train_labels = _features(backbone, labelled.references, side, batch_size)
    test, test_labels = _features(backbone, labelled.queries, side, batch_size)
    votes = knn_predict(normalise(test), normalise(train), train_labels,
                        (min(NEIGHBOURS, len(train)), ))
    knn = float((votes[:, 0] == test_labels).double().mean() * 100)
    weight, bias = fit_linear(train, train_labels, PENALTY, MAX_ITER)
    return Probe(labelled.classes, len(train), len(test),
                 accuracy_of(weight, bias, test, test_labels), knn, weight.float(), bias.float())


def _features(backbone: LoadedBackbone, pairs: list[tuple[str, int]], side: int | None,
              batch_size: int) -> tuple[Tensor, Tensor]:
    found = embed([file for file, _ in pairs], backbone, side=side, batch_size=batch_size)
    read = set(found.names)
    return torch.from_numpy(found.features), torch.tensor(
        [label for file, label in pairs if file in read])


def probe_checkpoint(checkpoint: str | Path, labels: str | Path,
                     device: str | None = None, side: int | None = None,
                     batch_size: int = 64, say: Callable[[str], Any] = print) -> dict[str, Probe]:
    """Probe a trained network and the same one with random weights.

    Returns:
        dict[str, Probe]: ``trained`` and ``random``.

    Raises:
        FileNotFoundError: If the checkpoint or the labels are not there.
        ValueError: If either is unusable.
    """
    where = device or get_device()
    trained = load_backbone(checkpoint, normalise=True, device=where)
    labelled = read_labels(labels, reader=trained.reader)
    if labelled.num_broken:
        say(f'{counted(labelled.num_broken, "picture")} of {labels} cannot be read.')
    found = {}
    random = untrained_twin(checkpoint, normalise=True, device=where)
    for name, backbone in (('trained', trained), ('random', random)):
        found[name] = probe(backbone, labelled, side, batch_size)
        one = found[name]
        say(f'{name}: linear {one.linear:.1f} %, {NEIGHBOURS} nearest neighbours {one.knn:.1f} % '
            f'({counted(one.num_train, "picture")} to learn from, {one.num_test:,} to classify, '
            f'{counted(len(one.classes), "class", "classes")})')
    return found
