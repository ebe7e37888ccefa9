# SPDX-License-Identifier: Apache-2.0
"""Variables at the top of a config file, set from the command line.

mmengine reads a file and then changes entries of the result, so that ``batch_size=16`` changes the
variable of that name and none of what was computed from it. Here the file is read again with
another value behind the variable's name.
"""
from __future__ import annotations

import ast
import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from pic_plugin.engine.runner_private import fill_in_predefined, is_lazy_config

BASE = '_base_'
# The Runner's, and what it and mmpretrain read besides.
RUNNER_KEYS = {*inspect.signature(Runner.__init__).parameters, 'runner_type', 'custom_imports',
               'model_wrapper_cfg', 'sync_bn', 'find_unused_parameters', 'activation_checkpointing',
               'efficient_conv_bn_eval', 'compile', 'tta_model', 'tta_pipeline', 'env_cfg'
               } - {'self', 'cfg'}


def set_names(file: Path, cfg: Config, values: dict[str, Any]) -> Config:
    """Read a config again with other values for variables of its file.

    Args:
        file (Path): The config.
        cfg (Config): What it gives as it is.
        values (dict): Variables that the file, or one that it inherits from, assigns at its top
            level, and that are no keys of the Runner.

    Returns:
        Config: With the name of the original file.

    Raises:
        ValueError: If a variable changes nothing but itself; the message names entries of the
            config to set in its place.
    """
    again = _read_with(file, values)
    for name, value in values.items():
        if cfg[name] == value:
            continue
        alone = again if len(values) == 1 else _read_with(file, {name: value})
        if _without(alone, name) == _without(cfg, name):
            raise ValueError(no_effect(cfg, name))
    # Config refuses to be given attributes.
    object.__setattr__(again, '_filename', str(file))
    return again


def assigned_names(file: Path) -> set:
    """Variables that a config file, or one that it inherits from, assigns at its top level."""
    return {name for one in _chain(file) for name, _ in _assignments(_parse(one))} - {BASE}


def _chain(file: Path) -> list[Path]:
    """A config file and the files it inherits from, as far as they are given by path."""
    return [file, *(found for base in _bases(_parse(file)) if '::' not in base
                    for found in _chain(file.parent / base))]


def _parse(file: Path) -> ast.Module:
    if file.suffix != '.py' or is_lazy_config(file):
        return ast.Module(body=[], type_ignores=[])
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        fill_in_predefined(file, copy)
        return ast.parse(copy.read_text(encoding='utf-8'))


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.Assign]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Name):
                yield target.id, node


def _bases(tree: ast.Module) -> list[str]:
    for name, node in _assignments(tree):
        if name == BASE:
            value = ast.literal_eval(node.value)
            return [value] if isinstance(value, str) else list(value)
    return []


def _read_with(file: Path, values: dict[str, Any]) -> Config:
    with tempfile.TemporaryDirectory() as folder:
        return Config.fromfile(_copy_with(file, values, Path(folder)))


def _copy_with(file: Path, values: dict[str, Any], folder: Path) -> Path:
    """Write a config, and what it inherits from, with other values; the path of the copy."""
    tree = _parse(file)
    if not tree.body:  # YAML and JSON set no variables
        return file.absolute()
    for name, node in _assignments(tree):
        # `epochs = min(epochs, 10)` adjusts what an assignment before has set.
        adjusts = any(isinstance(part, ast.Name) and part.id == name
                      for part in ast.walk(node.value))
        if name == BASE:
            bases = [base if '::' in base else str(_copy_with(file.parent / base, values, folder))
                     for base in _bases(tree)]
            node.value = ast.parse(repr(bases), mode='eval').body
        elif name in values and not adjusts:
            node.value = ast.parse(repr(values[name]), mode='eval').body
    copy = folder / f'{len(list(folder.iterdir()))}_{file.name}'
    copy.write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding='utf-8')
    return copy


def _without(cfg: Config, name: str) -> dict[str, Any]:
    return {key: value for key, value in cfg.to_dict().items() if key != name}


def no_effect(cfg: Config, name: str) -> str:
    """A sentence on a variable that changes nothing but itself, and what to set in its place."""
    places = [path for path, _ in items_of(cfg.to_dict())
              if path.split('.')[0] in RUNNER_KEYS and path.split('.')[-1] == name]
    value = cfg[name]
    if not places and (isinstance(value, (str, list, dict)) or type(value) in (int, float)):
        places = [path for path, found in items_of(cfg.to_dict())
                  if path.split('.')[0] in RUNNER_KEYS and found == value]
    # What trains goes before what evaluates.
    places.sort(key=lambda place: place.startswith(('val_', 'test_')))
    hint = f': set {" or ".join(places[:3])}' if places else ''
    return f'{name} is a variable of {cfg.filename} that nothing is computed from{hint}.'


def items_of(value: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Dotted paths and values of all that is in dicts, lists and tuples, at any depth."""
    children = value.items() if isinstance(value, dict) else (
        enumerate(value) if isinstance(value, (list, tuple)) else ())
    for key, child in children:
        place = f'{path}.{key}' if path else str(key)
        yield place, child
        yield from items_of(child, place)
