# SPDX-License-Identifier: Apache-2.0
"""PIC: every training image is its own class."""
from __future__ import annotations

from typing import Any

import torch
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from .loss_check import LossCheck
from .neck_channels import last_of, project, with_in_channels
from .pic_head import PICHead
from .pooling import pooled


@MODELS.register_module()
class PIC(BaseSelfSupervisor):
    """Parametric Instance Classification.

    Implementation of `Parametric Instance Classification for Unsupervised Visual Feature Learning
    <https://arxiv.org/abs/2006.14618>`_: one network, one view of an image is enough, and a cosine
    softmax over instance classes.

    Args:
        backbone (dict | nn.Module): Any classifier backbone.
        neck (dict | nn.Module): Projection, from backbone features to (B, d). A config with
            ``in_channels=None`` takes them from the backbone.
        head (dict | nn.Module): A :class:`PICHead`.
        num_update_views (int): Views that train the class weights; the others, small crops, train
            the network alone (paper, multi-crop). Defaults to 1.
        pretrained (str, optional): Checkpoint with names that begin with ``backbone.``, from which
            the backbone starts; ``CheckPretrainedHook`` asks that it takes every weight. Defaults
            to None.
        data_preprocessor (dict | nn.Module, optional): Defaults to mmpretrain's
            ``SelfSupDataPreprocessor``.
        init_cfg (dict, optional): mmengine's. Defaults to None.

    Raises:
        ValueError: If ``num_update_views`` is not positive, or ``neck`` is None.
    """

    def __init__(self,
                 backbone: dict | nn.Module,
                 neck: dict | nn.Module,
                 head: dict | nn.Module,
                 num_update_views: int = 1,
                 pretrained: str | None = None,
                 data_preprocessor: dict | nn.Module | None = None,
                 init_cfg: dict | list[dict] | None = None) -> None:
        if not isinstance(num_update_views, int) or num_update_views < 1:
            raise ValueError('num_update_views must be an integer of at least 1, not '
                             f'{num_update_views!r}: class weights that no view trains stay noise.')
        if neck is None:
            raise ValueError('neck=None: a neck gives the head one vector of each image. Without a '
                             "projection, write neck=dict(type='GlobalAveragePooling') for maps, "
                             "and for feat_dim of the head the backbone's channels.")
        backbone, neck = with_in_channels(backbone, neck)
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg)
        if pretrained is not None:
            # Not the whole model: class weights belong to the images of that training.
            self.backbone.init_cfg = dict(
                type='Pretrained', checkpoint=pretrained, prefix='backbone.')
        self.num_update_views = num_update_views
        self.loss_check = LossCheck(self)
        if getattr(self.data_preprocessor, 'channels_last', False):
            # Once, or each step would bring the weights into the format of the images.
            self.to(memory_format=torch.channels_last)
        if isinstance(self.head, PICHead) and self.head.slots.is_sharded:
            # DistributedDataParallel would broadcast one process's shard to all, and average them.
            self._ddp_params_and_buffers_to_ignore = ['head.weight']

    def forward(self,
                inputs: Tensor | list[Tensor],
                data_samples: list[DataSample] | None = None,
                mode: str = 'tensor') -> Any:
        """Features ('tensor'), losses ('loss') or samples with pooled features ('predict')."""
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return super().forward(inputs, data_samples, mode)

    def loss(self, inputs: Tensor | list[Tensor],
             data_samples: list[DataSample]) -> dict[str, Tensor]:
        """Mean loss of the views.

        Args:
            inputs (Tensor | list[Tensor]): One view (B, 3, H, W), or several of any sizes.
            data_samples (list[DataSample]): B samples with ``sample_idx``.

        Returns:
            dict[str, Tensor]: ``loss``, and ``instance_acc`` of the first view, percent.

        Raises:
            FloatingPointError: If the loss is not finite. The parameters are still those of the
                step before, except on a GPU, where it is found in the next step.
        """
        views = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        outputs, passed = [], {}
        for i, view in enumerate(views):
            features = self.backbone(view)
            if isinstance(last_of(features), (tuple, list)):
                features = (pooled(features), )  # necks take one feature of an image, not a pair
            projected = project(self.neck, features)  # ((B, d),)
            outputs.append(self.head.loss(projected, data_samples,
                                          train_weights=i < self.num_update_views))
            passed[f'pixels of view {i}'] = view
            passed[f'backbone features of view {i}'] = last_of(features)
            passed[f'projected features of view {i}'] = last_of(projected)
        loss = outputs[0]['loss']
        if len(outputs) > 1:
            loss = torch.stack([output['loss'] for output in outputs]).mean()
        self.loss_check.look(loss, passed, self.head.bank.step)
        return dict(outputs[0], loss=loss)

    @torch.no_grad()
    def predict(self, inputs: Tensor | list[Tensor],
                data_samples: list[DataSample] | None = None) -> list[DataSample]:
        """Pooled backbone features, for evaluation.

        Args:
            inputs (Tensor | list[Tensor]): (B, 3, H, W), or a list whose first view is used.
            data_samples (list[DataSample], optional): B samples to add to.

        Returns:
            list[DataSample]: The samples with ``feat``: (C,) float32.
        """
        view = inputs[0] if isinstance(inputs, (list, tuple)) else inputs
        features = pooled(self.extract_feat(view))
        samples = data_samples or [DataSample() for _ in features]
        for sample, feature in zip(samples, features.float()):
            sample.set_field(feature, 'feat')
        return samples
