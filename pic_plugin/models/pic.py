# SPDX-License-Identifier: Apache-2.0
"""PIC: every training image is its own class."""
from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

import torch
from mmengine.logging import MessageHub
from mmpretrain.models import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from .neck_channels import project, with_in_channels
from .pic_head import PICHead


class _Pass(NamedTuple):
    """What one view became on its way to the loss."""

    view: Tensor  # (B, 3, H, W)
    features: Tensor  # last stage of the backbone
    projected: Tensor  # (B, d)


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
        pretrained (str, optional): Checkpoint to start from. Defaults to None.
        data_preprocessor (dict | nn.Module, optional): Defaults to mmpretrain's
            ``SelfSupDataPreprocessor``.
        init_cfg (dict, optional): mmengine's. Defaults to None.

    Raises:
        ValueError: If ``num_update_views`` is not positive.
    """

    def __init__(self,
                 backbone: Union[dict, nn.Module],
                 neck: Union[dict, nn.Module],
                 head: Union[dict, nn.Module],
                 num_update_views: int = 1,
                 pretrained: Optional[str] = None,
                 data_preprocessor: Optional[Union[dict, nn.Module]] = None,
                 init_cfg: Optional[Union[dict, List[dict]]] = None) -> None:
        if not isinstance(num_update_views, int) or num_update_views < 1:
            raise ValueError('num_update_views must be an integer of at least 1, not '
                             f'{num_update_views!r}: class weights that no view trains stay noise.')
        backbone, neck = with_in_channels(backbone, neck)
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            pretrained=pretrained,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg)
        self.num_update_views = num_update_views
        if isinstance(self.head, PICHead) and self.head.slots.is_sharded:
            # DistributedDataParallel would broadcast one process's shard to all, and average them.
            self._ddp_params_and_buffers_to_ignore = ['head.weight']

    def forward(self,
                inputs: Union[Tensor, List[Tensor]],
                data_samples: Optional[List[DataSample]] = None,
                mode: str = 'tensor') -> Any:
        """Features ('tensor'), losses ('loss') or samples with pooled features ('predict')."""
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return super().forward(inputs, data_samples, mode)

    def loss(self, inputs: Union[Tensor, List[Tensor]],
             data_samples: List[DataSample]) -> Dict[str, Tensor]:
        """Mean loss of the views.

        Args:
            inputs (Tensor | list[Tensor]): One view (B, 3, H, W), or several of any sizes.
            data_samples (list[DataSample]): B samples with ``sample_idx``.

        Returns:
            dict[str, Tensor]: ``loss``, and ``instance_acc`` of the first view, percent.

        Raises:
            FloatingPointError: If the loss is not finite. The parameters are still those of the
                step before.
        """
        views = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        passes, outputs = [], []
        for i, view in enumerate(views):
            features = self.backbone(view)
            projected = project(self.neck, features)  # ((B, d),)
            outputs.append(self.head.loss(projected, data_samples,
                                          train_weights=i < self.num_update_views))
            passes.append(_Pass(view, _last(features), _last(projected)))
        loss = torch.stack([output['loss'] for output in outputs]).mean()
        if not torch.isfinite(loss):
            raise FloatingPointError(self._diagnose(passes))
        return dict(outputs[0], loss=loss)

    @torch.no_grad()
    def predict(self, inputs: Union[Tensor, List[Tensor]],
                data_samples: Optional[List[DataSample]] = None) -> List[DataSample]:
        """Pooled backbone features, for evaluation.

        Args:
            inputs (Tensor | list[Tensor]): (B, 3, H, W), or a list whose first view is used.
            data_samples (list[DataSample], optional): B samples to add to.

        Returns:
            list[DataSample]: The samples with ``feat``: (C,) float32.
        """
        view = inputs[0] if isinstance(inputs, (list, tuple)) else inputs
        features = _last(self.extract_feat(view))
        if features.dim() == 4:
            features = features.mean(dim=(2, 3))
        samples = data_samples or [DataSample() for _ in features]
        for sample, feature in zip(samples, features.float()):
            sample.set_field(feature, 'feat')
        return samples

    def _diagnose(self, passes: List[_Pass]) -> str:
        """Say where the numbers stopped being finite."""
        parts = []
        for i, one in enumerate(passes):
            for name, tensor in (('pixels', one.view), ('backbone features', one.features),
                                 ('projected features', one.projected)):
                if not torch.isfinite(tensor).all():
                    parts.append(f'{name} of view {i}')
        parts += [f'parameter {name}' for name, parameter in self.named_parameters()
                  if not torch.isfinite(parameter).all()]
        iteration = MessageHub.get_current_instance().runtime_info.get('iter')
        where = '' if iteration is None else f'iteration {iteration + 1}, '
        return (f'the loss is not finite at {where}optimizer step {self.head.bank.step + 1}. Not '
                f'finite: {", ".join(parts) or "only the loss itself"}. Nothing of this step was '
                'applied or saved. If parameters are listed, an earlier step broke them: resume '
                'from the last checkpoint with a lower learning rate or clip_grad; if only '
                'features are, half precision overflowed in the backbone: use bfloat16 or float32.')


def _last(outputs: Union[Tensor, Tuple[Tensor, ...]]) -> Tensor:
    return outputs[-1] if isinstance(outputs, (tuple, list)) else outputs
