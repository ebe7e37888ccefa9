# SPDX-License-Identifier: Apache-2.0
"""``benchmark training``, ``pipeline`` and ``augment``, at sizes that take seconds."""
import re

import pytest

from pic_plugin.datasets import decoding
from pic_plugin.studies.benchmark import training
from pic_plugin.tools import benchmark

SMALL = ['--batch-size', '4', '--size', '32', '--depth', '18', '--num-instances', '60',
         '--warmup', '1', '--steps', '2', '--workers', '0']


def test_augment(capsys):
    benchmark.main(['augment', '--batch-size', '2', '--size', '8', '--steps', '1', '--warmup', '0',
                    '--no-compile', '--device', 'cpu'])
    out = capsys.readouterr().out
    assert re.search(r'whole recipe, channels_last +[0-9.]+ +[0-9.]+', out)
    assert re.search(r'\nblur +[0-9.]+', out)


def test_pipeline(capsys):
    benchmark.main(['pipeline', '--num-images', '2', '--rounds', '1', '--no-large', '--needed',
                    '1000'])
    out = capsys.readouterr().out
    rows = dict(re.findall(r'\n(\S.*?) {2,}([0-9.]+) +\d', out))
    assert {'augmented on the host (0.1.0)', 'DecodeRandomCrop, cv2'} <= set(rows)
    assert ('DecodeRandomCrop, simplejpeg' in rows) == (decoding.simplejpeg is not None)
    assert 'for 1000 images a second' in out and 'from the cache' in out


def test_training_prints_its_rows_and_goes_on_after_an_error(capsys, monkeypatch, work_dir):
    cases = dict(training.CASES, broken=training.TrainingCase('pic', augment=dict(nothing=1)))
    monkeypatch.setattr(training, 'CASES', cases)
    names = ['classifier', 'broken', 'pic', 'pic-cl-augment', 'simclr', 'moco-cl']
    benchmark.main(['training', *SMALL, '--cases', *names])
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines() if line.split()[:1]}
    assert set(names) <= set(rows)
    assert 'TypeError' in rows['broken']
    for name in names:
        if name != 'broken':
            assert re.search(r' [0-9.]+ +\d+ ', rows[name].rsplit('contiguous')[-1]), rows[name]
    assert re.search(r'PIC, K = 30, channels_last, augmented', rows['pic-cl-augment'])
    assert re.search(r' 1\.000 ', rows['classifier'])


@pytest.mark.parametrize('name', training.CASES)
def test_cases_have_half_as_many_images_with_two_views(name, tmp_path):
    case = training.CASES[name]
    parser = benchmark.argparse.ArgumentParser()
    training.add_arguments(parser)
    config = training.config_of(case, parser.parse_args([]), str(tmp_path))
    two_views = case.method in ('simclr', 'moco')
    assert config.train_dataloader.batch_size == (128 if two_views else 256)
    images = config.model.data_preprocessor
    assert images.num_views == 1 + two_views and images.channels_last == case.channels_last
    assert images.num_images == config.train_dataloader.batch_size
    if case.method == 'pic':
        assert config.model.head.num_negatives == case.num_negatives
        assert config.train_dataloader.sampler.window_size == 2 * (case.num_negatives or 65536)
    assert config.get('compile', False) == case.compile
