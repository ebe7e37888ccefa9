# SPDX-License-Identifier: Apache-2.0
"""Class weights trained by an optimizer of their own, beside the network's."""
from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from mmpretrain.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from pic_plugin.engine.head_setup import find_head
from pic_plugin.engine.runner_private import clip_gradients, set_inner_count, update_scale
from pic_plugin.engine.type_names import type_name

NETWORK, CLASS_WEIGHTS = 'network', 'class_weights'


class PICOptimWrapper(OptimWrapperDict):
    """Steps two optimizers after one backward pass: the network's and the class weights'.

    To the Runner it is a dict of wrappers: ``param_scheduler`` is one list that both follow, each
    from its own learning rate, or ``dict(network=[...], class_weights=[...])``, and the log has
    ``network.lr`` and ``class_weights.lr``. Gradient accumulation is common to both. ``clip_grad``
    clips the gradients of each on their own. With mixed precision there is one loss scale; as
    always in torch, an optimizer whose gradients overflow skips the step and the other does not.
    With a sharded head the class weights skip wherever the network does: the loss brings an
    overflow in one process's shard into the network's gradients, which all processes share.

    Args:
        network (OptimWrapper): Wrapper of the network's optimizer.
        class_weights (OptimWrapper): Wrapper of the class weights' optimizer.

    Attributes:
        is_sharded (bool): Whether the head is. Set before training.
    """

    def __init__(self, network: OptimWrapper, class_weights: OptimWrapper) -> None:
        super().__init__(network=network, class_weights=class_weights)
        if isinstance(network, AmpOptimWrapper):
            class_weights.loss_scaler = network.loss_scaler
        self.is_sharded = False

    def update_params(self,
                      loss: torch.Tensor,
                      step_kwargs: dict | None = None,
                      zero_kwargs: dict | None = None) -> None:
        """One backward pass and, when enough gradients have been accumulated, both steps."""
        network = self[NETWORK]
        network.backward(network.scale_loss(loss))
        # Its count of iterations follows the network's, which alone has seen the backward pass.
        set_inner_count(self[CLASS_WEIGHTS], network.inner_count)
        if network.should_update():
            self.step(**(step_kwargs or {}))
            self.zero_grad(**(zero_kwargs or {}))

    def step(self, **kwargs: Any) -> None:
        """Clip gradients and step both optimizers."""
        network = self[NETWORK]
        if not isinstance(network, AmpOptimWrapper):
            for wrapper in self.values():
                wrapper.step(**kwargs)
            return
        if self.is_sharded:
            # Clips nothing: it gives the largest gradient, without a wait for a GPU.
            largest = torch.nn.utils.clip_grad_norm_(_parameters(network), math.inf, math.inf)
            for weight in _parameters(self[CLASS_WEIGHTS]):
                if weight.grad is not None:
                    weight.grad.masked_fill_(~largest.isfinite(), torch.nan)
        # AmpOptimWrapper.step would update the common scale twice.
        for wrapper in self.values():
            if wrapper.clip_grad_kwargs:
                network.loss_scaler.unscale_(wrapper.optimizer)
                clip_gradients(wrapper)
            network.loss_scaler.step(wrapper.optimizer, **kwargs)
        update_scale(network)

    def zero_grad(self, **kwargs: Any) -> None:
        """Clear the gradients of both."""
        for wrapper in self.values():
            wrapper.zero_grad(**kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The network's: mixed precision, and no all-reduce while gradients are accumulated."""
        with self[NETWORK].optim_context(model):
            yield

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        """Tell both how many iterations there are."""
        for wrapper in self.values():
            wrapper.initialize_count_status(model, init_counts, max_counts)

    def load_state_dict(self, state_dict: dict) -> None:
        """Continue both optimizers.

        Raises:
            ValueError: If the checkpoint is of a training with one optimizer.
        """
        if set(state_dict) != set(self.keys()):
            raise ValueError(
                'the checkpoint is of a training with one optimizer for network and class weights, '
                'and this run has two: leave class_weights_optimizer out of optim_wrapper as that '
                'training did, or start a new one from its network with load_from.')
        super().load_state_dict(state_dict)


def _parameters(wrapper: OptimWrapper) -> list[nn.Parameter]:
    return [parameter for group in wrapper.optimizer.param_groups for parameter in group['params']]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PICOptimWrapperConstructor:
    """Builds a :class:`PICOptimWrapper` from a config with one line more than usual.

    ``optimizer``, ``paramwise_cfg`` and everything else of ``optim_wrapper`` are the network's::

        optim_wrapper = dict(
            constructor='PICOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
            class_weights_optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4))

    Args:
        optim_wrapper_cfg (dict): The config, without ``constructor`` and ``paramwise_cfg``. Beside
            ``class_weights_optimizer``, ``network_constructor`` may name the constructor of the
            network's wrapper, for instance mmpretrain's
            ``'LearningRateDecayOptimWrapperConstructor'``; it defaults to mmengine's.
        paramwise_cfg (dict, optional): For the network's constructor. Defaults to None.

    Raises:
        ValueError: If the config has no ``class_weights_optimizer``, or asks for a wrapper that
            scales losses in a way of its own.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        cfg = copy.deepcopy(dict(optim_wrapper_cfg))
        if 'class_weights_optimizer' not in cfg:
            raise ValueError(
                'PICOptimWrapperConstructor needs a second optimizer: write optim_wrapper='
                "dict(..., class_weights_optimizer=dict(type='SGD', lr=...)), or leave the "
                'constructor out for one optimizer of network and class weights.')
        if type_name(cfg) == 'ApexOptimWrapper':
            raise ValueError('ApexOptimWrapper scales the loss of one optimizer: with '
                             "class_weights_optimizer, write type='AmpOptimWrapper'.")
        self.class_weights_optimizer = cfg.pop('class_weights_optimizer')
        self.network_constructor = cfg.pop('network_constructor', 'DefaultOptimWrapperConstructor')
        self.cfg, self.paramwise_cfg = cfg, paramwise_cfg

    def __call__(self, model: nn.Module) -> PICOptimWrapper:
        """Build both optimizers and their wrappers.

        Raises:
            ValueError: If the model has not exactly one :class:`PICHead`, or ``paramwise_cfg`` says
                something of it alone.
        """
        weight = find_head(model, 'PICOptimWrapperConstructor').weight
        for key in (self.paramwise_cfg or {}).get('custom_keys', {}):
            # A key is for all parameters in whose names it is found.
            meant = [one for name, one in model.named_parameters() if key in name]
            if len(meant) == 1 and meant[0] is weight:
                raise ValueError(
                    f'paramwise_cfg has a custom key {key!r} that no parameter has but the class '
                    'weights, which class_weights_optimizer trains: give their learning rate and '
                    'weight decay there.')
        network = OPTIM_WRAPPER_CONSTRUCTORS.build(
            dict(type=self.network_constructor, optim_wrapper_cfg=copy.deepcopy(self.cfg),
                 paramwise_cfg=self.paramwise_cfg))(model)
        groups = network.optimizer.param_groups
        for group in groups:
            group['params'] = [one for one in group['params'] if one is not weight]
        groups[:] = [group for group in groups if group['params']]
        cfg = copy.deepcopy(self.cfg)
        cfg.setdefault('type', 'OptimWrapper')
        cfg['optimizer'] = OPTIMIZERS.build(dict(self.class_weights_optimizer, params=[weight]))
        return PICOptimWrapper(network, OPTIM_WRAPPERS.build(cfg))
