# SPDX-License-Identifier: Apache-2.0
"""Memory of a step, counted."""
import pytest

from pic_plugin.studies.ahead import memory
from pic_plugin.tools.ahead import main


@pytest.fixture
def counted(monkeypatch):
    """Method -> (state, kept) bytes of the last table."""
    found = {}
    step_bytes = memory.step_bytes

    def record(training):
        found[training.setting.method] = step_bytes(training)
        found['parameters'] = training.parameters.values.numel()
        return found[training.setting.method]

    monkeypatch.setattr(memory, 'step_bytes', record)
    return found


def test_a_table_of_all_methods(capsys, counted):
    main(['memory', '--passes', '32', '--width', '16', '--classes', '64'])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and lines[2].startswith('| PIC | 1 | ')
    small = dict(counted)
    main(['memory', '--passes', '64', '--width', '16', '--classes', '64'])
    for method in memory.NAMES:
        assert counted[method][0] == small[method][0]
        # Not all of it belongs to images.
        assert 1.7 < counted[method][1] / small[method][1] < 2.1
    # Keys and targets need no backward pass: half of the passes keep nothing.
    for method in ('mocov2', 'byol'):
        assert 0.4 < counted[method][1] / counted['simclr'][1] < 0.6
    # Parameters of the network and the projection, gradient and momentum, and little beside them.
    main(['memory', '--passes', '16', '--width', '16', '--classes', '64'])
    assert 1.0 < counted['swav'][0] / (4 * 3 * counted['parameters']) < 1.1
    # Class weights: 2,048 rows and one that nobody uses, where there were 64.
    before = counted['pic'][0]
    main(['memory', '--passes', '16', '--width', '16', '--classes', '2048'])
    assert counted['pic'][0] - before == pytest.approx(4 * 3 * 128 * (2048 - 64), rel=0.02)
