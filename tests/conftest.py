# SPDX-License-Identifier: Apache-2.0
"""What all tests share: one thread, free work folders, and a summary of the groups that ran."""
from __future__ import annotations

import gc
import importlib.util
import multiprocessing
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

# Before torch is imported, and for the processes that tests start.
os.environ.setdefault('OMP_NUM_THREADS', '1')
# On a GPU trainings do not repeat to the bit, and NumPy does not read their tensors: no test sees
# one but those that are for one: test_with_gpu.py gives those back what was visible.
if 'PIC_PLUGIN_TEST_GPUS' not in os.environ:
    os.environ['PIC_PLUGIN_TEST_GPUS'] = os.environ.get('CUDA_VISIBLE_DEVICES', 'all')
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
TESTS = Path(__file__).resolve().parent
# pyproject.toml puts tests/ on the path of this process; those that tests start need it too.
os.environ['PYTHONPATH'] = os.pathsep.join(
    [str(TESTS), str(TESTS.parent), os.environ.get('PYTHONPATH', '')])

# Processes that tests start with this method are forked from one that has imported everything.
multiprocessing.set_forkserver_preload(['pytest', 'toys.processes'])

import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

torch.set_num_threads(1)
# A first example compiles and imports: its time says nothing.
settings.register_profile('pic_plugin', deadline=None)
settings.load_profile('pic_plugin')

# Set by .ci/run where these are installed on purpose: there, their absence is a failure.
MIM_REQUIRED = os.environ.get('PIC_PLUGIN_REQUIRE_MIM') == '1'
DOWNSTREAM_REQUIRED = os.environ.get('PIC_PLUGIN_REQUIRE_DOWNSTREAM') == '1'
NOT_RUN = pytest.StashKey[list]()


@pytest.fixture
def work_dir(tmp_path):
    """A folder for one Runner."""
    return tmp_path / 'work_dir'


@pytest.fixture(autouse=True)
def forget_runs():
    """After a test, what mmengine keeps for the whole process is as it was before.

    Otherwise a second Runner of the same second would take over the first one's logger, message
    hub and visualizer, whose folder may be gone; and one that failed would go on to take signals.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {manager: dict(manager._instance_dict) for manager in _managers()}
    yield
    for manager in _managers():
        manager._instance_dict.clear()
        manager._instance_dict.update(before.get(manager, {}))
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _managers():
    """All classes of which mmengine keeps instances by name, each kind of visualizer apart."""
    # Tests of the core run where mmengine is not installed, or is not to be imported.
    if 'mmengine.utils' not in sys.modules:
        return []
    classes = [sys.modules['mmengine.utils'].ManagerMixin]
    for one in classes:
        classes += one.__subclasses__()
    return list(dict.fromkeys(classes))


def pytest_collection_modifyitems(config, items):
    """Leave out groups of tests, and say so, where what they need is neither there nor required."""
    config.stash[NOT_RUN] = []
    if not MIM_REQUIRED and importlib.util.find_spec('mim') is None:
        leave_out('mim', 'openmim is not installed here (.ci/run runs them in an environment that '
                  'has it)', config, items)
    if not DOWNSTREAM_REQUIRED and not has_downstream():
        leave_out('downstream', 'mmdet, mmseg or the compiled ops of mmcv are not installed here; '
                  'run `.ci/downstream_env .venv-downstream && .venv-downstream/bin/python -m '
                  'pytest tests -m downstream`', config, items)


def pytest_collection_finish():
    """What has been imported stays: no collection of garbage needs to look at it again.

    mmengine collects for each data set that it builds, which took a fifth of a second each time.
    """
    gc.collect()
    gc.freeze()


def has_downstream():
    """Whether the real libraries are here. Without importing them: that takes seconds."""
    return (importlib.util.find_spec('mmdet') is not None
            and importlib.util.find_spec('mmseg') is not None
            and importlib.util.find_spec('mmcv._ext') is not None)


def leave_out(marker, reason, config, items):
    """Deselect the tests with a marker and remember why."""
    marked = [item for item in items if item.get_closest_marker(marker)]
    if marked:
        items[:] = [item for item in items if item not in marked]
        config.hook.pytest_deselected(items=marked)
        config.stash[NOT_RUN].append(f'{len(marked)} tests of {marker} not run: {reason}')


def group(nodeid: str) -> str:
    """Folder of a test below tests/, or its module if it lies there directly."""
    path = Path(nodeid.split('::')[0])
    parts = path.parts[1:] if path.parts[:1] == (TESTS.name,) else path.parts
    return parts[0] if parts else str(path)


def pytest_terminal_summary(terminalreporter, config):
    """Say how many tests of each group ran."""
    counts: Counter = Counter()
    for outcome in ('passed', 'failed', 'error', 'skipped'):
        for report in terminalreporter.stats.get(outcome, []):
            counts[group(report.nodeid), outcome] += 1
    terminalreporter.section('groups')
    terminalreporter.write_line(f'torch {torch.__version__}, {torch.get_num_threads()} thread')
    for name in sorted({name for name, _ in counts}):
        outcomes = ', '.join(f'{number} {outcome}' for (key, outcome), number in counts.items()
                             if key == name)
        terminalreporter.write_line(f'{name}: {outcomes}')
    for line in config.stash.get(NOT_RUN, []):
        terminalreporter.write_line(line)
