# SPDX-License-Identifier: Apache-2.0
"""ResNet-50 on ImageNet-1K, 200 epochs, multi-crop: the authors' best setting.

One crop of 160x160 pixels and three of 96x96, which show smaller parts. The losses of all four
are averaged; only the large one trains the class weights.
"""
_base_ = 'pic_resnet50_4xb64-coslr-200e_in1k.py'

# SimCLR's colours, twice as strong as those of the single view.
strong_jitter = dict(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, prob=0.8)
after_crop = dict(
    jitter=strong_jitter, grey=0.2, blur=dict(sigma=(0.1, 2.0), prob=0.5), flip=0.5)
model = dict(
    num_update_views=1,
    data_preprocessor=dict(
        # The views that train the class weights come first.
        views=[dict(size=160, **after_crop), dict(size=96, num_views=3, **after_crop)]))

train_pipeline = [
    # All crops of an image from one decoding.
    dict(
        type='DecodeRandomCrop',
        crops=[
            dict(size=160, scale=(0.14, 1.0)),
            dict(size=96, scale=(0.08, 0.14), num_views=3),
        ]),
    dict(type='PackInputs', meta_keys=('sample_idx', )),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
