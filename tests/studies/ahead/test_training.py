# SPDX-License-Identifier: Apache-2.0
"""Optimizer steps, whole trainings and evaluation of the study."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pic_plugin.evaluation.knn import knn_predict, normalise
from pic_plugin.studies.ahead.augment import Augment
from pic_plugin.studies.ahead.evaluation import knn_accuracies
from pic_plugin.studies.ahead.images import Images, load, read_sheets, write_sheets
from pic_plugin.studies.ahead.network import FlatParameters, ResNet18
from pic_plugin.studies.ahead.optimizers import Optimizer
from pic_plugin.studies.ahead.schedule import learning_rates, visits
from pic_plugin.studies.ahead.search import SPACES, Search
from pic_plugin.studies.ahead.setting import Setting
from pic_plugin.studies.ahead.training import Training

# With fewer than 8 channels, channels last, torch 2.14 corrupts memory on CPUs with AVX2 alone.
SMALL = dict(images=40, passes=16 * 12, batch=16, width=8, hidden=16, dim=8)


@pytest.fixture(scope='module')
def images():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (60, ), generator=generator)
    return Images(pixels, labels, dict(test=(pixels[40:], labels[40:])), references=40, size=32,
                  mean=torch.full((3, ), 0.5), std=torch.full((3, ), 0.25))


@pytest.mark.parametrize('kind', ['sgd', 'adamw'])
def test_steps_are_torchs(kind):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    parameter = values.clone().requires_grad_()
    if kind == 'sgd':
        reference = torch.optim.SGD([parameter], lr=0.1, momentum=0.8, weight_decay=0.02)
    else:
        reference = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.02)
    optimizer = Optimizer(values, kind, 0.1, 0.8, 0.02)
    for number in range(5):
        grad = torch.randn(5, 3, generator=generator, dtype=torch.float64)
        factor = 0.5 + number / 10
        reference.param_groups[0]['lr'] = 0.1 * factor
        parameter.grad = grad.clone()
        reference.step()
        optimizer.step(grad, torch.tensor([factor], dtype=torch.float64), torch.tensor([number]))
    # float64, 5 steps
    torch.testing.assert_close(values, parameter.detach(), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize('channels_last', [False, True])
def test_flat_parameters_hold_the_network(channels_last):
    net = ResNet18(4, (2, 1, 2, 2)).eval()
    x = torch.randn(2, 3, 32, 32)
    before, named = net(x), {name: p.clone() for name, p in net.named_parameters()}
    flat = FlatParameters([net], channels_last)
    torch.testing.assert_close(net(x), before)
    flat.values.mul_(2)
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, 2 * named[name])
    assert torch.equal(flat.flatten(list(flat.parameters)), flat.values)


@pytest.fixture
def float64(monkeypatch):
    """A training of images as they are; in float32 rounding grows tenfold every few steps."""
    monkeypatch.setattr(Augment, '__call__', lambda self, images: (
        images.permute(0, 2, 3, 1).contiguous() / 255 - 0.5))
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize('negatives', [0.0, 0.5])
def test_a_training_of_pic_is_dense_sgd_by_torch(float64, images, negatives):
    """The same network, views and order, with torch's SGD and a softmax over a list of classes."""
    setting = Setting(negatives=negatives, weight_lr=0.5, weight_momentum=0.7, weight_wd=2.0,
                      window=0.5, visits=4, lr=0.002, **SMALL)
    training, twin = Training(setting, images), Training(setting, images)
    net, neck, weight = twin.objective.net, twin.objective.neck, twin.objective.weight
    optimizer = torch.optim.SGD([
        dict(params=[*net.parameters(), *neck.parameters()], base=setting.lr, momentum=0.9,
             weight_decay=setting.weight_decay),
        dict(params=[weight], base=setting.lr * 0.5, momentum=0.7,
             weight_decay=setting.weight_decay * 2)], lr=1.0)
    ids = visits(setting.steps, 16, 40, 20, 5, setting.seed).ids
    factors, recent, losses = learning_rates(setting.steps, setting.end), [], []
    for step in range(setting.steps):
        for image in ids[step].tolist():
            recent = [one for one in recent if one != image] + [image]
        kept = recent[-setting.num_negatives:] if setting.num_negatives else list(range(40))
        features = F.normalize(neck(net(twin.views[step].permute(0, 3, 1, 2).contiguous())), dim=1)
        logits = features @ F.normalize(weight[kept], dim=1).T / setting.temperature
        loss = F.cross_entropy(logits, torch.tensor([kept.index(i) for i in ids[step].tolist()]))
        for group in optimizer.param_groups:
            group['lr'] = group['base'] * float(factors[step])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    training.advance(setting.steps)
    torch.testing.assert_close(training.losses, torch.tensor(losses), atol=1e-6, rtol=0)
    torch.testing.assert_close(training.objective.weight[:-1], weight[:-1], atol=1e-6, rtol=0)


@pytest.mark.parametrize('method', ['pic', 'diet', 'simclr', 'mocov2', 'byol', 'simsiam',
                                    'barlow', 'swav'])
def test_each_method_trains_and_is_a_function_of_its_setting(images, method):
    setting = Setting(method, refresh=1.0, **SMALL)
    first, second = Training(setting, images), Training(setting, images)
    first.advance(5)
    first.advance(3)
    second.advance(8)
    assert torch.equal(first.losses, second.losses)
    assert torch.isfinite(first.losses).all() and first.done == 8
    assert first.features(images.train).shape == (60, 8 * SMALL['width'])


def test_measures_count_every_visit(images):
    setting = Setting(measure=True, window=0.5, visits=4, **dict(SMALL, passes=16 * 40))
    training = Training(setting, images)
    training.advance(40)
    measures = training.finish()['measures']
    # Of the second half; an image may meet more than two rounds of windows in a row.
    assert 300 < sum(row['count'] for row in measures['by_visit']) <= 20 * 16
    assert [probe['step'] for probe in measures['probes']] == list(range(5, 41, 5))
    assert abs(sum(measures['negative_mass_by_age']) - 1) < 1e-3


def test_neighbours_are_the_projects():
    generator = torch.Generator().manual_seed(0)
    features, references = (torch.randn(n, 8, generator=generator) for n in (40, 300))
    labels, known = (torch.randint(0, 4, (n, ), generator=generator) for n in (40, 300))
    values = knn_accuracies(features, labels, references, known, (5, 50))
    predicted = knn_predict(normalise(features).float(), normalise(references).float(), known,
                            (5, 50))
    expected = (predicted == labels[:, None]).double().mean(dim=0) * 100
    assert [values['knn5'], values['knn50']] == pytest.approx(expected.tolist(), abs=0.01)


def test_sheets_are_read_as_they_were_written(tmp_path):
    pixels = torch.arange(130, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 8, 8, 3).numpy()
    write_sheets(tmp_path, 'train', pixels, pixels[:, 0, 0, 0].astype('int64'))
    images, labels = read_sheets(tmp_path, 'train')
    assert labels.tolist() == list(range(130))
    # JPEG keeps even squares to a level or two.
    assert (images.float().mean(dim=(1, 2, 3)) - labels).abs().max() < 3


def test_photos_are_held_out_of_the_training_ones(tmp_path):
    for part, first in (('train', 0), ('test', 90)):
        labels = np.arange(first, first + 90)
        write_sheets(tmp_path / 'clothing', part, np.zeros((90, 8, 8, 3), np.uint8), labels)
    whole, held = load('clothing', tmp_path), load('clothing-held-out', tmp_path)
    assert whole.splits['test'][1].tolist() == list(range(90, 180)) and whole.references == 90
    assert set(held.splits) == {'validation'} and held.references == len(held.train) == 60
    assert [*held.train_labels.tolist(), *held.splits['validation'][1].tolist()] == list(range(90))


def test_a_search_gives_equal_tries_and_chooses_by_the_mean():
    search = Search(SPACES, dict(images=100, passes=1000), tries=4)
    for label, setting in iter(search.next_try, None):
        search.report(label, setting, dict(validation_knn20=setting.lr * 100))
    assert {len(tries) for tries in search.asked.values()} == {4}
    again = search.confirmations()
    assert len(again) == 4 * 3 * 2
    for label, setting in again:
        # The one that was best of one seed is bad in others.
        best = search._ranked(label)[0]
        same = setting.but(seed=100).key == best.key
        search.report(label, setting, dict(validation_knn20=0.0 if same else 50.0))
    for label, setting in search.chosen().items():
        assert setting.key != search._ranked(label)[0].key and setting.seed == 100
