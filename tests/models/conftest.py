# SPDX-License-Identifier: Apache-2.0
"""Tests that start processes share the helpers of tests/engine with them."""
import os
import sys
from pathlib import Path

ENGINE = str(Path(__file__).resolve().parent.parent / 'engine')
if ENGINE not in sys.path:
    sys.path.insert(0, ENGINE)
    # The server that processes are forked from starts with this, not with sys.path.
    os.environ['PYTHONPATH'] = os.pathsep.join(
        [ENGINE, str(Path(ENGINE).parent.parent), os.environ.get('PYTHONPATH', '')])
