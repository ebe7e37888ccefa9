# SPDX-License-Identifier: Apache-2.0
"""Names of files in what the tools write and print."""
import argparse
import os

from pic_plugin.analysis.images import Images, Skipped, report_skipped
from pic_plugin.command_line import add_runner_arguments
from pic_plugin.files import write_csv


def test_names_are_written_as_the_bytes_that_they_are(tmp_path):
    write_csv(tmp_path / 'x.csv', ['name', 'value'], [[os.fsdecode(b'caf\xe9.png'), 0.5]])
    assert (tmp_path / 'x.csv').read_bytes() == b'name,value\ncaf\xe9.png,0.500000\n'


def test_skipped_names_are_printed(capsys):
    images = Images([], None)
    images.skipped.append(Skipped(os.fsdecode(b'caf\xe9.png'), 'broken'))
    report_skipped('tool', images)
    assert capsys.readouterr().err == 'tool: left out caf\\xe9.png: broken\n'


def test_options_keep_spaces_of_names():
    parser = argparse.ArgumentParser()
    add_runner_arguments(parser)
    given = parser.parse_args(['--cfg-options', 'data_root=my pictures', 'a=" b c "', 'lr=0.5',
                               'size=[1, 2]', 'pair=(x y,z)', '--cfg-options', 'more=1'])
    assert given.cfg_options == {'data_root': 'my pictures', 'a': ' b c ', 'lr': 0.5,
                                 'size': [1, 2], 'pair': ('xy', 'z'), 'more': 1}
