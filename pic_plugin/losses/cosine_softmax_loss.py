# SPDX-License-Identifier: Apache-2.0
"""PIC's loss: softmax cross-entropy over the cosines of a feature with all class weights."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .blockwise_softmax import BlockwiseCosineSoftmax, Shards

# 64 MB of float32 logits: large enough for a GPU to run at full speed, small beside its memory.
BLOCK_ELEMENTS = 2**24


def cosine_softmax(features: Tensor,
                   class_weights: Tensor,
                   targets: Tensor,
                   temperature: float = 0.2,
                   block_elements: int = BLOCK_ELEMENTS,
                   shards: Shards | None = None) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each feature under a softmax over cosines, without the logits in memory.

    ``losses[i] = -log(exp(cos(w[y_i], z_i) / t) / sum_j exp(cos(w[j], z_i) / t))`` (PIC paper,
    section 3), for features z, class weights w, targets y and temperature t.

    The value is exact: no class is left out and nothing is approximated. Half-precision inputs are
    computed on in float32, also under autocast; gradients come back in the inputs' own dtypes. A
    vector of norm up to 1e-12 (float16: 2e-4 / temperature) counts as zero: its cosine with
    everything is 0 and its gradient is zero. Gradients of gradients are not supported.

    Beside the inputs and their gradients, memory holds about a block of logits and a block of
    class weights at a time. No work is done for an input that needs no gradient, so detach the
    class weights where they are not to be trained. Where all B * C logits fit into one block they
    are kept for backward, which then need not compute them again.

    With ``shards`` each process has a part of the class weights; all call this together, and losses
    and gradients are those of a softmax over all parts. Gradients follow DistributedDataParallel:
    each process calls backward on a loss of its own batch, and the mean of these losses over the
    processes is minimised. Class weights get the gradient of that mean, so that a part is trained
    as if its rows were part of a replicated parameter. Features get the gradient of their own loss
    alone, undivided, since DistributedDataParallel averages what becomes of it in the network. If
    the gradient of a part is not finite, that of its process's features becomes nan: a gradient
    scaler then sees an overflow in every process, and all skip the step, or none.

    Args:
        features (Tensor): (B, d) floating point, of any length.
        class_weights (Tensor): (C, d) floating point, of any length; with ``shards``, those of
            this process, and C may be 0.
        targets (Tensor): (B,) integer, rows of ``class_weights``; with ``shards``, (sum of sizes,)
            for the features of all processes, -1 where another process holds the target. Exactly
            one process must hold it.
        temperature (float): t > 0. Defaults to 0.2.
        block_elements (int): Logits, or elements of class weights, in one block; the CPU takes
            fewer for its cache's sake. Defaults to 2**24.
        shards (Shards, optional): The processes that share the classes out. Defaults to None:
            this process has all of them.

    Returns:
        tuple[Tensor, Tensor]: Losses, (B,) in float32 (float64 if an input is), and hits, (B,)
        bool: whether no class has a larger logit than the target. A zero feature is no hit.

    Raises:
        TypeError: If a dtype is of the wrong kind.
        ValueError: If shapes or devices do not fit together, the batch is empty, the temperature
            is not a positive number, ``block_elements`` is below 1, or (on CPU) a target lies
            outside [0, C). On a GPU that check would wait for the device in every step: there the
            loss of such a target, and the gradient of its feature, are nan.

    Example:
        >>> import torch
        >>> features = torch.tensor([[3.0, 0.0], [0.0, 0.5]])
        >>> class_weights = torch.eye(2)
        >>> losses, hits = cosine_softmax(features, class_weights, torch.tensor([0, 0]))
        >>> [round(loss, 4) for loss in losses.tolist()], hits.tolist()
        ([0.0067, 5.0067], [True, False])
    """
    _check_temperature(temperature)
    if block_elements < 1:
        raise ValueError(f'block_elements is {block_elements}: a block needs at least 1 element.')
    shards = shards or Shards()
    _check_inputs(features, class_weights, targets, shards)
    grad = torch.is_grad_enabled()
    return BlockwiseCosineSoftmax.apply(features, class_weights, targets.long(), temperature,
                                        block_elements, shards, grad and features.requires_grad,
                                        grad and class_weights.requires_grad)


class CosineSoftmaxLoss(nn.Module):
    """Mean of :func:`cosine_softmax` over the batch, the loss of PIC.

    Parametric Instance Classification for Unsupervised Visual Feature Learning
    (https://arxiv.org/abs/2006.14618), section 3.

    The mean is over the local batch. DistributedDataParallel averages gradients over ranks, and
    mmengine's optimizer wrappers divide by the number of accumulated batches: both give the mean
    over all images if, as usual, the batches are of equal size. (Where those of ranks are not,
    :class:`PICHead` weights their losses.)

    Args:
        temperature (float): Divides the cosines; > 0. Defaults to 0.2, the authors' setting.
        loss_weight (float): Factor on the loss. Defaults to 1.0.

    Attributes:
        takes_shards (bool): Of the class: whether :meth:`with_accuracy` takes ``shards``, which a
            head asks for that is sharded over processes.

    Raises:
        ValueError: If ``temperature`` is not a positive number or ``loss_weight`` not a finite one.

    Example:
        >>> import torch
        >>> loss = CosineSoftmaxLoss(temperature=0.2)
        >>> features = torch.randn(4, 128, requires_grad=True)
        >>> class_weights = torch.randn(1000, 128, requires_grad=True)
        >>> value = loss(features, class_weights, torch.tensor([0, 999, 5, 5]))
        >>> value.backward()
        >>> value.shape, class_weights.grad.shape
        (torch.Size([]), torch.Size([1000, 128]))
    """

    takes_shards = True

    def __init__(self, temperature: float = 0.2, loss_weight: float = 1.0) -> None:
        super().__init__()
        _check_temperature(temperature)
        if not math.isfinite(loss_weight):
            raise ValueError(f'loss_weight is {loss_weight}: choose a finite number.')
        self.temperature = temperature
        self.loss_weight = loss_weight

    def forward(self, features: Tensor, class_weights: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a batch.

        Args:
            features (Tensor): (B, d) floating point.
            class_weights (Tensor): (C, d) floating point.
            targets (Tensor): (B,) integer, rows of ``class_weights``.

        Returns:
            Tensor: Scalar, float32 (float64 if an input is), times ``loss_weight``.

        Raises:
            TypeError: See :func:`cosine_softmax`.
            ValueError: See :func:`cosine_softmax`.
        """
        return self.with_accuracy(features, class_weights, targets)[0]

    def with_accuracy(self, features: Tensor, class_weights: Tensor, targets: Tensor,
                      shards: Shards | None = None) -> tuple[Tensor, Tensor]:
        """Mean loss and instance accuracy of a batch, from the same logits.

        Args:
            features (Tensor): (B, d) floating point.
            class_weights (Tensor): (C, d) floating point.
            targets (Tensor): (B,) integer, rows of ``class_weights``.
            shards (Shards, optional): See :func:`cosine_softmax`. Defaults to None.

        Returns:
            tuple[Tensor, Tensor]: The scalar of :meth:`forward`, and the share in percent of
            features whose target has the largest logit, a scalar without gradient.

        Raises:
            TypeError: See :func:`cosine_softmax`.
            ValueError: See :func:`cosine_softmax`.
        """
        losses, correct = cosine_softmax(features, class_weights, targets, self.temperature,
                                         shards=shards)
        return losses.mean() * self.loss_weight, correct.to(losses.dtype).mean() * 100

    def extra_repr(self) -> str:
        return f'temperature={self.temperature}, loss_weight={self.loss_weight}'


def _check_temperature(temperature: float) -> None:
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f'temperature is {temperature}: choose a positive number; PIC uses 0.2.')


def _check_inputs(features: Tensor, class_weights: Tensor, targets: Tensor,
                  shards: Shards) -> None:
    alone = shards.processes.size == 1
    shapes = (f'got features {tuple(features.shape)}, class_weights {tuple(class_weights.shape)}, '
              f'targets {tuple(targets.shape)}')
    if not alone:
        shapes += f', sizes {shards.sizes} of which process {shards.processes.rank} has its own'
    if not (features.is_floating_point() and class_weights.is_floating_point()):
        raise TypeError('features and class_weights must be floating point, got '
                        f'{features.dtype} and {class_weights.dtype}.')
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise TypeError(f'targets must be integers, got {targets.dtype}: pass class indices.')
    if features.dim() != 2 or class_weights.dim() != 2 or targets.dim() != 1:
        raise ValueError(f'expected features (B, d), class_weights (C, d), targets (B,); {shapes}.')
    num_own = len(targets) if alone else shards.sizes[shards.processes.rank]
    if (features.shape[1] != class_weights.shape[1] or len(features) != num_own
            or (not alone and len(targets) != sum(shards.sizes))):
        raise ValueError('features and class_weights must agree in d, features and targets in B; '
                         f'{shapes}.')
    if 0 in features.shape or (alone and len(class_weights) == 0):
        raise ValueError(f'no loss without features, dimensions and classes; {shapes}: check '
                         'that the batch is not empty.')
    if not features.device == class_weights.device == targets.device:
        raise ValueError('all inputs must be on one device, got features on '
                         f'{features.device}, class_weights on {class_weights.device}, targets on '
                         f'{targets.device}.')
    if targets.device.type == 'cpu':
        lowest, highest = int(targets.min()), int(targets.max())
        if lowest < (0 if alone else -1) or highest >= len(class_weights):
            raise ValueError(f'targets range from {lowest} to {highest}, but there are '
                             f'{len(class_weights)} classes: each target must be a row of '
                             'class_weights.')
