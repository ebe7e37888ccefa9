# SPDX-License-Identifier: Apache-2.0
"""Linear classification of features that are computed once: multinomial logistic regression."""
from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

# LBFGS ends at derivatives of 1e-6; where it stops for another reason accuracies of a few thousand
# samples are settled below this.
_FLAT = 1e-4


def linear_accuracy(train_features: Tensor,
                    train_labels: Tensor,
                    features: Tensor,
                    labels: Tensor,
                    penalty: float = 1e-3,
                    max_iter: int = 200) -> float:
    """Top-1 accuracy of a linear classifier, percent.

    The features are standardised by the training features' mean and standard deviation. The
    classifier minimises cross-entropy plus ``penalty / 2`` times the squared norm of its weights
    (not of its biases), a convex problem that torch's LBFGS solves from zero: there is no
    learning rate, seed or length to choose, so the number depends on the features alone (and not
    on scikit-learn, which is optional here). It stands in for linear evaluation by SGD where
    images are not augmented.

    Args:
        train_features (Tensor): (R, d).
        train_labels (Tensor): (R,) int64, from 0.
        features (Tensor): (Q, d) to classify.
        labels (Tensor): (Q,) int64.
        penalty (float): Weight of the squared norm. Defaults to 1e-3.
        max_iter (int): Most iterations of LBFGS. Defaults to 200.

    Returns:
        float: Percent of ``features`` that get their label.

    Raises:
        ValueError: If there are no samples, shapes do not fit, a label is negative, or a feature
            is not finite.
    """
    _check(train_features, train_labels, 'training')
    _check(features, labels, 'evaluated')
    if train_features.shape[1] != features.shape[1]:
        raise ValueError(f'features have {train_features.shape[1]} components in training and '
                         f'{features.shape[1]} in evaluation.')
    return accuracy_of(*fit_linear(train_features, train_labels, penalty, max_iter), features,
                       labels)


def accuracy_of(weight: Tensor, bias: Tensor, features: Tensor, labels: Tensor) -> float:
    """Percent of (Q, d) features that a linear layer, float64, gives their label."""
    given = (features.double() @ weight.T + bias).argmax(dim=1)
    return float((given == labels).double().mean() * 100)


def fit_linear(features: Tensor, labels: Tensor, penalty: float,
               max_iter: int) -> tuple[Tensor, Tensor]:
    """Fit the classifier of :func:`linear_accuracy`.

    Returns:
        tuple[Tensor, Tensor]: (C, d) weight and (C,) bias, float64, of a linear layer on features
        as they come: standardising is linear, too.
    """
    features = features.double()
    mean, scale = features.mean(dim=0), features.std(dim=0, unbiased=False)
    # A component that never varies says nothing, and is left out instead of divided by zero.
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    standardised = (features - mean) / scale
    num_classes = int(labels.max()) + 1
    weight = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=max_iter, tolerance_grad=1e-6,
                                  tolerance_change=1e-10, line_search_fn='strong_wolfe')

    def closure() -> float:
        optimizer.zero_grad()
        loss = (F.cross_entropy(standardised @ weight.T + bias, labels)
                + penalty / 2 * weight.square().sum())
        loss.backward()
        return loss.item()

    with torch.enable_grad():
        optimizer.step(closure)
        closure()
    slope = max(float(part.grad.abs().max()) for part in (weight, bias)
                if part.grad is not None)
    if slope > _FLAT:
        warnings.warn(f'linear evaluation has not come to its optimum in {max_iter} iterations '
                      f'(a derivative of {slope:.1e} is left): raise max_iter.', RuntimeWarning,
                      stacklevel=3)
    plain = weight.detach() / scale
    return plain, bias.detach() - plain @ mean


def _check(features: Tensor, labels: Tensor, name: str) -> None:
    if features.dim() != 2 or not len(features) or labels.shape != (len(features), ):
        raise ValueError(f'{name} features must be (N, d), N > 0, with (N,) labels, not '
                         f'{tuple(features.shape)} and {tuple(labels.shape)}.')
    if int(labels.min()) < 0:
        raise ValueError(f'{name} labels must not be negative, one is {int(labels.min())}.')
    if not torch.isfinite(features).all():
        raise ValueError(f'{name} features are not finite: the network gives no usable features; '
                         'look at its losses and inputs.')
