# SPDX-License-Identifier: Apache-2.0
"""Stops a supervised training or test whose labels do not fit the classifier, at its beginning."""
from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmpretrain.utils import get_ori_model


@HOOKS.register_module()
class CheckLabelsHook(Hook):
    """Compare the labels of the training and validation data with the head's classes.

    On a GPU a label that the classifier does not have ends in "device-side assert triggered", in
    validation it only counts as an error, and where labels are the places of folders, a folder that
    one split lacks shifts all labels after it without a word.
    """

    def before_train(self, runner: Any) -> None:
        """Look at all labels of both data sets; no image is read.

        Raises:
            ValueError: If a data set has no images, no labels, or labels out of range, or the
                classes of the two differ.
        """
        datasets = [runner.train_dataloader.dataset]
        if runner.val_loop is not None:
            datasets.append(runner.val_dataloader.dataset)
        for dataset in datasets:
            _check_labels(dataset, _num_classes(runner))
        first, *others = [dataset.metainfo.get('classes') for dataset in datasets]
        for dataset, classes in zip(datasets[1:], others):
            if first and classes and tuple(first) != tuple(classes):
                raise ValueError(
                    f'{_source(datasets[0])} and {_source(dataset)} do not have the same classes '
                    f'in the same order ({len(first)} and {len(classes)} of them; in only one of '
                    f'the two: {sorted(set(first) ^ set(classes))[:3]}), so that labels differ in '
                    'meaning: give both the same folders.')

    def before_test(self, runner: Any) -> None:
        """Look at all labels of the test data.

        Raises:
            ValueError: If the data set has no images, no labels, or labels out of range.
        """
        _check_labels(runner.test_dataloader.dataset, _num_classes(runner))


def _num_classes(runner: Any) -> int:
    model: Any = get_ori_model(runner.model)
    return model.head.num_classes


def _source(dataset: Any) -> str:
    """Annotation file of a data set, or folder of its images."""
    return str(getattr(dataset, 'ann_file', '') or getattr(dataset, 'img_prefix', '')
               or type(dataset).__name__)


def _check_labels(dataset: Any, num_classes: int) -> None:
    if not len(dataset):
        raise ValueError(f'{_source(dataset)} lists no images: check data_root, data_prefix and '
                         'ann_file.')
    labels = [_label(dataset.get_data_info(i)) for i in range(len(dataset))]
    unlabelled = next((i for i, label in enumerate(labels) if label is None), None)
    if unlabelled is not None:
        raise ValueError(f'{_image(dataset, unlabelled)} has no label: use a data set with labels, '
                         'for CustomDataset folders by class or an annotation file, and '
                         'with_label=True.')
    wrong = np.flatnonzero((np.array(labels) < 0) | (np.array(labels) >= num_classes))
    if len(wrong):
        raise ValueError(
            f'{_image(dataset, int(wrong[0]))} has label {labels[wrong[0]]}, and the classifier '
            f'takes 0 to {num_classes - 1} ({len(wrong)} of {len(labels)} labels are out of '
            'range): mend the file or the folders, or set model.head.num_classes.')


def _label(info: dict) -> int | None:
    label = info.get('gt_label')
    return None if label is None else int(label)


def _image(dataset: Any, index: int) -> str:
    return f'{_source(dataset)}: {dataset.get_data_info(index).get("img_path", f"image {index}")}'
