# SPDX-License-Identifier: Apache-2.0
"""ResNet-50 on ImageNet-1K, 200 epochs, multi-crop: the authors' best setting.

One crop of 160x160 pixels and three of 96x96, which show smaller parts. The losses of all four
are averaged; only the large one trains the class weights.
"""
_base_ = 'pic_resnet50_4xb64-coslr-200e_in1k.py'

model = dict(num_update_views=1)

# SimCLR's colours, twice as strong as those of the single view.
after_crop = [
    dict(
        type='RandomApply',
        prob=0.8,
        transforms=[
            dict(
                type='torchvision/ColorJitter',
                brightness=0.8,
                contrast=0.8,
                saturation=0.8,
                hue=0.2)
        ]),
    dict(type='torchvision/RandomGrayscale', p=0.2),
    dict(type='PILToNumpy', to_bgr=True),
    dict(type='GaussianBlur', magnitude_range=(0.1, 2.0), magnitude_std='inf', prob=0.5),
    dict(type='RandomFlip', prob=0.5),
]
train_pipeline = [
    dict(type='LoadImageOrSkip'),
    dict(type='NumpyToPIL', to_rgb=True),
    dict(
        type='MultiView',
        # The views that train the class weights come first.
        num_views=[1, 3],
        transforms=[
            [dict(type='torchvision/RandomResizedCrop', size=160, scale=(0.14, 1.0)), *after_crop],
            [dict(type='torchvision/RandomResizedCrop', size=96, scale=(0.08, 0.14)), *after_crop],
        ]),
    dict(type='PackInputs', meta_keys=('sample_idx', )),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
