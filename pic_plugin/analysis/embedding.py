# SPDX-License-Identifier: Apache-2.0
"""A map of features in two dimensions, by scikit-learn or UMAP, and its clusters."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pic_plugin.analysis.features import Features
from pic_plugin.analysis.images import Images
from pic_plugin.analysis.style import COLOURS, hide_axes, legend, require, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ('tsne', 'umap', 'pca')
CLUSTERS = 10
PCA_DIMS = 50  # before t-SNE, as its author advises
SAME = 1e-6  # in each number of features of length 1, where float32 rounds
MARKERS = 'os^DvP*X'  # a colour that comes again has another mark


def embed(features: np.ndarray, method: str = 'tsne', seed: int = 0) -> np.ndarray:
    """Place features in the plane, similar ones near each other (by cosine).

    Args:
        features (np.ndarray): (n, C) floating point.
        method (str): One of METHODS. Fewer than 5 features are placed by pca. Defaults to 'tsne'.
        seed (int): Same features and seed, same map. Defaults to 0.

    Returns:
        np.ndarray: (n, 2) float64, each axis scaled into [0, 1].

    Raises:
        ModuleNotFoundError: If the library is not installed, with the command that installs it.
        ValueError: If the method is unknown, or all features are the same.
    """
    if method not in METHODS:
        raise ValueError(f'the method {method!r} is not one of {", ".join(METHODS)}.')
    require('sklearn')
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import normalize
    unit = normalize(features)
    count, dim = unit.shape
    if count > 1 and np.ptp(unit, axis=0).max() < SAME:
        raise ValueError(
            f'the features of all {count} pictures are the same, so that a map would show nothing: '
            'if the pictures are not copies of one, the network has collapsed; look at its losses, '
            'and begin anew with a lower learning rate.')
    if method == 'umap' and count >= 5:
        require('umap')
        from umap import UMAP
        points = UMAP(n_neighbors=min(15, count - 1), random_state=seed).fit_transform(unit)
    elif method == 'tsne' and count >= 5:
        from sklearn.manifold import TSNE
        small = PCA(min(PCA_DIMS, count, dim), random_state=seed).fit_transform(unit)
        points = TSNE(perplexity=min(30, (count - 1) / 3), init='pca',
                      random_state=seed).fit_transform(small)
    else:
        dims = min(2, count, dim)
        points = np.zeros((count, 2))
        points[:, :dims] = PCA(dims, random_state=seed).fit_transform(unit)
    low, high = points.min(axis=0), points.max(axis=0)
    return ((points - low) / np.where(high > low, high - low, 1)).astype(np.float64)


def cluster(features: np.ndarray, count: int, seed: int = 0) -> list[str]:
    """Names ``cluster 1`` and so on of the k-means cluster of each feature, largest first."""
    require('sklearn')
    from sklearn.cluster import KMeans
    found = KMeans(min(count, len(features)), n_init=3, random_state=seed).fit_predict(features)
    numbers, sizes = np.unique(found, return_counts=True)
    rank = {number: place + 1 for place, number in enumerate(numbers[np.argsort(-sizes)])}
    return [f'cluster {rank[number]}' for number in found]


def groups_of(features: Features, images: Images, clusters: int | None = None,
              seed: int = 0) -> list[str]:
    """Label of each picture, or its cluster where there are no labels or clusters are wanted."""
    if images.labels is not None and clusters is None:
        return [images.labels[index] for index in features.indices]
    return cluster(features.values.numpy(), clusters or CLUSTERS, seed)


def group_styles(groups: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and mark of each group."""
    return {name: (COLOURS[place % len(COLOURS)], MARKERS[place // len(COLOURS) % len(MARKERS)])
            for place, name in enumerate(sorted(set(groups), key=_natural))}


def _natural(name: str) -> Any:
    return [part.zfill(9) if part.isdigit() else part for part in name.split(' ')]


def draw_embedding(points: np.ndarray, groups: Sequence[str]) -> Figure:
    """Points coloured by group.

    Args:
        points (np.ndarray): (n, 2).
        groups (Sequence[str]): (n,) label or cluster of each.
    """
    figure, axes = subplots(6.5, 5)
    hide_axes(axes)
    chosen = np.array(groups)
    styles, handles = group_styles(groups), []
    for name, (colour, marker) in styles.items():
        here = points[chosen == name]
        handles.append(axes.scatter(here[:, 0], here[:, 1], s=14, color=colour, marker=marker,
                                    linewidths=0, alpha=0.85))
    legend(figure, handles, list(styles), loc='outside right upper', fontsize=8)
    return figure
