# SPDX-License-Identifier: Apache-2.0
"""Measures of the features while they are trained, beside the loss in the log."""
from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from mmpretrain.utils import get_ori_model
from torch import Tensor, nn

from pic_plugin.engine.head_setup import find_head
from pic_plugin.engine.row_statistics import is_time_to_log
from pic_plugin.engine.runner_private import resumes
from pic_plugin.models.feature_measures import alignment, effective_rank, uniformity
from pic_plugin.models.pic_head import instance_ids
from pic_plugin.models.pooling import pooled

KEY = 'pic_online_probe'


@HOOKS.register_module()
class OnlineMeasuresHook(Hook):
    """Effective rank, alignment and uniformity of the features and, with labels, a linear probe.

    Looks at the features of the first view as training computes them, so that it costs no pass of
    its own: collapse, or a bad learning rate, shows long before an evaluation. In the log, as
    ``train/...``:

    - ``effective_rank`` of the backbone's features (RankMe), over the last ``num_samples`` images;
    - ``alignment`` of projected features with their class weights, and their ``uniformity``, over
      the batch; alignment is left out where class weights are sharded;
    - ``probe_acc``, percent: accuracy of a linear classifier on detached features, on each batch
      before it is trained with it. Its gradient does not reach the network.

    Training is the same, to the bit, with the hook and without. With several processes each looks
    at its own images, and the first one logs.

    Args:
        num_classes (int, optional): Labels of the training data (``gt_label``). Defaults to None:
            no probe.
        num_samples (int): Images for the effective rank. Defaults to 512.
        interval (int, optional): Iterations between two computations. Defaults to None: the
            LoggerHook's interval.
        probe_lr (float): Learning rate of the probe, SGD with momentum 0.9 on standardised
            features. Defaults to 0.1.

    Raises:
        ValueError: If a size is not positive, or ``num_classes`` is given and the data have no
            labels, or others.
    """

    priority = 'BELOW_NORMAL'  # before the LoggerHook, which has the same: hooks keep their order

    def __init__(self, num_classes: int | None = None, num_samples: int = 512,
                 interval: int | None = None, probe_lr: float = 0.1) -> None:
        for name, value in (('num_classes', num_classes), ('num_samples', num_samples),
                            ('interval', interval)):
            if value is not None and value < 1:
                raise ValueError(f'{name} must be at least 1, not {value}.')
        self.num_classes, self.num_samples = num_classes, num_samples
        self.interval, self.probe_lr = interval, probe_lr
        self._handles: list[Any] = []
        self._seen: dict[str, Tensor] = {}
        self._recent: list[Tensor] = []
        self._saved_probe: dict | None = None
        self.probe: OnlineProbe | None = None

    def before_train(self, runner: Runner) -> None:
        """Listen to backbone and neck."""
        model: Any = get_ori_model(runner.model)
        self.head = find_head(model)
        for name in ('backbone', 'neck'):
            self._handles.append(getattr(model, name).register_forward_hook(self._keep(name)))

    def _keep(self, name: str) -> Any:

        def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
            if module.training and name not in self._seen:  # the first view
                self._seen[name] = pooled(outputs).detach().float()

        return hook

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch: dict | None = None) -> None:
        """Forget the last batch."""
        self._seen.clear()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Train the probe; now and then compute the rest."""
        assert data_batch is not None, 'the train loop passes it'
        if not self._seen:
            return  # a batch that was left out
        samples, features = data_batch['data_samples'], self._seen['backbone']
        self._recent.append(features)
        while sum(map(len, self._recent[1:])) >= self.num_samples:
            self._recent.pop(0)
        scalars: dict[str, float] = {}
        if self.num_classes is not None:
            scalars['probe_acc'] = self._train_probe(features, samples, self.num_classes)
        if is_time_to_log(self, runner, batch_idx, self.interval):
            scalars['effective_rank'] = effective_rank(
                torch.cat(self._recent)[-self.num_samples:])
            if len(samples) > 1:
                scalars['uniformity'] = uniformity(self._seen['neck'])
            if not self.head.slots.is_sharded:
                scalars['alignment'] = alignment(self._seen['neck'],
                                                 self.head.class_weights(instance_ids(samples)))
        for name, value in scalars.items():
            runner.message_hub.update_scalar(f'train/{name}', value)

    def _train_probe(self, features: Tensor, samples: list[Any], num_classes: int) -> float:
        if not all(hasattr(sample, 'gt_label') for sample in samples):
            raise ValueError(
                'OnlineMeasuresHook(num_classes=...) needs labels of the training images: let the '
                'data set read them (with_label=True), or leave num_classes out.')
        labels = torch.cat([sample.gt_label.view(-1)[:1] for sample in samples])
        if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
            raise ValueError(f'labels {int(labels.min())} to {int(labels.max())} do not fit '
                             f'OnlineMeasuresHook(num_classes={num_classes}).')
        if self.probe is None:
            self.probe = OnlineProbe(features.shape[1], num_classes, self.probe_lr,
                                     features.device)
            if self._saved_probe is not None:
                self.probe.load_state_dict(self._saved_probe)
        return self.probe.step(features, labels.to(features.device))

    def after_train(self, runner: Runner) -> None:
        """Listen no longer."""
        while self._handles:
            self._handles.pop().remove()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the probe."""
        if self.probe is not None:
            checkpoint[KEY] = self.probe.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Go on with the saved probe, if the training goes on."""
        if resumes(runner):
            self._saved_probe = checkpoint.get(KEY)


class OnlineProbe:
    """A linear classifier on standardised features that cannot train what gave them.

    It starts at zero, so that no random number is drawn.

    Args:
        num_features (int): C.
        num_classes (int): Classes.
        lr (float): Learning rate of SGD with momentum 0.9.
        device (torch.device): Of the features.
    """

    def __init__(self, num_features: int, num_classes: int, lr: float,
                 device: torch.device) -> None:
        self.norm = nn.BatchNorm1d(num_features, affine=False).to(device)
        self.weight = torch.zeros(num_classes, num_features, device=device, requires_grad=True)
        self.bias = torch.zeros(num_classes, device=device, requires_grad=True)
        self.optimizer = torch.optim.SGD([self.weight, self.bias], lr=lr, momentum=0.9)

    def step(self, features: Tensor, labels: Tensor) -> float:
        """Classify a batch, then train with it.

        Args:
            features (Tensor): (B, C); its graph, if it has one, is not followed.
            labels (Tensor): (B,) int64.

        Returns:
            float: Accuracy before the training step, percent.
        """
        with torch.enable_grad():
            inputs = features.detach().float()
            # One image has no spread to be divided by.
            self.norm.train(len(inputs) > 1)
            scores = F.linear(self.norm(inputs), self.weight, self.bias)
            loss = F.cross_entropy(scores, labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return 100 * float((scores.detach().argmax(dim=1) == labels).float().mean())

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers."""
        return dict(norm=dict(self.norm.state_dict()), weight=self.weight.detach(),
                    bias=self.bias.detach(), optimizer=self.optimizer.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from another probe.

        Raises:
            ValueError: If it has other classes or features.
        """
        if state['weight'].shape != self.weight.shape:
            raise ValueError(
                f'the saved probe is of shape {tuple(state["weight"].shape)}, (classes, features), '
                f'and this run needs {tuple(self.weight.shape)}: set '
                'OnlineMeasuresHook(num_classes=...) as it was.')
        self.norm.load_state_dict(state['norm'])
        with torch.no_grad():
            self.weight.copy_(state['weight'])
            self.bias.copy_(state['bias'])
        self.optimizer.load_state_dict(state['optimizer'])
