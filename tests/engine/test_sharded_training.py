# SPDX-License-Identifier: Apache-2.0
"""Two and four real processes that share out the active classes, against one that has them all."""
import shutil

import numpy as np
import pytest
import torch

from pic_plugin.analysis.class_weights import read_class_weights
from pic_plugin.bank import BankFileError, initial_rows, read_bank
from toys import sharded
from toys.processes import run_ranks
from toys.sharded import for_ranks, in_one_process, in_ranks, options
from toys.training import assert_equal, bank_paths, make_config

LONG = 12  # epochs: 48 steps with four processes, 84 with two
FULL = dict(num_negatives=None)
TWO_VIEWS = [
    # The second view trains the network alone.
    dict(type='MultiView', num_views=[2], transforms=[[dict(type='ToyPixels', augment=False)]]),
    dict(type='PackInputs', meta_keys=('sample_idx', ))
]
ADAMW = dict(optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.1))


CASES = {
    'recent': options(LONG),
    'full': options(8, FULL),
    'uneven last batch': options(num_images=47, round_up=False),  # 12, 12, 12 and 11; or 24 and 23
    # 48 images: optimizer steps do not straddle epochs. pending_rows is found out.
    'accumulation': options(6, num_images=48, accumulate=3, head=dict(num_negatives=16)),
    'clipping': options(optim=dict(clip_grad=dict(max_norm=0.3))),
    'other optimizer': options(optim=ADAMW, head=dict(correct_weights=False)),
    'adamw': options(optim=ADAMW),
    'two views': options(pipeline=TWO_VIEWS),
    'fewer classes than processes': options(3, FULL, num_images=3, batch_size=1),
}
REPLICATED = ('recent', 'uneven last batch')  # that mode's other cases are in test_distributed.py


@pytest.fixture(scope='module', params=[2, 4])
def ranks(request, tmp_path_factory):
    """Number of processes, and outcomes by case."""
    folder = tmp_path_factory.mktemp('ranks')
    cases = {name: for_ranks(folder, True, **kwargs) for name, kwargs in CASES.items()}
    cases.update({f'{name}, replicated': for_ranks(folder, False, **CASES[name])
                  for name in REPLICATED})
    return request.param, in_ranks(folder, request.param, cases)


@pytest.mark.parametrize('name', [*CASES, *(f'{name}, replicated' for name in REPLICATED)])
def test_several_processes_train_as_one(tmp_path, ranks, name):
    world_size, outcomes = ranks
    case, _, mode = name.partition(', ')
    alone = in_one_process(tmp_path, world_size, **CASES[case])
    outcome = outcomes[name]
    losses = np.mean([rank['losses'] for rank in outcome], axis=0)
    assert len(losses) == len(alone['losses'])
    # float32 with other orders of summation, over up to 84 steps at a learning rate of 0.1.
    np.testing.assert_allclose(losses, alone['losses'], rtol=1e-4)
    state, expected = outcome[0]['state'], alone['state']
    np.testing.assert_array_equal(state['active_ids'], expected['active_ids'])
    for key in ('class_weights', 'backbone.linear.weight', 'neck.linear.weight'):
        scale = np.abs(expected[key]).max()
        np.testing.assert_allclose(state[key], expected[key], atol=1e-4 * scale, err_msg=key)
    for rank, one in enumerate(outcome):
        for key in ('class_weights', 'backbone.linear.weight', 'active_ids', 'step'):
            np.testing.assert_array_equal(one['state'][key], state[key])
        rows, slots = one['state']['head.weight'], expected['head.weight']
        if not mode:
            own = slots[rank::world_size]
            assert len(rows) == -(-len(slots) // world_size)
            np.testing.assert_allclose(rows[:len(own)], own, atol=1e-4 * np.abs(slots).max())
        for key in ('class_weight_norm', 'active_classes', 'row_staleness', 'grad_norm'):
            if key in alone['scalars']:
                np.testing.assert_allclose(one['scalars'][key], alone['scalars'][key], rtol=1e-3)
    if name == 'clipping':
        assert (np.array(alone['scalars']['grad_norm']) > 0.3).any()


def test_no_more_than_rows_of_batches_are_sent(ranks):
    world_size, outcomes = ranks
    row = 2 * 8 * 4  # class weight and momentum of width 8
    for name, copies in (('recent', 2),  # rows that return, and those that leave
                         ('recent, replicated', world_size - 1)):
        outcome = outcomes[name]
        num_steps, global_batch = len(outcome[0]['losses']), 4 * world_size
        total = sum(rank['sent']['rows'] for rank in outcome)
        assert 0 < total <= num_steps * global_batch * copies * row
        assert set(outcome[0]['sent']) == {'ids', 'rows', 'logging'} | (
            set() if 'replicated' in name else {'features', 'softmax'})
    assert set(outcomes['full'][0]['sent']) == {'ids', 'features', 'softmax', 'logging'}


N = 48  # all global batches are of one size, whoever shares them out
SAVING = dict(logger=dict(type='LoggerHook', interval=3),
              checkpoint=dict(type='CheckpointHook', interval=2))
OLD = [f'{i:03d}' for i in range(N)]
NEW = [f'{i:03d}' for i in np.random.default_rng(0).permutation(61)]
MODES = dict(recent=dict(num_negatives=16), full=FULL, adamw=dict(num_negatives=16))


# What resumes from the last checkpoint restores and does nothing more.
def saved(mode, sharded=True, names=OLD, **kwargs):
    """A training of four epochs that is saved after two and four; ``sharded=None``: alone."""
    optim = ADAMW if mode == 'adamw' else {}
    head = dict(MODES[mode])
    if mode == 'full' and sharded is False:
        head['num_instances'] = N  # DistributedDataParallel fixes the size of the parameter
    kwargs = options(4, head, optim, default_hooks=SAVING, **kwargs)
    loader = make_config('', **kwargs)['train_dataloader']
    del loader['dataset']['num_images']
    loader['dataset'].update(type='NamedToyImages', names=names)
    kwargs['train_dataloader'] = loader
    return kwargs if sharded is None else for_ranks('', sharded, **kwargs)


def resumed(checkpoint, *args, **kwargs):
    return saved(*args, resume=True, load_from=str(checkpoint), **kwargs)


@pytest.fixture(scope='module')
def four(tmp_path_factory):
    """Folder, and outcomes of four processes."""
    folder = tmp_path_factory.mktemp('four')
    cases = {mode: saved(mode) for mode in MODES}
    cases['full resumed'] = resumed(folder / 'full/epoch_2.pth', 'full')
    return folder, in_ranks(folder, 4, cases)


@pytest.fixture(scope='module')
def one(tmp_path_factory):
    """Folder, and outcomes of one process that does the same."""
    folder = tmp_path_factory.mktemp('one')
    return folder, {mode: in_one_process(folder / mode, 4, **saved(mode, None)) for mode in MODES}


@pytest.fixture(scope='module')
def two(tmp_path_factory, four, one):
    """Outcomes of two processes that went on from others' checkpoints."""
    folder = tmp_path_factory.mktemp('two')
    cases = {}
    for mode in MODES:
        cases[mode] = saved(mode)
        cases[f'{mode} resumed'] = resumed(folder / mode / 'epoch_2.pth', mode)
        last_of_four = four[0] / mode / 'epoch_4.pth'
        cases[f'{mode} from four'] = resumed(last_of_four, mode, batch_size=8)
        cases[f'{mode} in one piece'] = resumed(last_of_four, mode, False, batch_size=8)
        cases[f'{mode} from one'] = resumed(one[0] / mode / 'epoch_4.pth', mode, batch_size=8)
    cases['full grown'] = resumed(four[0] / 'full' / 'epoch_4.pth', 'full', batch_size=8,
                                  names=NEW)
    # Which classes are the most recent ones depends on the order of processes, too.
    cases['full goes on'] = resumed(four[0] / 'full' / 'epoch_2.pth', 'full', batch_size=8)
    return in_ranks(folder, 2, cases)


@pytest.mark.parametrize('mode', MODES)
def test_resume_is_exact(two, mode):
    for resumed_rank, rank in zip(two[f'{mode} resumed'], two[mode]):
        assert len(resumed_rank['losses']) == 12
        assert resumed_rank['losses'] == rank['losses'][12:]
        assert_equal(resumed_rank['state'], rank['state'])


def test_four_processes_resume(four):
    # Not bit for bit: DistributedDataParallel orders its buckets anew after its first step, and
    # with them the order in which gloo sums the network's gradients of more than two processes.
    for resumed_rank, rank in zip(four[1]['full resumed'], four[1]['full']):
        np.testing.assert_allclose(resumed_rank['losses'], rank['losses'][6:], rtol=1e-5)
        np.testing.assert_allclose(resumed_rank['state']['head.weight'],
                                   rank['state']['head.weight'], atol=1e-5)


@pytest.mark.parametrize('mode', MODES)
def test_files_hold_each_row_once(four, mode):
    folder, outcomes = four
    checkpoint = torch.load(folder / mode / 'epoch_4.pth', weights_only=True)
    assert 'head.weight' not in checkpoint['state_dict']
    shape = outcomes[mode][0]['state']['head.weight'].shape
    assert not any(value.shape == shape for state in checkpoint['optimizer']['state'].values()
                   for value in state.values() if torch.is_tensor(value))
    paths = bank_paths(folder / mode / 'epoch_4.pth')
    assert [path.name[-4:] for path in paths] == ['0of4', '1of4', '2of4', '3of4']
    slots = [arrays['slots'] for path in paths for kind, _, arrays in read_bank(path)
             if kind == 'head']
    num_slots = N if mode == 'full' else 16
    np.testing.assert_array_equal(np.sort(np.concatenate(slots)), range(num_slots))


@pytest.mark.parametrize('mode', MODES)
def test_analysis_reads_all_rows(four, mode):
    folder, outcomes = four
    found = read_class_weights(folder / mode / 'epoch_4.pth')
    np.testing.assert_array_equal(found.numpy(), outcomes[mode][0]['state']['class_weights'])


def assert_same_rows(outcome, expected):
    """Bit for bit, whoever holds them."""
    for rank in outcome:
        for key in ('class_weights', 'active_ids', 'step', 'backbone.linear.weight'):
            np.testing.assert_array_equal(rank['state'][key], expected[0]['state'][key])
    place = next(key for key in expected[0]['state'] if key.startswith('momentum')
                 and expected[0]['state'][key].shape == expected[0]['state']['head.weight'].shape)
    for key in ('head.weight', place):
        rows, expected_rows = (whole([rank['state'][key] for rank in ranks])
                               for ranks in (outcome, expected))
        np.testing.assert_array_equal(rows, expected_rows, err_msg=key)


def whole(parts):
    """Rows of all slots from those of each process, which may have all."""
    parts = np.stack(parts)
    if len(parts) == 1 or (parts[0].shape[0] in (16, N) and (parts == parts[0]).all()):
        return parts[0]
    rows = parts.swapaxes(0, 1).reshape(-1, parts.shape[-1])
    return rows[:N if len(rows) >= N else 16]


@pytest.mark.parametrize('mode', MODES)
def test_another_number_of_processes_takes_over(four, two, mode):
    assert_same_rows(two[f'{mode} from four'], four[1][mode])


@pytest.mark.parametrize('mode', MODES)
def test_processes_that_hold_all_rows_take_over(four, two, mode):
    assert_same_rows(two[f'{mode} in one piece'], four[1][mode])


@pytest.mark.parametrize('mode', MODES)
def test_processes_take_over_from_one_that_held_all_rows(one, two, mode):
    assert_same_rows(two[f'{mode} from one'], [one[1][mode]])


@pytest.mark.parametrize('mode', MODES)
def test_one_process_takes_over(tmp_path, four, mode):
    outcome = in_one_process(tmp_path, 4, **resumed(four[0] / mode / 'epoch_4.pth', mode, None))
    assert_same_rows([outcome], four[1][mode])


def test_two_processes_go_on_as_one_would(one, two):
    losses = np.mean([rank['losses'] for rank in two['full goes on']], axis=0)
    # float32 with other orders of summation
    np.testing.assert_allclose(losses, one[1]['full']['losses'][6:], rtol=1e-4)


def test_images_that_were_added(four, two):
    weights = two['full grown'][0]['state']['class_weights']
    before = four[1]['full'][0]['state']['class_weights']
    initial = initial_rows(np.arange(61), 8, 11)
    for i, name in enumerate(NEW):
        expected = before[OLD.index(name)] if name in OLD else initial[i]
        np.testing.assert_array_equal(weights[i], expected, err_msg=name)
    for rank, outcome in enumerate(two['full grown']):
        np.testing.assert_array_equal(outcome['state']['head.weight'][:len(weights[rank::2])],
                                      weights[rank::2])


def test_a_shard_is_missing(tmp_path, four):
    for path in (four[0] / 'full').glob('epoch_4.*'):
        if not path.name.endswith('2of4'):
            shutil.copy(path, tmp_path)
    with pytest.raises(BankFileError, match='bank-2of4 cannot be read'):
        in_one_process(tmp_path / 'run', 4, **resumed(tmp_path / 'epoch_4.pth', 'full', None))


def test_a_shard_is_another_s(tmp_path, four):
    for path in (four[0] / 'full').glob('epoch_4.*'):
        shutil.copy(path, tmp_path)
    paths = bank_paths(tmp_path / 'epoch_4.pth')
    shutil.copy(paths[1], paths[2])
    with pytest.raises(BankFileError, match='belongs to another checkpoint or process'):
        in_one_process(tmp_path / 'run', 4, **resumed(tmp_path / 'epoch_4.pth', 'full', None))


@pytest.mark.parametrize('change, message', [
    (dict(head=dict(loss=dict(type='PlainLoss'))), 'needs a loss that spans processes'),
    (dict(head=FULL, optim=dict(optimizer=dict(type='LARS', lr=0.1))), 'LARS may look at'),
])
def test_what_does_not_go_with_shards(tmp_path, change, message):
    results = run_ranks(sharded.train_each, 2, str(tmp_path),
                        dict(case=for_ranks('', True, **options(1, **change))))
    for result in results:
        assert 'ValueError' in result and message in result
