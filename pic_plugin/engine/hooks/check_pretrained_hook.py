# SPDX-License-Identifier: Apache-2.0
"""Stops a training whose network did not take every pre-trained weight."""
from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import CheckpointLoader
from mmpretrain.utils import get_ori_model
from torch import nn

from pic_plugin.engine.checkpoint.foreign_checkpoint import (
    StateDict,
    backbone_of,
    check_finite,
    read_checkpoint,
    resnet_depth,
    say_which,
    state_dict_of,
)
from pic_plugin.engine.runner_private import has_loaded, load_from, resumes
from pic_plugin.engine.type_names import is_pretrained

OPTION = 'model.backbone.init_cfg.checkpoint'


@HOOKS.register_module()
class CheckPretrainedHook(Hook):
    """Compare the network with the checkpoint before the first step, tensor by tensor.

    mmengine's ``Pretrained`` initialisation takes what fits and goes on with random numbers for the
    rest, with no more than a line in the log. This hook reads which file each module was to be
    initialised from out of its ``init_cfg``, prints ``loaded n of n``, and raises if a weight of
    the network or of the file is left over. If a training starts from ``load_from``, this file
    must have all weights of the modules; a resumed training is not checked.

    Args:
        modules (Sequence[str]): Names of the modules that share out the backbone's weights. Those
            after the first whose checkpoint is None take the first one's. Defaults to
            ('backbone', ).
        ignore (Sequence[str]): Beginnings of names of weights, within the model, that are new in
            this task. Defaults to ().
        required (bool): Whether to raise if a module has no ``Pretrained`` initialisation. False is
            for a comparison with random initialisation. Defaults to True.
    """

    def __init__(self, modules: Sequence[str] = ('backbone', ), ignore: Sequence[str] = (),
                 required: bool = True) -> None:
        self.modules = tuple(modules)
        self.ignore = tuple(ignore)
        self.required = required
        self._read = lru_cache(maxsize=1)(_state_dict)

    def before_run(self, runner: Any) -> None:
        """Look at the files before mmengine does, whose messages do not say what to do.

        Raises:
            FileNotFoundError: If a checkpoint does not exist.
            ValueError: If a module has none, or one that cannot be read, has other names or
                weights that are not finite.
        """
        first, *others = [self._init_cfg(runner, name) for name in self.modules]
        for cfg in others:
            if cfg and not cfg.get('checkpoint'):
                cfg['checkpoint'] = first.get('checkpoint')
        for name in self.modules:
            if load_from(runner) is None and not resumes(runner):
                self._weights(runner, name)
            elif not self._init_cfg(runner, name).get('checkpoint'):
                # All weights come from another file: mmengine would look for one named None.
                attrgetter(name)(get_ori_model(runner.model)).init_cfg = None

    def before_train(self, runner: Any) -> None:
        """Compare every tensor.

        Raises:
            ValueError: If a weight was not taken, or is not in the file.
        """
        model = get_ori_model(runner.model)
        if has_loaded(runner):
            if not resumes(runner):
                self._check_load_from(runner, model)
            return
        unused: set | None = None
        wrong, total = [], 0
        for name in self.modules:
            weights = self._weights(runner, name)
            if weights is None:
                continue
            own = {key: value for key, value in attrgetter(name)(model).state_dict().items()
                   if not f'{name}.{key}'.startswith(self.ignore)}
            total += len(own)
            wrong += _differences(own, weights, f'{name}.')
            unused = set(weights) - set(own) if unused is None else unused - set(own)
        if unused is None:
            return
        file = self._init_cfg(runner, self.modules[0])['checkpoint']
        if wrong or unused:
            left = [f'{key} is in the file and not in the network' for key in sorted(unused)]
            depth = resnet_depth(weights or {})
            hint = f' The file is a ResNet-{depth}.' if depth else ''
            raise ValueError(
                f'the network took {total - len(wrong)} of {total} weights from {file}, and '
                f'{len(unused)} weights of the file are unused ({(wrong + left)[0]}): the rest '
                f'would be random.{hint} Give the checkpoint of the same backbone.')
        self._read.cache_clear()
        runner.logger.info(f'{" and ".join(self.modules)}: loaded {total} of {total} weights from '
                           f'{file}')

    def _check_load_from(self, runner: Any, model: nn.Module) -> None:
        """mmengine passes over what ``load_from`` lacks: all of it, if a name differs."""
        file = load_from(runner)
        assert file is not None, 'it has been loaded'
        saved = {key.removeprefix('module.'): value for key, value in _state_dict(file).items()}
        own = {f'{name}.{key}': value for name in self.modules
               for key, value in attrgetter(name)(model).state_dict().items()}
        wrong = _differences(own, saved)
        if wrong:
            raise ValueError(
                f'the network took {len(own) - len(wrong)} of {len(own)} weights of '
                f'{" and ".join(self.modules)} from load_from={file} ({wrong[0]}): the rest would '
                f'be random. To start from pre-training, give `--cfg-options {OPTION}={file}` '
                'instead of load_from.')

    def _init_cfg(self, runner: Any, name: str) -> dict[str, Any]:
        cfg = attrgetter(name)(get_ori_model(runner.model)).init_cfg
        return cfg if is_pretrained(cfg) else {}

    def _weights(self, runner: Any, name: str) -> StateDict | None:
        """Names and weights that mmengine takes from the module's file, if it has one."""
        cfg = self._init_cfg(runner, name)
        file = cfg.get('checkpoint')
        if not file:
            if not self.required:
                return None
            raise ValueError(
                f'{name} has no pretrained weights and would start from random ones: add '
                f'`--cfg-options {OPTION}=CHECKPOINT`, or set `pretrained` in the config.')
        prefix = cfg.get('prefix') or ''
        prefix = prefix if not prefix or prefix.endswith('.') else f'{prefix}.'
        state = self._read(file)
        weights = {key[len(prefix):]: value for key, value in state.items()
                   if key.startswith(prefix)}
        if not weights:
            if prefix == 'backbone.':
                # Says what the file is, if there is none behind other prefixes either.
                backbone_of(state, file)
            raise ValueError(
                f'no name in {file} begins with `{prefix}` ({next(iter(state))} is the first): '
                'take the backbone out with `python -m pic_plugin.tools.extract_backbone '
                'CHECKPOINT OUT`.')
        own = attrgetter(name)(get_ori_model(runner.model)).state_dict()
        if not prefix and not own.keys() & weights.keys() and any(
                key.startswith('backbone.') for key in weights):
            raise ValueError(
                f'{name} would take none of the weights in {file}, whose names begin with '
                f"`backbone.`: write init_cfg=dict(type='Pretrained', checkpoint='{file}', "
                "prefix='backbone.') in its config, in the place of `pretrained` too.")
        check_finite(weights, file)
        return weights


def _state_dict(file: str) -> StateDict:
    """Names and weights as they are in a file or at an address."""
    content = (CheckpointLoader.load_checkpoint(file, map_location='cpu')
               if '://' in file else read_checkpoint(file))
    say_which(content, file, averaged=True, advice='; extract_backbone takes out either')
    return state_dict_of(content, file)


def _differences(own: StateDict, saved: StateDict, prefix: str = '') -> list[str]:
    """A sentence for each weight of the network that is not what the file has."""
    found = []
    for key, value in own.items():
        there = saved.get(key)
        if there is None:
            found.append(f'{prefix}{key} is in the network and not in the file')
        elif value.shape != there.shape:
            found.append(f'{prefix}{key} is {tuple(value.shape)} in the network and '
                         f'{tuple(there.shape)} in the file')
        elif not torch.equal(value.cpu(), there.to(value.dtype)):
            found.append(f'{prefix}{key} has other values than in the file')
    return found
