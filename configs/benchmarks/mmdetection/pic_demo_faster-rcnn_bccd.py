# SPDX-License-Identifier: Apache-2.0
"""The detector of pic_demo_faster-rcnn_scenes.py on photos of blood cells, in Pascal VOC layout.

364 microscope photos with 4,888 boxes (github.com/Shenggan/BCCD_Dataset) in ``data/bccd``, trained
on trainval (292) and evaluated on test (72), at a quarter of their size: cells are then as large as
the objects of pre-training.
"""
_base_ = './pic_demo_faster-rcnn_scenes.py'

data_root = 'data/bccd/'
classes = ('RBC', 'WBC', 'Platelets')

model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='ImageSets/Main/trainval.txt',
        # Some boxes are empty, and would make the loss nan.
        filter_cfg=dict(bbox_min_size=4),
        metainfo=dict(classes=classes)))
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='ImageSets/Main/test.txt',
        metainfo=dict(classes=classes)))
test_dataloader = val_dataloader
