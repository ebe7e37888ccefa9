# SPDX-License-Identifier: Apache-2.0
"""A ViT and a ConvNeXt with AdamW: number of negatives, with and without the correction, and DIET.

Most systems that sample classes leave absent rows as they were under AdamW. Learning rates are
round numbers, not tuned.
"""
title = 'A ViT and a ConvNeXt: negatives under AdamW, SGD, and DIET'
caption = ('5,000 CIFAR-10 images, 30,000 images seen; 1,000 test images (one standard error of '
           'an accuracy is about 1.5). The ViT has 6 layers of 128 channels and patches of 8x8 '
           'pixels, the ConvNeXt 12 blocks of 16 to 128 channels. Random weights are those before '
           'training.')
_adamw = dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05)
options = {
    'config': 'pic_cifar10-5k.py',
    'images': 30000,
    # Two epochs of warm-up, and down to zero.
    'param_scheduler.0.end': 6,
    'param_scheduler.1.begin': 6,
    'param_scheduler.1.eta_min': 0.0,
    'optim_wrapper.optimizer': _adamw,
    'model.neck.in_channels': 128,
    'model.neck.with_avg_pool': False,
}
factors = {
    'network': {
        'ViT': {'model.backbone': dict(
            _delete_=True, type='VisionTransformer',
            arch=dict(embed_dims=128, num_layers=6, num_heads=4, feedforward_channels=512),
            img_size=32, patch_size=8, drop_path_rate=0.05, out_type='avg_featmap')},
        'ConvNeXt': {'model.backbone': dict(
            _delete_=True, type='ConvNeXt',
            arch=dict(depths=[2, 2, 6, 2], channels=[16, 32, 64, 128]), stem_patch_size=2,
            drop_path_rate=0.05)},
    },
    'method': {
        'random weights': {'images': 5000, 'optim_wrapper.optimizer.lr': 0.0,
                           'param_scheduler': []},
        'PIC, all classes': {},
        'PIC, a tenth, corrected': {'model.head.num_negatives': 500},
        'PIC, a tenth, left as they were': {
            'model.head.num_negatives': 500, 'model.head.correct_weights': False},
        'PIC, 128, corrected': {'model.head.num_negatives': 128},
        'PIC, 128, left as they were': {
            'model.head.num_negatives': 128, 'model.head.correct_weights': False},
        'PIC, all, SGD': {'optim_wrapper.optimizer': dict(
            _delete_=True, type='SGD', lr=0.1, momentum=0.9, weight_decay=5e-4)},
        'DIET': {
            'model.type': 'ImageClassifier',
            'model.neck': None,
            'model.data_preprocessor.type': 'ClsDataPreprocessor',
            'model.head': dict(
                _delete_=True, type='DIETHead', num_classes=5000, in_channels=128,
                loss=dict(type='LabelSmoothLoss', label_smooth_val=0.8, mode='original')),
            'custom_hooks': [],
            'train_dataloader.sampler': dict(
                _delete_=True, type='DefaultSampler', shuffle=True)},
    },
}
metrics = dict(knn20='kNN, k = 20', knn200='kNN, k = 200', linear='linear',
               ms_per_image='CPU ms an image')
figure = dict(x='method', y='knn20', line=False)
