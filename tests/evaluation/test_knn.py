# SPDX-License-Identifier: Apache-2.0
"""Weighted kNN: against a brute-force loop, and within its memory."""
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pic_plugin.evaluation import knn
from pic_plugin.evaluation.knn import knn_predict, merge_keys, normalise
from toys.processes import command, run_alone


def brute_force(queries, references, labels, topk, temperature):
    """One query, one reference, one vote at a time, in float64; ties as documented."""
    predicted = []
    for query in queries.double():
        similarity = [float((query * reference).sum()) for reference in references.double()]
        nearest = sorted(range(len(references)), key=lambda i: (-similarity[i], i))
        row = []
        for k in topk:
            votes = {}
            for i in nearest[:k]:
                away = torch.tensor(similarity[i] - similarity[nearest[0]], dtype=torch.float64)
                votes[int(labels[i])] = votes.get(int(labels[i]), 0.) + float(
                    (away / temperature).exp())
            row.append(min(votes, key=lambda label: (-votes[label], label)))
        predicted.append(row)
    return torch.tensor(predicted)


def exact_features(num, dim, seed):
    """Multiples of 1/4 from -1 to 1: dot products have no rounding, and ties are many."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 5, (num, dim), generator=generator) / 4


@settings(deadline=None, max_examples=40)
@given(
    num_queries=st.integers(1, 7),
    num_references=st.integers(1, 40),
    dim=st.integers(1, 5),
    num_classes=st.integers(1, 6),
    max_bytes=st.sampled_from([1, 2_000, 6_000, 2**20]),
    seed=st.integers(0, 2**31),
    data=st.data())
def test_equals_brute_force_ties_included(num_queries, num_references, dim, num_classes, max_bytes,
                                          seed, data):
    queries = exact_features(num_queries, dim, seed)
    references = exact_features(num_references, dim, seed + 1)
    # Labels need neither start at 0 nor follow each other.
    labels = torch.randint(0, num_classes, (num_references, ),
                           generator=torch.Generator().manual_seed(seed + 2)) * 7 - 3
    topk = data.draw(st.lists(st.integers(1, num_references), min_size=1, max_size=3))
    predicted = knn_predict(queries, references, labels, topk, 0.5, max_bytes)
    assert predicted.tolist() == brute_force(queries, references, labels, topk, 0.5).tolist()


def test_float16_features_predict_what_float64_ones_do():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(5, 64, generator=generator, dtype=torch.float64)
    labels = torch.arange(5).repeat(60)
    references = centres[labels] + 2 * torch.randn(300, 64, generator=generator,
                                                   dtype=torch.float64)
    queries = centres[torch.arange(5).repeat(20)] + 2 * torch.randn(100, 64, generator=generator,
                                                                    dtype=torch.float64)
    predicted = knn_predict(normalise(queries), normalise(references), labels, (5, 50), 0.07)
    expected = brute_force(
        queries / queries.norm(dim=1, keepdim=True),
        references / references.norm(dim=1, keepdim=True), labels, (5, 50), 0.07)
    # One query in a hundred may be a near tie between two classes.
    assert (predicted != expected).sum() <= 1


def test_collapsed_features_tie_everywhere_and_smaller_positions_and_labels_win():
    same = torch.ones(4, 3)
    labels = torch.tensor([9, 9, 2, 2])
    assert knn_predict(same[:1], same, labels, (1, 3, 4)).tolist() == [[9, 9, 2]]


def test_positions_order_references_and_minus_one_leaves_one_out():
    references = exact_features(30, 3, 1)
    labels = torch.arange(30) % 4
    queries = exact_features(6, 3, 2)
    expected = knn_predict(queries, references, labels, (3, 9))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3))
    shuffled = torch.empty(31, 3)
    shuffled[:30] = references[order]
    shuffled[30] = queries[0] * 100  # would be the nearest
    positions = torch.cat([order, torch.tensor([-1])])
    got = knn_predict(queries, shuffled, labels, (3, 9), positions=positions, max_bytes=3_000)
    assert torch.equal(got, expected)


@pytest.mark.parametrize('max_bytes', [1, 5_000, 2**30])
def test_references_in_parts_are_one_set(max_bytes):
    references = exact_features(50, 4, 1)
    labels = torch.arange(50) % 6
    queries = exact_features(9, 4, 2)
    expected = brute_force(queries, references, labels, (1, 20), 0.07)
    parts = references.split([0, 1, 30, 0, 19])
    assert torch.equal(knn_predict(queries, parts, labels, (1, 20), max_bytes=max_bytes), expected)


def test_merging_the_neighbours_of_shards_gives_those_of_all():
    references, queries = exact_features(40, 3, 1), exact_features(8, 3, 2)
    labels = torch.arange(40) % 5
    shards = [torch.arange(0, 40, 2), torch.arange(1, 40, 2)]
    keys = [[], []]

    def note(which):
        def remember(block):
            keys[which].append(block)
            return torch.where(block == knn._NO_NEIGHBOUR, block[:, :1], block)
        return remember

    for which, shard in enumerate(shards):
        knn_predict(queries, references[shard], labels, (30, ), positions=shard, max_bytes=40_000,
                    merge=note(which))
    assert len(keys[0]) == len(keys[1]) > 1
    both = iter([merge_keys(pair) for pair in zip(*keys)])
    merged = knn_predict(queries, references[shards[0]], labels, (30, ), positions=shards[0],
                         max_bytes=40_000, merge=lambda _: next(both))
    assert torch.equal(merged, brute_force(queries, references, labels, (30, ), 0.07))


@settings(deadline=None)
@given(st.lists(st.floats(-2, 2, width=32), min_size=2, max_size=20))
def test_keys_order_as_similarities_do_and_give_them_back(values):
    similarity = torch.tensor(values, dtype=torch.float32)
    positions = torch.arange(len(values)) + 2**31 - 5  # beyond int32 as well
    keys = knn._encode(similarity.clone()[None], positions)
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert keys[0].argsort(descending=True).tolist() == expected
    back, where = knn._decode(keys)
    assert torch.equal(back[0], similarity) and torch.equal(where[0], positions)


def test_small_temperature_does_not_overflow():
    references = torch.tensor([[1., 0.], [0.9, 0.1]])
    predicted = knn_predict(references, references, torch.tensor([0, 1]), (2, ), temperature=1e-6)
    assert predicted.tolist() == [[0], [0]]


def test_no_queries_give_no_predictions():
    predicted = knn_predict(torch.empty(0, 3), torch.ones(2, 3), torch.tensor([0, 1]), (1, 2))
    assert predicted.shape == (0, 2) and predicted.dtype == torch.int64


def test_normalise():
    features = torch.tensor([[3., 4.], [0., 0.], [3e30, 4e30], [3e-30, -4e-30]])
    unit = normalise(features)
    expected = torch.tensor([[0.6, 0.8], [0., 0.], [0.6, 0.8], [0.6, -0.8]], dtype=torch.float16)
    assert unit.dtype == torch.float16
    # A rounding of float16 near 1.
    assert torch.allclose(unit.float(), expected.float(), atol=2**-11)


@pytest.mark.parametrize('change, message', [
    (dict(queries=torch.ones(3)), 'queries must be a matrix'),
    (dict(references=torch.ones(4, 2)), 'as many columns as the queries, 3'),
    (dict(labels=torch.zeros(5, dtype=torch.int64)), 'there are 4 references'),
    (dict(labels=torch.zeros(0, dtype=torch.int64), references=torch.ones(0, 3)), 'labels must be'),
    (dict(topk=(5, )), r'topk is \(5,\).*1 to 4'),
    (dict(topk=(0, )), 'topk'),
    (dict(topk=()), 'topk'),
    (dict(positions=torch.tensor([0, -1, 1, -1]), topk=(3, )), 'fewer than 3 references'),
    (dict(positions=torch.tensor([0, 1, 2, 4]), topk=(4, )), 'beyond the 4 labels'),
    (dict(temperature=0.), 'temperature must be positive'),
    (dict(temperature=float('nan')), 'temperature must be positive'),
    (dict(max_bytes=0), 'max_bytes must be positive'),
])
def test_bad_arguments(change, message):
    arguments = dict(queries=torch.ones(2, 3), references=torch.ones(4, 3),
                     labels=torch.zeros(4, dtype=torch.int64), topk=(1, ))
    arguments.update(change)
    with pytest.raises(ValueError, match=message):
        knn_predict(**arguments)


MEASURE = '''
import sys, resource, torch
from pic_plugin.evaluation.knn import knn_predict
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
torch.manual_seed(0)
references, queries = torch.randn(150000, 32).half(), torch.randn(1500, 32).half()
labels = torch.arange(150000) % 100
def run(number, max_bytes):
    knn_predict(queries[:number], references, labels, (20, 200), max_bytes=max_bytes)
run(1, 2**20)  # libraries and their buffers
before = peak()
run(1500, int(sys.argv[1]))
print(peak() - before)
'''


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='ru_maxrss is in KiB on Linux')
def test_working_memory_keeps_its_bound(tmp_path):
    status, used = run_alone(command, ['-c', MEASURE, 64 * 2**20], tmp_path)
    assert status == 0, used
    # All pairs at once: 150000 * 1500 * 4 bytes = 900 MB. The allocator's slack: 24 MB.
    assert int(used.split()[-1]) < (64 + 24) * 2**20
