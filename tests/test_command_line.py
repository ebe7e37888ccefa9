# SPDX-License-Identifier: Apache-2.0
"""Names of files in what the tools write and print."""
import os

from pic_plugin.analysis.images import Images, Skipped
from pic_plugin.command_line import report_skipped
from pic_plugin.files import write_csv


def test_names_are_written_as_the_bytes_that_they_are(tmp_path):
    write_csv(tmp_path / 'x.csv', ['name', 'value'], [[os.fsdecode(b'caf\xe9.png'), 0.5]])
    assert (tmp_path / 'x.csv').read_bytes() == b'name,value\ncaf\xe9.png,0.500000\n'


def test_skipped_names_are_printed(capsys):
    images = Images([], None)
    images.skipped.append(Skipped(os.fsdecode(b'caf\xe9.png'), 'broken'))
    report_skipped('tool', images)
    assert capsys.readouterr().err == 'tool: left out caf\\xe9.png: broken\n'
