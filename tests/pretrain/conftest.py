# SPDX-License-Identifier: Apache-2.0
"""Short measurements: what is timed does not matter here."""
import pytest

from pic_plugin.pretrain import measure


@pytest.fixture
def quick(monkeypatch):
    """Measure as few steps as possible."""
    monkeypatch.setattr(measure, 'LOADER_SECONDS', 0.0)
    monkeypatch.setattr(measure, 'STEP_SECONDS', 0.0)
