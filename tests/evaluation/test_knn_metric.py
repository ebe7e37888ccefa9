# SPDX-License-Identifier: Apache-2.0
"""KNNMetric: one process and several, through mmengine's loop, and what it refuses."""
import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import DefaultSampler

from pic_plugin.evaluation import KNNMetric, knn_metric
from toys.processes import command, run_alone, run_ranks

TOPK = (1, 5, 30)


def make_samples(num_references, num_queries, num_classes=4, dim=8, with_idx=True):
    """References first, then queries, as a ConcatDataset of both would give them."""
    generator = torch.Generator().manual_seed(num_references)
    centres = torch.randn(num_classes, dim, generator=generator)
    samples = []
    for split, number in (('reference', num_references), ('query', num_queries)):
        for i in range(number):
            label = int(torch.randint(num_classes, (), generator=generator))
            feat = centres[label] + 1.2 * torch.randn(dim, generator=generator)
            sample = dict(feat=feat, gt_label=torch.tensor([label]))
            if with_idx:
                sample['sample_idx'] = i
            if split == 'reference':
                sample['reference'] = True
            samples.append(sample)
    return samples


def evaluate(samples, indices=None, size=None, batch_size=4, **settings):
    """What this process's samples give."""
    metric = KNNMetric(**{'topk': TOPK, **settings})
    indices = list(range(len(samples))) if indices is None else indices
    for start in range(0, len(indices), batch_size):
        metric.process(None, [samples[i] for i in indices[start:start + batch_size]])
    return metric.evaluate(len(samples) if size is None else size)


def accuracy_by_hand(samples, k, temperature=0.07):
    """InstDisc's rule in a loop, float64, from the float16 features that are stored."""
    def feature(sample):
        return F.normalize(sample['feat'], dim=0).half().double()

    references = [(feature(s), int(s['gt_label'])) for s in samples if 'reference' in s]
    queries = [(feature(s), int(s['gt_label'])) for s in samples if 'reference' not in s]
    correct = 0
    for query, label in queries:
        nearest = sorted(((float(query @ ref), -i, ref_label)
                          for i, (ref, ref_label) in enumerate(references)), reverse=True)[:k]
        votes = {}
        for similarity, _, ref_label in nearest:
            weight = float(torch.tensor(similarity / temperature, dtype=torch.float64).exp())
            votes[ref_label] = votes.get(ref_label, 0) + weight
        correct += max(votes, key=votes.get) == label
    return 100 * correct / len(queries)


@pytest.mark.parametrize('max_memory_mb', [1, 512])
@pytest.mark.parametrize('batch_size', [1, 7, 200])
def test_accuracy_in_percent_is_that_of_a_loop(batch_size, max_memory_mb):
    samples = make_samples(61, 40)
    metrics = evaluate(samples, batch_size=batch_size, max_memory_mb=max_memory_mb)
    expected = {f'knn/top1_k{k}': accuracy_by_hand(samples, k) for k in TOPK}
    assert metrics == pytest.approx(expected)
    assert 30 < metrics['knn/top1_k5'] < 95, 'neither trivial nor chance'


def test_splits_may_be_mixed_and_shuffled():
    samples = make_samples(30, 20)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0)).tolist()
    assert evaluate(samples, order) == evaluate(samples)


def test_samples_are_forgotten_after_each_evaluation():
    metric = KNNMetric(topk=1)
    samples = make_samples(10, 10)
    metric.process(None, samples)
    first = metric.evaluate(20)
    metric.process(None, samples)
    assert metric.evaluate(20) == first


def test_k_beyond_the_references_is_refused():
    evaluate(make_samples(12, 20), topk=12)
    with pytest.raises(ValueError, match=r'topk=\(13, 1\).* 12 references: .*at most 12'):
        evaluate(make_samples(12, 20), topk=(13, 1))


@pytest.mark.parametrize('label, classes, message', [
    (-1, None, 'sample 3 of the reference split has label -1, and labels are 0 and above'),
    (4, ('a', 'b', 'c', 'd'), 'has label 4, and labels are 0 to 3'),
])
def test_labels_out_of_range_are_refused(label, classes, message):
    samples = make_samples(6, 4)
    samples[3]['gt_label'] = torch.tensor([label])
    metric = KNNMetric(topk=1)
    metric.dataset_meta = dict(classes=classes) if classes else {}
    with pytest.raises(ValueError, match=message):
        metric.process(None, samples)
    samples[3]['gt_label'] = torch.tensor([3])
    metric.process(None, samples)


def test_prefix_feat_key_and_stored_type():
    samples = make_samples(6, 4)
    for sample in samples:
        sample['pooled'] = sample.pop('feat').half()
    metric = KNNMetric(topk=3, feat_key='pooled', prefix='val', collect_device='gpu')
    metric.process(None, samples)
    # 2 bytes for each of 8 components: what the docstring's 5.24e9 bytes for ImageNet counts on.
    assert metric.results[0].feats.dtype == torch.float16
    assert list(metric.evaluate(10)) == ['val/top1_k3']


# (queries, how samples reach the processes); 31 references come first.
SCENARIOS = {
    2: [(20, 'dealt'), (21, 'dealt'), (9, 'all on 0'), (10, 'colliding'), (10, 'no idx')],
    3: [(20, 'dealt'), (21, 'dealt'), (22, 'dealt'), (1, 'dealt')],
}


@pytest.fixture(scope='module')
def run_processes(tmp_path_factory):
    """All scenarios of a world size in one set of gloo processes, which run this file."""
    done = {}

    def run(world_size):
        if world_size not in done:
            done[world_size] = start_processes(tmp_path_factory.mktemp('ranks'), world_size)
        return done[world_size]

    return run


def start_processes(folder, world_size):
    """{scenario: [result of rank 0, result of rank 1, ...]}"""
    for status, output in run_ranks(command, world_size, [__file__, folder], folder):
        assert status == 0, output
    ranks = [json.loads((folder / f'{rank}.json').read_text()) for rank in range(world_size)]
    return dict(zip(SCENARIOS[world_size], zip(*ranks)))


def worker(folder):
    torch.distributed.init_process_group('gloo')
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    results = [run_scenario(rank, *scenario) for scenario in SCENARIOS[world_size]]
    Path(folder, f'{rank}.json').write_text(json.dumps(results))


def run_scenario(rank, num_queries, how):
    samples = make_samples(31, num_queries, with_idx=how != 'no idx')
    indices = list(DefaultSampler(samples, shuffle=False))
    if how == 'all on 0':
        indices = [] if rank else list(range(len(samples)))
    if how == 'colliding':
        samples[1]['sample_idx'] = 0
    try:
        return dict(metrics=evaluate(samples, indices))
    except ValueError as error:
        return dict(error=str(error))


@pytest.mark.parametrize('world_size, num_queries', [(2, 20), (2, 21), (3, 20), (3, 21), (3, 22),
                                                     (3, 1)])
def test_processes_together_are_one(run_processes, world_size, num_queries):
    expected = dict(metrics=evaluate(make_samples(31, num_queries)))
    assert run_processes(world_size)[num_queries, 'dealt'] == (expected, ) * world_size


def test_process_without_samples(run_processes):
    expected = dict(metrics=evaluate(make_samples(31, 9)))
    assert run_processes(2)[9, 'all on 0'] == (expected, expected)


def test_colliding_ids_that_padding_makes_ambiguous_are_refused_everywhere(run_processes):
    for result in run_processes(2)[10, 'colliding']:
        assert '40 different pairs' in result['error'] and 'has 41 samples' in result['error']


def test_padding_without_sample_idx_is_refused(run_processes):
    for result in run_processes(2)[10, 'no idx']:
        assert 'cannot be told apart without sample_idx' in result['error']


@pytest.mark.parametrize('change, message', [
    (lambda samples: [s.pop('reference', None) for s in samples], 'MarkReference'),
    (lambda samples: [s.update(reference=True) for s in samples], "ConcatDataset"),
    (lambda samples: samples[3].pop('gt_label'),
     'sample 3 of the reference split has no gt_label: .*with_label=True'),
    (lambda samples: samples[3].update(gt_label=torch.tensor([1, 2])),
     'one label a sample, not 2 .* of sample 3 of the reference split'),
    (lambda samples: samples[3].update(gt_label=torch.tensor([-2]), img_path='a/x.png'),
     r'sample 3 \(a/x\.png\) of the reference split has label -2, .*mend the annotation file'),
    (lambda samples: samples[3].pop('feat'), "feat_key=.*it has .'gt_label'"),
    (lambda samples: samples[3].update(feat=torch.ones(8, 1)), r'shape \(d,\), not \(8, 1\)'),
    (lambda samples: samples[3].update(feat=torch.full((8, ), float('nan'))),
     'feature of sample 3 of the reference split is not finite.* earlier checkpoint'),
    (lambda samples: samples[7].update(img_path='b/1.png', feat=torch.full((8, ), float('inf'))),
     r'feature of sample 1 \(b/1\.png\) outside of the reference split is not finite'),
    (lambda samples: samples.__setitem__(slice(4, None), [
        {**s, 'feat': torch.ones(5)} for s in samples[4:]]), r'different lengths.*\[5, 8\]'),
])
def test_bad_samples(change, message):
    samples = make_samples(6, 4)
    change(samples)
    with pytest.raises(ValueError, match=message):
        evaluate(samples, topk=1)


@pytest.mark.parametrize('block_bytes', [1, 16 * 9, 16 * 20])
def test_blocks_of_kept_samples_change_nothing(monkeypatch, block_bytes):
    """Blocks of no, 9 and 20 features of 8 components; batches of 4 do not divide them."""
    expected = evaluate(make_samples(31, 20))
    monkeypatch.setattr(knn_metric, '_BLOCK_BYTES', block_bytes)
    metric = KNNMetric(topk=TOPK)
    for _ in range(2):
        samples = make_samples(31, 20)
        for start in range(0, len(samples), 4):
            metric.process(None, samples[start:start + 4])
            for sample in samples[start:start + 4]:
                sample['feat'].zero_()
        sizes = [len(part.table) for part in metric.results]
        assert sizes == {1: [4] * 12 + [3], 16 * 9: [8] * 6 + [3],
                         16 * 20: [20, 20, 11]}[block_bytes]
        assert metric.evaluate(51) == expected


MEASURE = '''
import torch
from pic_plugin.evaluation import KNNMetric
def resident():
    line = next(line for line in open('/proc/self/status') if line.startswith('VmRSS'))
    return int(line.split()[1]) * 1024
metric = KNNMetric()
def process(first):
    feats = torch.randn(250, 2048)
    metric.process(None, [dict(feat=feats[i], gt_label=torch.tensor([0]), sample_idx=first + i)
                          for i in range(250)])
process(0)
before = resident()
for batch in range(1, 81):
    process(250 * batch)
print(resident() - before)
'''


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='/proc is of Linux')
def test_kept_features_take_the_memory_that_is_stated(tmp_path):
    status, used = run_alone(command, ['-c', MEASURE], tmp_path)
    assert status == 0, used
    # 82 MB of float16, and the allocator's slack. Kept batch by batch they took three times that.
    assert int(used.split()[-1]) < 80 * 250 * 2048 * 2 + 25 * 2**20


def test_missing_samples_are_refused():
    with pytest.raises(ValueError, match='10 of 11 samples.*drop_last=False'):
        evaluate(make_samples(6, 4), size=11)


@pytest.mark.parametrize('settings, message', [
    (dict(topk=()), 'topk'),
    (dict(topk=(20, 0)), 'topk'),
    (dict(topk=(2.5, )), 'topk'),
    (dict(temperature=0), 'temperature must be positive, not 0'),
    (dict(max_memory_mb=0), 'max_memory_mb must be at least 1'),
    (dict(collect_device='tpu'), "'cpu' or 'gpu', not 'tpu'"),
])
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        KNNMetric(**settings)


def test_through_the_val_loop_on_joined_demo_splits(work_dir):
    """ConcatDataset, PackInputs and ValLoop as a config has them; features: the pixels."""
    from mmengine.config import Config
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    class Pixels(BaseModel):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            assert mode == 'predict'
            for image, sample in zip(inputs, data_samples):
                sample.feat = F.avg_pool2d(image.float(), 8).flatten() - 128.
            return data_samples

    pack = dict(type='PackInputs', meta_keys=('sample_idx', 'reference'))
    common = dict(type='ImageGrid', indices=None)
    references = dict(common, img_file='cifar10_train_5000.webp', indices=list(range(0, 5000, 10)),
                      pipeline=[dict(type='MarkReference'), pack])
    evaluated = dict(common, img_file='cifar10_test_1000.webp', indices=list(range(0, 1000, 5)),
                     pipeline=[pack])
    runner = Runner(
        model=Pixels(), work_dir=str(work_dir), default_scope='mmpretrain', val_cfg=dict(),
        val_dataloader=dict(
            batch_size=64, num_workers=0,
            dataset=dict(type='ConcatDataset', datasets=[references, evaluated]),
            sampler=dict(type='DefaultSampler', shuffle=False)),
        val_evaluator=Config(dict(e=dict(type='KNNMetric'))).e,
        experiment_name='knn_through_the_val_loop')
    metrics = runner.val()
    # 28 % to 33 % is what raw pixels of CIFAR-10 give; chance is 10 %.
    assert set(metrics) == {'knn/top1_k20', 'knn/top1_k200'}
    assert metrics['knn/top1_k20'] > 18


if __name__ == '__main__':
    worker(sys.argv[1])
