# SPDX-License-Identifier: Apache-2.0
"""A value is read out of a config's text without executing it."""
from pathlib import Path

import pytest
from mmengine.config import Config

from pic_plugin.transfer.config_text import value_in_config

CONFIGS = sorted((Path(__file__).resolve().parents[2] / 'configs' / 'pic').glob('*.py'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_as_mmengine_reads_it(path):
    cfg = Config.fromfile(path)
    text = cfg.pretty_text
    assert value_in_config(text, 'model') == cfg.model.to_dict()
    assert value_in_config(text, 'optim_wrapper') == cfg.optim_wrapper.to_dict()
    assert value_in_config(text, 'nothing') is None


@pytest.mark.parametrize('text', [
    "model = dict(a=__import__('os').getpid())", 'model = open("/etc/hostname")',
    'model = dict(**{})', 'model = dict([(1, 2)])', 'model = {**{}}', 'model = x', 'model = (',
    'def model(): pass', ''])
def test_nothing_else_is_a_value(text):
    assert value_in_config(text, 'model') is None


def test_kinds_of_values():
    text = "model = dict(a=[1, -2.5], b=(None, True), c={'d e': dict()}, f='x')"
    assert value_in_config(text, 'model') == dict(a=[1, -2.5], b=(None, True), c={'d e': {}}, f='x')
