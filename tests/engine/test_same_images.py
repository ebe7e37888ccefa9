# SPDX-License-Identifier: Apache-2.0
"""Real processes that do not find the same images."""
import pytest

from toys.processes import run_ranks, train_on_own_images
from toys.training import make_config

NAMES = [f'{number:03d}' for number in range(0, 40, 2)]


def run(tmp_path, changes, dataset):
    kwargs = dict(seed=3, max_epochs=1, batch_size=4)
    loader = make_config(tmp_path, **kwargs)['train_dataloader']
    loader['dataset'] = dict(dataset, pipeline=loader['dataset']['pipeline'])
    return run_ranks(train_on_own_images, 2, changes, str(tmp_path),
                     dict(kwargs, train_dataloader=loader), seconds=60)


@pytest.mark.parametrize('names, counts, first', [
    (sorted([*NAMES, '007']), 'images: 20 in process 0, 21 in process 1.',
     'differs is image 4: /first/008 in process 0, /first/007 in process 1.'),
    (NAMES[:-1], '20 in process 0, 19 in process 1.',
     'image 19: /first/038 in process 0, none in process 1.'),
    ([*NAMES[:-2], '038', '036'], '20 in process 0, 20 in process 1.',
     'image 18: /first/036 in process 0, /first/038 in process 1.'),
], ids=['more', 'fewer', 'order'])
def test_all_refuse_different_files(tmp_path, names, counts, first):
    changes = [dict(names=NAMES), dict(names=names)]
    for result in run(tmp_path, changes, dict(type='NamedToyImages')):
        assert 'ValueError: the processes see different ' in result
        assert counts in result and first in result and 'Let all processes read' in result


def test_images_without_names_are_counted(tmp_path):
    changes = [dict(num_images=20), dict(num_images=21)]
    for result in run(tmp_path, changes, dict(type='ToyImages')):
        assert '20 in process 0, 21 in process 1. Images of one id' in result


def test_each_machine_may_have_a_copy(tmp_path):
    changes = [dict(folder='/scratch/a'), dict(folder='/mnt/b')]
    for result in run(tmp_path, changes, dict(type='NamedToyImages', names=NAMES)):
        assert isinstance(result, tuple), result
