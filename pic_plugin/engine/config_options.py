# SPDX-License-Identifier: Apache-2.0
"""Options of the command line that change a config: all of them take effect, or none is taken."""
from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import FUNCTIONS
from mmengine.runner import Runner, set_random_seed
from mmengine.utils import import_modules_from_strings
from mmpretrain import registry
from torch.utils.data import DataLoader

from pic_plugin.engine.config_file import LOADERS
from pic_plugin.engine.config_names import (
    RUNNER_KEYS,
    assigned_names,
    items_of,
    no_effect,
    set_names,
)

DEFAULT_TYPES = {'optim_wrapper': 'OptimWrapper', 'model.head.loss': 'CosineSoftmaxLoss'}
LOOPS = dict(train_cfg='EpochBasedTrainLoop', val_cfg='ValLoop', test_cfg='TestLoop')
_HOOKS = {'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint'}
# Dicts without a type whose entries are known, by their place.
_KNOWN = {
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'env_cfg.mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'randomness': set(inspect.signature(set_random_seed).parameters) | {'diff_rank_seed'},
    'auto_scale_lr': {'base_batch_size', 'enable'},
    'custom_imports': {'imports', 'allow_failed_imports'},
}
# What registries take out of a config before its class gets it.
_TAKEN = {
    'type', '_scope_', '_delete_', 'priority', 'init_cfg', 'constructor', 'paramwise_cfg',
    'convert_to_iter_based', 'by_epoch'
}
_REGISTRIES = [value for name, value in vars(registry).items() if name.isupper()] + [FUNCTIONS]


def apply_options(file: Path, cfg: Config, options: dict[str, Any]) -> Config:
    """Change a config by the options of a command line.

    Args:
        file (Path): The config's.
        cfg (Config): As the file gives it.
        options (dict): Values by dotted keys, as mmengine's ``DictAction`` reads them. A variable
            at the top of the file, such as ``batch_size``, changes all that is computed from it.

    Returns:
        Config: The changed config; ``cfg`` itself, or another where variables were set.

    Raises:
        ValueError: If an option matches no key and no argument of what it would configure, or is a
            variable from which nothing is computed.
    """
    names = assigned_names(file) - RUNNER_KEYS
    # Of files that are not read again: of another package, or in mmengine's new style.
    fixed = set(cfg) - RUNNER_KEYS - names
    variables = {key: value for key, value in options.items() if key in names}
    for key in options:
        first, _, rest = key.partition('.')
        if rest and first in names | fixed:
            raise ValueError(
                f'--cfg-options {key}: {first} is a variable of {file}, whose parts are copied '
                f'when the file is read: set {_place_of(cfg, first)}.{rest}.')
        if first in fixed:
            raise ValueError(f'--cfg-options {key}: {no_effect(cfg, first)}')
    if variables:
        cfg = set_names(file, cfg, variables)
    before = cfg.to_dict()
    rest_ = {key: value for key, value in options.items() if key not in variables}
    try:
        cfg.merge_from_dict(rest_)
    except (KeyError, TypeError) as error:
        raise ValueError(f'--cfg-options: {error.args[0] if error.args else error}') from error
    if any(key.startswith('custom_imports') for key in rest_) and cfg.get('custom_imports'):
        import_modules_from_strings(**cfg.custom_imports)  # mmengine does not, this late
    # Under the same name other libraries have classes with other arguments.
    if cfg.get('default_scope') in (None, 'mmpretrain'):
        for key in rest_:
            _check_key(key, before, cfg.to_dict())
    return cfg


def _place_of(cfg: Config, name: str) -> str:
    """Where the Runner finds the value of a variable."""
    whole = {key: value for key, value in cfg.items() if key in RUNNER_KEYS}
    wanted = _without_scopes(cfg[name])
    return next((place for place, value in items_of(whole) if _without_scopes(value) == wanted),
                'the entry of the config')


def _without_scopes(value: Any) -> Any:
    """mmengine marks what is inherited from another package, in one place and not in the other."""
    if isinstance(value, dict):
        return {key: _without_scopes(child) for key, child in value.items() if key != '_scope_'}
    return [_without_scopes(child) for child in value] if isinstance(value, list) else value


def _check_key(key: str, before: Any, after: Any) -> None:
    """Refuse a key that was not there and that nothing would look at."""
    path: list[str] = []
    for part in key.split('.'):
        if isinstance(after, dict) and (not isinstance(before, dict) or part not in before):
            known = _allowed('.'.join(path), after)
            if known is not None and part not in known:
                candidates = known | (set(before) if isinstance(before, dict) else set())
                raise ValueError(f'--cfg-options {key}: {_hint(path, part, candidates, after)}')
        before, after = _child(before, part), _child(after, part)
        path.append(part)


def _hint(path: list[str], part: str, candidates: set[str], node: dict[str, Any]) -> str:
    """What to write in the place of a name that nothing would look at."""
    place = '.'.join(path)
    # A loss in a head, an optimizer in its wrapper: a name that belongs a level deeper.
    parts: dict[str, Any] = {}
    if place:
        parts = {where.rpartition('.')[2]: {} for where in DEFAULT_TYPES
                 if where.rpartition('.')[0] == place}
        parts.update((name, value) for name, value in node.items() if isinstance(value, dict))
    deeper = {f'{child}.{name}': name for child, value in parts.items()
              for name in (_allowed(f'{place}.{child}', value) or set()) - _TAKEN}
    names = {**{name: name for name in candidates}, **deeper}
    near = difflib.get_close_matches(part, sorted(set(names.values())), n=1, cutoff=0.4)
    said = f'there is no {part}{" in " + place if place else ""}: '
    if not near:
        return (said + f'{place + " takes" if place else "a Runner takes"} '
                f'{", ".join(sorted(candidates))}.')
    nearest = next(where for where, name in names.items() if name == near[0])
    return said + f'did you mean {".".join([*path, nearest])}?'


@contextmanager
def explained_names(tool: str, cfg: Config) -> Iterator[None]:
    """Say where a config has a name that its class does not take, and the nearest one.

    Args:
        tool (str): Name to begin the line with.
        cfg (Config): What is built.

    Raises:
        SystemExit: If an argument was not expected, and the config has it; if the config has a type
            that no registry knows.
    """
    try:
        yield
    except (KeyError, TypeError) as error:
        found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        hints = _unexpected(cfg.to_dict(), found[1], []) if found else iter(())
        unknown = re.search(r'(\S+) is not in the \S+ registry', str(error))
        # What mmengine makes of an optimizer's type that it does not know.
        if unknown or 'None is not a callable' in str(error):
            hints = _unknown_types(cfg.to_dict(), unknown and unknown[1].strip('\'"'), [])
        for hint in hints:
            raise SystemExit(f'{tool}: {cfg.filename}: {hint}') from error
        raise


def _unknown_types(node: Any, only: str | None, path: list[str]) -> Iterator[str]:
    if isinstance(node, (list, tuple)):
        node = {str(number): value for number, value in enumerate(node)}
    if not isinstance(node, dict):
        return
    kind = node.get('type')
    if isinstance(kind, str) and (
            kind == only if only else all(_get(one, kind) is None for one in _REGISTRIES)):
        names = {name for one in _REGISTRIES for level in (one, one.parent) if level is not None
                 for name in level.module_dict}
        near = difflib.get_close_matches(kind, sorted(names), n=1)
        yield (f'{".".join([*path, "type"])}: nothing is registered as {kind}. '
               + (f'Did you mean {near[0]}? Else name' if near else 'Name')
               + ' the module that registers it in custom_imports.')
    for key, value in node.items():
        yield from _unknown_types(value, only, [*path, str(key)])


def _unexpected(node: Any, name: str, path: list[str]) -> Iterator[str]:
    if isinstance(node, (list, tuple)):
        node = {str(number): value for number, value in enumerate(node)}
    if not isinstance(node, dict):
        return
    known = _allowed('.'.join(path), node) if name in node and path else None
    if known is not None and name not in known:
        yield _hint(path, name, known, node)
    for key, value in node.items():
        yield from _unexpected(value, name, [*path, str(key)])


def _child(value: Any, part: str) -> Any:
    if isinstance(value, (list, tuple)) and part.lstrip('-').isdigit():
        return value[int(part)]
    return value.get(part) if isinstance(value, dict) else None


def _allowed(place: str, node: dict[str, Any]) -> set[str] | None:
    """Names that a dict of a config may have; None where anything may be."""
    if not place:
        return RUNNER_KEYS
    if place in LOADERS:
        return set(inspect.signature(DataLoader.__init__).parameters) - {'self'} | {
            'num_batch_per_epoch'}
    if place in _KNOWN:
        return _KNOWN[place]
    if place == 'default_hooks':
        return _HOOKS | {name for name, value in node.items()
                         if isinstance(value, dict) and 'type' in value}
    kind = node.get('type')
    if place in LOOPS and kind is None:
        kind = LOOPS[place] if node.get('by_epoch', True) else 'IterBasedTrainLoop'
    if kind is None:
        kind = DEFAULT_TYPES.get(place)
    if not isinstance(kind, str):
        return arguments_of(kind) if callable(kind) else None
    # A registry that does not know a name tries to import a module of that name.
    found = next((cls for cls in (_get(one, kind) for one in _REGISTRIES) if callable(cls)), None)
    return None if found is None else arguments_of(found)


def _get(one: Any, kind: str) -> Any:
    try:
        return one.get(kind)
    except (KeyError, ImportError):
        return None


def arguments_of(target: Any) -> set[str] | None:
    """Names that a class or function takes by keyword, with what config entries bring besides.

    Returns:
        set[str] | None: None if it takes any.
    """
    names = set(_TAKEN)
    if not inspect.isclass(target):
        signatures = [inspect.signature(target)]
    elif issubclass(target, CheckpointHook):
        signatures = [inspect.signature(target), inspect.signature(Runner.save_checkpoint)]
    else:
        signatures = [inspect.signature(vars(cls)['__init__']) for cls in target.__mro__
                      if '__init__' in vars(cls) and cls is not object]
    for signature in signatures:
        kinds = [parameter.kind for parameter in signature.parameters.values()]
        names |= set(signature.parameters)
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            return names  # nothing is passed on to the classes behind it
    return None if signatures else names


