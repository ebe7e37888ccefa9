# SPDX-License-Identifier: Apache-2.0
"""The tests of this folder share toy_training.py with the processes that they start."""
import os
import sys

HERE = os.path.dirname(__file__)
sys.path.insert(0, HERE)
# The server that processes are forked from starts with this, not with sys.path.
os.environ['PYTHONPATH'] = os.pathsep.join(
    [HERE, os.path.dirname(os.path.dirname(HERE)), os.environ.get('PYTHONPATH', '')])
