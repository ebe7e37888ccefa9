# SPDX-License-Identifier: Apache-2.0
"""Logistic regression: the optimum it claims, by its own equations, and what it refuses."""
import pytest
import torch

from pic_plugin.evaluation.linear_probe import fit_linear, linear_accuracy


def blobs(number, classes=3, dim=5, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99)) * 2
    labels = torch.arange(number) % classes
    return centres[labels] + spread * torch.randn(number, dim, generator=generator), labels


def objective(weight, bias, features, labels, penalty):
    """Mean of log sum exp minus the own score, sample by sample, in a loop."""
    total = 0.0
    for feature, label in zip(features, labels):
        scores = [float(row @ feature + b) for row, b in zip(weight, bias)]
        total += torch.tensor(scores).double().logsumexp(0).item() - scores[label]
    return total / len(labels) + penalty / 2 * float((weight**2).sum())


@pytest.mark.parametrize('penalty', [1e-3, 1e-1])
def test_solution_is_a_minimum(penalty):
    features, labels = blobs(90, spread=2.0)
    plain, offset = fit_linear(features, labels, penalty, 200)
    mean, scale = features.double().mean(0), features.double().std(0, unbiased=False)
    standardised = (features.double() - mean) / scale
    weight, bias = plain * scale, offset + plain @ mean
    least = objective(weight, bias, standardised, labels, penalty)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        step = torch.randn(weight.shape, generator=generator).double() * 1e-2
        assert objective(weight + step, bias, standardised, labels, penalty) > least
        shift = torch.randn(bias.shape, generator=generator).double() * 1e-1
        # Adding one number to all biases changes nothing.
        assert objective(weight, bias + shift - shift.mean(), standardised, labels, penalty) > least


def test_a_solution_that_is_not_the_optimum_says_so(recwarn):
    features, labels = blobs(90, spread=2.0)
    fit_linear(features, labels, 1e-3, 200)
    assert not recwarn
    with pytest.warns(RuntimeWarning, match='optimum in 2 iterations .*: raise max_iter'):
        fit_linear(features, labels, 1e-3, 2)


def test_accuracy_on_other_samples():
    train, test = blobs(300), blobs(99, seed=5)
    easy = linear_accuracy(*train, *test)
    assert 90 < easy <= 100
    # Unit and origin of a component do not matter, nor does a component without information.
    change = torch.tensor([1e-3, 10.0, 1.0, 1e3, 1.0])
    moved = [((features * change) + 7.0, labels) for features, labels in (train, test)]
    assert linear_accuracy(*moved[0], *moved[1]) == easy
    constant = [(torch.cat([features, torch.ones(len(features), 1)], dim=1), labels)
                for features, labels in (train, test)]
    assert linear_accuracy(*constant[0], *constant[1]) == easy
    # Labels that say nothing: about chance.
    shuffled = train[1][torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    assert linear_accuracy(train[0], shuffled, *test) < 60


@pytest.mark.parametrize('change, message', [
    (lambda d: d.update(train_features=d['train_features'][:0], train_labels=d['train_labels'][:0]),
     r'training features must be \(N, d\), N > 0'),
    (lambda d: d.update(labels=d['labels'][:-1]), r'evaluated features .* \(8,\)'),
    (lambda d: d.update(features=d['features'][:, :4]), '5 components in training and 4'),
    (lambda d: d['train_labels'].__setitem__(0, -1), 'training labels must not be negative'),
    (lambda d: d['features'].__setitem__((2, 2), float('nan')), 'features are not finite'),
])
def test_bad_input(change, message):
    data = dict(zip(('train_features', 'train_labels', 'features', 'labels'),
                    (*blobs(12), *blobs(9))))
    change(data)
    with pytest.raises(ValueError, match=message):
        linear_accuracy(**data)
