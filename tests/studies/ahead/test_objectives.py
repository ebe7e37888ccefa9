# SPDX-License-Identifier: Apache-2.0
"""Losses of the study against mmpretrain's and the project's own."""
import mmpretrain.models  # noqa: F401
import pytest
import torch
import torch.nn.functional as F
from mmpretrain.models.losses.swav_loss import distributed_sinkhorn
from mmpretrain.registry import MODELS
from torch import nn

from pic_plugin.losses.cosine_softmax_loss import cosine_softmax
from pic_plugin.studies.ahead import objectives
from pic_plugin.studies.ahead.network import FlatParameters
from pic_plugin.studies.ahead.objectives import Step, masked_cross_entropy, sinkhorn
from pic_plugin.studies.ahead.setting import Setting

BATCH, DIM = 6, 5


class Same(nn.Module):
    """A network whose features are the views."""

    out_channels = DIM

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x


def build(method, **values):
    torch.manual_seed(0)
    setting = Setting(method, images=20, batch=BATCH * {'byol': 4}.get(method, 2), dim=DIM,
                      hidden=7, **values)
    objective = objectives.OBJECTIVES[method](Same(), setting)
    objective.prepare(FlatParameters([objective.net, *objective.modules]))
    return objective


def step(ids=None):
    ids = torch.arange(BATCH) if ids is None else ids
    return Step(ids, torch.arange(len(ids)), torch.full_like(ids, 20), torch.tensor([0]),
                torch.tensor([0]))


@pytest.fixture
def views():
    return torch.randn(2 * BATCH, DIM, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('temperature', [0.07, 0.5])
def test_masked_cross_entropy_is_the_projects_loss_over_the_active_rows(temperature):
    generator = torch.Generator().manual_seed(2)
    features, weight = (torch.randn(n, DIM, generator=generator) for n in (BATCH, 20))
    active = torch.rand(20, generator=generator) < 0.6
    targets = active.nonzero()[:BATCH, 0]
    logits = F.normalize(features, dim=1) @ F.normalize(weight, dim=1).T / temperature
    places = active.cumsum(0)[targets] - 1
    expected, _ = cosine_softmax(features, weight[active], places, temperature)
    torch.testing.assert_close(masked_cross_entropy(logits, targets, active, 0.0), expected)
    torch.testing.assert_close(
        masked_cross_entropy(logits, targets, active, 0.3),
        F.cross_entropy(logits[:, active], places, label_smoothing=0.3, reduction='none'))


def test_simclr(views):
    objective = build('simclr', temperature=0.2)
    z = F.normalize(objective.neck(views), dim=1)
    head = MODELS.build(dict(type='ContrastiveHead', temperature=0.2,
                             loss=dict(type='CrossEntropyLoss')))
    other = z.roll(BATCH, 0)
    positive = (z * other).sum(1, keepdim=True)
    keep = ~(torch.eye(2 * BATCH, dtype=torch.bool) | torch.eye(2 * BATCH, dtype=torch.bool)
             .roll(BATCH, 0))
    negative = (z @ z.T)[keep].view(2 * BATCH, -1)
    torch.testing.assert_close(objective.loss(views, step()), head.loss(positive, negative))


def test_moco_takes_keys_of_its_copy_and_keeps_them(views):
    objective = build('mocov2', temperature=0.2, queue=8)
    queue = objective.queue.clone()
    loss = objective.loss(views, step())
    queries = F.normalize(objective.neck(views[:BATCH]), dim=1)
    keys = F.normalize(objective.key_net(views[BATCH:]), dim=1)
    head = MODELS.build(dict(type='ContrastiveHead', temperature=0.2,
                             loss=dict(type='CrossEntropyLoss')))
    expected = head.loss((queries * keys).sum(1, keepdim=True), queries @ queue.T)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(objective.queue[:BATCH], keys)
    assert torch.equal(objective.queue[BATCH:], queue[BATCH:])


def test_mocos_copy_follows(views):
    objective = build('mocov2', ema=0.9)
    before = objective.targets.values.clone()
    objective.parameters.values.add_(1)
    objective.loss(views, step())
    torch.testing.assert_close(objective.targets.values, before + 0.1)


def test_byol(views):
    objective = build('byol')
    loss_module = MODELS.build(dict(type='CosineSimilarityLoss'))
    predicted = [objective.predictor(objective.neck(view)) for view in views.chunk(2)]
    targets = [objective.target_net(view).detach() for view in views.chunk(2)]
    expected = loss_module(predicted[0], targets[1]) + loss_module(predicted[1], targets[0])
    # mmpretrain's cosine loss is minus the cosine; a constant does not matter.
    torch.testing.assert_close(objective.loss(views, step()) - 2, expected)


def test_byols_copy_follows_all_but_the_predictor(views):
    objective = build('byol', ema=0.9)
    before = objective.targets.values.clone()
    parameters = objective.parameters
    parameters.values.add_(1)
    objective.after_step(parameters)
    torch.testing.assert_close(objective.targets.values, before + 0.1)


def test_barlow_twins(views):
    objective = build('barlow', redundancy=0.01)
    loss_module = MODELS.build(dict(type='CrossCorrelationLoss', lambd=0.01))
    first, second = (objective.neck(view) for view in views.chunk(2))
    # mmpretrain sums the diagonal and weights the rest alike.
    torch.testing.assert_close(objective.loss(views, step()),
                               loss_module(first.T @ second / BATCH))


def test_sinkhorn_is_mmpretrains():
    scores = torch.randn(12, 4, generator=torch.Generator().manual_seed(3)) * 0.3
    torch.testing.assert_close(sinkhorn(scores, 0.05, 3), distributed_sinkhorn(scores, 3, 1, 0.05))


def test_simsiam_sends_no_gradient_into_its_targets(views):
    objective = build('simsiam', layers=3)
    first, second = (objective.neck(view) for view in views.chunk(2))
    expected = -(F.cosine_similarity(objective.predictor(first), second.detach()).mean()
                 + F.cosine_similarity(objective.predictor(second), first.detach()).mean()) / 2
    loss = objective.loss(views, step())
    torch.testing.assert_close(loss, expected)
    parameters = list(objective.neck.parameters())[:1]
    torch.testing.assert_close(torch.autograd.grad(loss, parameters)[0],
                               torch.autograd.grad(expected, parameters)[0])


def test_pic_turns_a_returning_row_before_its_loss():
    objective = build('pic', refresh=1.0, temperature=0.1)
    x = torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(4))
    returning = torch.full((BATCH, ), 20)
    returning[2] = 2
    objective.weight_optimizer.states[0].fill_(1)
    before = objective.weight.detach().clone()
    objective.loss(x, step()._replace(returning=returning))
    feature = F.normalize(objective.neck(x), dim=1)[2]
    torch.testing.assert_close(F.normalize(objective.weight[2], dim=0), feature)
    torch.testing.assert_close(objective.weight[2].norm(), before[2].norm())
    changed = (objective.weight[:20] != before[:20]).any(dim=1).nonzero()[:, 0]
    assert changed.tolist() == [2]
    assert not objective.weight_optimizer.states[0][2].any()
