# SPDX-License-Identifier: Apache-2.0
"""Losses of PIC and its rivals, on the pooled features of a small network.

Each is the published one: SimCLR (arXiv 2002.05709), MoCo v2 (2003.04297), BYOL (2006.07733),
SimSiam (2011.10566), Barlow Twins (2103.03230), SwAV (2006.09882), DIET (2302.10260). Nothing here
waits for the device or chooses its shapes by values, so a step can be recorded and replayed.
"""
from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pic_plugin.bank.refresh import refresh_rows

from .network import FlatParameters, ResNet18, projection
from .optimizers import Optimizer
from .setting import Setting


class Step(NamedTuple):
    """What a loss is told of its step.

    Attributes:
        ids (Tensor): (B,) int64 images.
        positions (Tensor): (B,) int64 places in the stream of visits.
        returning (Tensor): (B,) int64: the image where it returns, else N, a row that nobody uses.
        threshold (Tensor): (1,) int64, see ``recency_thresholds``.
        number (Tensor): (1,) int64, steps taken before.
    """

    ids: Tensor
    positions: Tensor
    returning: Tensor
    threshold: Tensor
    number: Tensor


class Objective:
    """A method: what it trains beside the network, and its loss.

    Attributes:
        modules (list[nn.Module]): Trained with the network.
        weight (Tensor, optional): (N + 1, d) class weights, stepped by an optimizer of their own.
        buffers (list[Tensor]): What else changes in a step; known after :meth:`prepare`.
        weight_optimizer (Optimizer, optional): Of the class weights.
        weight_states (list[Tensor]): What it keeps; known after :meth:`prepare`.
    """

    def __init__(self, net: ResNet18, setting: Setting) -> None:
        self.net, self.setting = net, setting
        self.modules: list[nn.Module] = []
        self.weight: Tensor | None = None
        self.buffers: list[Tensor] = []
        self.weight_optimizer: Optimizer | None = None
        self.weight_states: list[Tensor] = []

    def to(self, device: torch.device) -> Objective:
        """Move everything to a device, before :meth:`prepare`."""
        for name, value in list(vars(self).items()):
            if isinstance(value, nn.Module):
                value.to(device)
            elif isinstance(value, Tensor):
                setattr(self, name, value.detach().to(device))
        return self

    def prepare(self, parameters: FlatParameters) -> None:
        """Take the parameters in the form in which they are stepped."""
        if self.weight is None:
            return
        setting = self.setting
        self.weight.requires_grad_()
        self.weight_optimizer = Optimizer(
            self.weight.detach(), setting.optimizer, setting.lr * setting.weight_lr,
            setting.weight_momentum, setting.weight_decay * setting.weight_wd)
        self.weight_states = self.weight_optimizer.states

    @property
    def class_weights(self) -> Tensor:
        """:attr:`weight`, of a method that has classes.

        Raises:
            TypeError: If it has none.
        """
        if self.weight is None:
            raise TypeError(f'{type(self).__name__} has no class weights: only PIC and DIET do.')
        return self.weight

    def embed(self, x: Tensor, *modules: nn.Module) -> Tensor:
        """Pass through modules, in half precision if that is the setting; float32 comes out."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.setting.half,
                            cache_enabled=False):
            for module in modules:
                x = module(x)
        return x.float() if self.setting.half else x

    def loss(self, views: Tensor, step: Step) -> Tensor:
        """(V * B, 3, H, W), first views first -> scalar."""
        raise TypeError(f'{type(self).__name__} has no loss')

    def after_step(self, parameters: FlatParameters) -> None:
        """What follows the optimizer's step."""


class Pic(Objective):
    """Cosine softmax over instance classes, all or the K most recent ones."""

    def __init__(self, net: ResNet18, setting: Setting) -> None:
        super().__init__(net, setting)
        self.neck = projection(net.out_channels, setting.hidden, setting.dim, setting.layers)
        self.modules = [self.neck]
        # PIC's authors start class weights at N(0, 0.01²).
        self.weight = torch.randn(setting.images + 1, setting.dim) * 0.01
        self.last_position = torch.full((setting.images, ), -1, dtype=torch.int64)
        self.seen: dict[str, Tensor] = {}  # of this step, for measures

    def prepare(self, parameters: FlatParameters) -> None:
        super().prepare(parameters)
        self.buffers = [self.last_position]

    def loss(self, views: Tensor, step: Step) -> Tensor:
        setting, weight = self.setting, self.class_weights
        features = F.normalize(self.embed(views, self.net, self.neck), dim=1)  # (B, d)
        if setting.measure:
            self.seen['row'] = weight.detach()[step.ids].clone()
        if setting.refresh:
            refresh_rows(weight, self.weight_states, step.returning, features.detach(),
                         setting.refresh)
        logits = features @ F.normalize(weight[:-1], dim=1).T / setting.temperature  # (B, N)
        self.last_position.scatter_reduce_(0, step.ids, step.positions, 'amax')
        active = torch.ones_like(self.last_position, dtype=torch.bool)
        if setting.num_negatives is not None:
            active = self.last_position >= step.threshold
        losses = masked_cross_entropy(logits, step.ids, active, setting.smoothing)
        if setting.measure:
            self.seen.update(features=features.detach(), loss=losses.detach(),
                             softmax=logits.detach().masked_fill(~active, -torch.inf).softmax(1),
                             target=weight.detach()[step.ids].clone())
        return losses.mean()


class Diet(Objective):
    """A linear classifier over all images, without projection or normalisation."""

    def __init__(self, net: ResNet18, setting: Setting) -> None:
        super().__init__(net, setting)
        self.weight = torch.randn(setting.images + 1, net.out_channels) * 0.01

    def loss(self, views: Tensor, step: Step) -> Tensor:
        logits = self.embed(views, self.net) @ self.class_weights[:-1].T
        return F.cross_entropy(logits, step.ids, label_smoothing=self.setting.smoothing)


class SimCLR(Objective):
    """Each view against all views of the batch."""

    def __init__(self, net: ResNet18, setting: Setting) -> None:
        super().__init__(net, setting)
        self.neck = projection(net.out_channels, setting.hidden, setting.dim, setting.layers)
        self.modules = [self.neck]

    def loss(self, views: Tensor, step: Step) -> Tensor:
        features = F.normalize(self.embed(views, self.net, self.neck), dim=1)  # (2B, d)
        count = len(features)
        itself = torch.eye(count, dtype=torch.bool, device=features.device)
        logits = (features @ features.T / self.setting.temperature).masked_fill(itself, -torch.inf)
        other = torch.arange(count, device=features.device).roll(count // 2)
        return F.cross_entropy(logits, other)


class MoCo(Objective):
    """Queries against keys of a slowly moving copy and a queue of former keys."""

    def __init__(self, net: ResNet18, setting: Setting) -> None:
        super().__init__(net, setting)
        self.neck = projection(net.out_channels, setting.hidden, setting.dim, setting.layers)
        self.modules = [self.neck]
        self.key_net = copy.deepcopy(nn.Sequential(net, self.neck))
        self.queue = F.normalize(torch.randn(setting.queue, setting.dim), dim=1)

    def prepare(self, parameters: FlatParameters) -> None:
        """Take the parameters that the copy follows."""
        self.parameters = parameters
        self.targets = FlatParameters([self.key_net], parameters.channels_last)
        self.buffers = [self.targets.values, self.queue, *self.key_net.buffers()]

    def loss(self, views: Tensor, step: Step) -> Tensor:
        queries, keys = views.chunk(2)
        queries = F.normalize(self.embed(queries, self.net, self.neck), dim=1)  # (B, d)
        with torch.no_grad():
            self.targets.values.lerp_(self.parameters.values, 1 - self.setting.ema)
            keys = F.normalize(self.embed(keys, self.key_net), dim=1)
        logits = torch.cat([(queries * keys).sum(dim=1, keepdim=True),
                            queries @ self.queue.clone().T], dim=1) / self.setting.temperature
        places = torch.remainder(step.positions, len(self.queue))
        self.queue.index_copy_(0, places, keys)
        return F.cross_entropy(logits, torch.zeros_like(step.ids))


class BYOL(Objective):
    """Prediction of the other view's projection by a slowly moving copy."""

    def __init__(self, net: ResNet18, setting: Setting) -> None:
        super().__init__(net, setting)
        self.neck = projection(net.out_channels, setting.hidden, setting.dim, setting.layers)
        self.predictor = projection(setting.dim, setting.hidden, setting.dim)
        self.modules = [self.neck, self.predictor]
        self.target_net = copy.deepcopy(nn.Sequential(net, self.neck))

    def prepare(self, parameters: FlatParameters) -> None:
        """Take the parameters that the copy follows: all but the predictor's."""
        self.parameters = parameters
        self.targets = FlatParameters([self.target_net], parameters.channels_last)
        self.buffers = [self.targets.values, *self.target_net.buffers()]

    def loss(self, views: Tensor, step: Step) -> Tensor:
        first, second = views.chunk(2)
        # Each view has BatchNorm statistics of its own, as in mmpretrain.
        predicted = [self.embed(view, self.net, self.neck, self.predictor)
                     for view in (first, second)]
        with torch.no_grad():
            targets = [self.embed(view, self.target_net) for view in (first, second)]
        return 2 - (F.cosine_similarity(predicted[0], targets[1]).mean()
                    + F.cosine_similarity(predicted[1], targets[0]).mean())

    def after_step(self, parameters: FlatParameters) -> None:
        values = self.targets.values
        values.lerp_(parameters.values[:len(values)], 1 - self.setting.ema)


class SimSiam(Objective):
    """Prediction of the other view's projection, without a copy."""

    def __init__(self, net: ResNet18, setting: Setting) -> None:
        super().__init__(net, setting)
        self.neck = projection(net.out_channels, setting.hidden, setting.dim, setting.layers,
                               last_norm=True)
        self.predictor = projection(setting.dim, max(setting.dim // 4, 16), setting.dim)
        self.modules = [self.neck, self.predictor]

    def loss(self, views: Tensor, step: Step) -> Tensor:
        projected = [self.embed(view, self.net, self.neck) for view in views.chunk(2)]
        predicted = [self.embed(z, self.predictor) for z in projected]
        return -0.5 * (F.cosine_similarity(predicted[0], projected[1].detach()).mean()
                       + F.cosine_similarity(predicted[1], projected[0].detach()).mean())


class BarlowTwins(Objective):
    """Cross-correlation of two views' features towards the identity."""

    def __init__(self, net: ResNet18, setting: Setting) -> None:
        super().__init__(net, setting)
        self.neck = projection(net.out_channels, setting.hidden, setting.dim, setting.layers,
                               last_norm=True)
        self.modules = [self.neck]

    def loss(self, views: Tensor, step: Step) -> Tensor:
        first, second = (self.embed(view, self.net, self.neck) for view in views.chunk(2))
        correlation = first.T @ second / len(first)  # (d, d)
        identity = torch.eye(len(correlation), device=correlation.device)
        errors = (correlation - identity).square()
        # The sum over the diagonal, and a small weight on all else.
        return (errors * (identity + self.setting.redundancy * (1 - identity))).sum()


class SwAV(Objective):
    """Each view's code over prototypes is predicted from the other view."""

    def __init__(self, net: ResNet18, setting: Setting) -> None:
        super().__init__(net, setting)
        self.neck = projection(net.out_channels, setting.hidden, setting.dim, setting.layers)
        self.prototypes = nn.Linear(setting.dim, setting.prototypes, bias=False)
        self.modules = [self.neck, self.prototypes]

    def loss(self, views: Tensor, step: Step) -> Tensor:
        features = F.normalize(self.embed(views, self.net, self.neck), dim=1)
        scores = features @ F.normalize(self.prototypes.weight, dim=1).T  # (2B, P)
        first, second = scores.chunk(2)
        losses = []
        for code_scores, scores_ in ((first, second), (second, first)):
            codes = sinkhorn(code_scores.detach())
            log_p = F.log_softmax(scores_ / self.setting.temperature, dim=1)
            losses.append(-(codes * log_p).sum(dim=1).mean())
        return (losses[0] + losses[1]) / 2


def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Codes of equal weight for each prototype: (B, P) scores -> (B, P), rows sum to 1."""
    codes = torch.exp(scores / epsilon).T
    codes = codes / codes.sum()
    for _ in range(iterations):
        codes = codes / codes.sum(dim=1, keepdim=True) / codes.shape[0]
        codes = codes / codes.sum(dim=0, keepdim=True) / codes.shape[1]
    return (codes * codes.shape[1]).T


def masked_cross_entropy(logits: Tensor, targets: Tensor, active: Tensor,
                         smoothing: float) -> Tensor:
    """Cross-entropy over the active classes, its smoothing spread over them alone.

    Args:
        logits (Tensor): (B, N) float32.
        targets (Tensor): (B,) int64, active.
        active (Tensor): (N,) bool.
        smoothing (float): 0 to 1.

    Returns:
        Tensor: (B,) losses.
    """
    total = logits.masked_fill(~active, -torch.inf).logsumexp(dim=1)
    own = logits.gather(1, targets[:, None])[:, 0]
    if not smoothing:
        return total - own
    mean = (logits * active).sum(dim=1) / active.sum()
    return total - (1 - smoothing) * own - smoothing * mean


OBJECTIVES = dict(pic=Pic, diet=Diet, simclr=SimCLR, mocov2=MoCo, byol=BYOL, simsiam=SimSiam,
                  barlow=BarlowTwins, swav=SwAV)
