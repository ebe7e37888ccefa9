# SPDX-License-Identifier: Apache-2.0
"""iNaturalist 2018 as its archives unpack; mmpretrain has no data set for it."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS


@DATASETS.register_module()
class INaturalist2018(BaseDataset):
    """Images and labels of one of the competition's JSON files.

    The folder has, for example, ``train2018.json`` and ``train_val2018/Aves/2761/NAME.jpg``. The
    file lists ``images`` (``id``,
    ``file_name``, relative to the folder) and ``annotations`` (``image_id``, ``category_id``, the
    label, 0 to 8141). Labels are the file's: training and validation have the same 8,142.

    Args:
        data_root (str): The folder.
        ann_file (str): The JSON file in it.
        pipeline (Sequence): Transforms, from one that loads ``img_path``.
        num_classes (int): Labels must be below it. Defaults to 8142.
        **kwargs: Those of mmpretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not of this form, or an image has no label or one out of
            range.
    """

    def __init__(self, data_root: str, ann_file: str, pipeline: Any = (), num_classes: int = 8142,
                 **kwargs: Any) -> None:
        self.num_classes = num_classes
        super().__init__(ann_file=ann_file, data_root=data_root, pipeline=pipeline, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Paths and labels, in the order of the file."""
        file = Path(self.ann_file)
        if not file.is_file():
            raise FileNotFoundError(f'there is no {file}: unpack train2018.json.tar.gz and '
                                    'val2018.json.tar.gz of iNaturalist 2018 into data_root.')
        try:
            content = json.loads(file.read_text(encoding='utf-8'))
            labels = {entry['image_id']: int(entry['category_id'])
                      for entry in content['annotations']}
            paths = [str(Path(self.data_root, image['file_name'])) for image in content['images']]
            own = [labels[image['id']] for image in content['images']]
        except KeyError as error:
            raise ValueError(f'{file} has no {error}: a file of iNaturalist 2018 has images with '
                             'id and file_name, and annotations with image_id and category_id for '
                             'all of them (test2018.json has none).') from error
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(f'{file} is not an annotation file of iNaturalist 2018: '
                             f'{error}.') from error
        for path, label in zip(paths, own):
            if not 0 <= label < self.num_classes:
                raise ValueError(f'{file}: {path} has label {label}, outside of 0 to '
                                 f'{self.num_classes - 1}: give num_classes, here and in the '
                                 "model's head.")
        return [dict(img_path=path, gt_label=label) for path, label in zip(paths, own)]
