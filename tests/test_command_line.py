# SPDX-License-Identifier: Apache-2.0
"""Names of files in what the tools write and print."""
import argparse
import os

import pytest

from pic_plugin.analysis.images import Images, Skipped, report_skipped
from pic_plugin.command_line import add_runner_arguments, analysis_parser, parse_analysis
from pic_plugin.files import write_csv


def test_names_are_written_as_the_bytes_that_they_are(tmp_path):
    write_csv(tmp_path / 'x.csv', ['name', 'value'], [[os.fsdecode(b'caf\xe9.png'), 0.5]])
    assert (tmp_path / 'x.csv').read_bytes() == b'name,value\ncaf\xe9.png,0.500000\n'


def test_skipped_names_are_printed(capsys):
    images = Images([], None)
    images.skipped.append(Skipped(os.fsdecode(b'caf\xe9.png'), 'broken'))
    report_skipped('tool', images)
    assert capsys.readouterr().err == 'tool: left out caf\\xe9.png: broken\n'


def options(*arguments):
    parser = argparse.ArgumentParser()
    add_runner_arguments(parser)
    return parser.parse_args(['--cfg-options', *arguments]).cfg_options


def test_options_keep_spaces_of_names():
    assert options('data_root=my pictures', 'a=" b c "', 'lr=0.5', 'size=[1, 2]', 'pair=(x y,z)',
                   '--cfg-options', 'more=1') == {
        'data_root': 'my pictures', 'a': ' b c ', 'lr': 0.5, 'size': [1, 2], 'pair': ('xy', 'z'),
        'more': 1}


def test_options_keep_names_of_files(tmp_path, monkeypatch):
    """Also those that mmengine takes for lists and numbers."""
    monkeypatch.chdir(tmp_path)
    for name in ('My Photos (2020)', 'a,b', '[x]', '2020', '2'):
        (tmp_path / name).mkdir()
    for name in (f'{tmp_path}/My Photos (2020)', 'My Photos (2020)', f'{tmp_path}/a,b', 'a,b',
                 '[x]', '2020'):
        assert options(f'data_root={name}') == {'data_root': name}
    # What is not there is said to be missing by its name.
    assert options('model.load_from=2021', 'work_dir=My Run (2021)') == {
        'model.load_from': '2021', 'work_dir': 'My Run (2021)'}
    assert options('data_root=[a,b]', 'load_from=None', 'scale=0.2, 1', 'max_epochs=2') == {
        'data_root': ['a', 'b'], 'load_from': None, 'scale': [0.2, 1], 'max_epochs': 2}


@pytest.mark.parametrize('several', [False, True])
def test_a_work_folder_stands_for_its_config_and_checkpoint(tmp_path, capsys, several):
    def parsed(*argv):
        args = parse_analysis(analysis_parser('tool', '', several=several), argv)
        return args.config, args.checkpoint

    def as_given(checkpoint):
        return [checkpoint] if several else checkpoint

    work_dir = str(tmp_path)
    assert parsed(work_dir, '--images', 'DIR') == (work_dir, as_given(work_dir))
    assert parsed(work_dir, 'epoch_1.pth') == (work_dir, as_given('epoch_1.pth'))
    assert parsed('x.py', '--images', 'DIR', 'epoch_1.pth') == ('x.py', as_given('epoch_1.pth'))
    with pytest.raises(SystemExit):
        parsed('x.py', '--images', 'DIR')
    assert 'x.py is no work folder: give the checkpoint too' in capsys.readouterr().err
