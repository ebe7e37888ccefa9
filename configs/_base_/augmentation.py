# SPDX-License-Identifier: Apache-2.0
"""The augmentation of all pre-training configs: SimCLR's, as MoCo v2 and the authors use it.

The loader decodes and crops (``DecodeRandomCrop``); what follows runs on the device, on whole
batches (docs/gpu.md).
"""
model = dict(
    data_preprocessor=dict(
        type='AugmentPreprocessor',
        # ImageNet's, of R, G and B.
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
        views=dict(
            jitter=dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, prob=0.8),
            grey=0.2,
            blur=dict(sigma=(0.1, 2.0), prob=0.5),
            flip=0.5)))
