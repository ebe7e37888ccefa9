# SPDX-License-Identifier: Apache-2.0
"""The paper's Table 1: augmentation, projection and softmax."""
_view = [
    dict(type='NumpyToPIL', to_rgb=True),
    # What supervised trainings on CIFAR-10 use.
    dict(type='torchvision/RandomCrop', size=32, padding=4),
    dict(type='PILToNumpy', to_bgr=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs', meta_keys=('sample_idx', 'reference')),
]
title = 'Augmentation, projection and softmax (paper, Table 1)'
caption = ('5,000 CIFAR-10 images, ResNet-18 of a quarter width, 60,000 images seen. Weak '
           'augmentation: shift by up to 4 pixels, and flip; strong: crop, flip, colour jitter, '
           'grey. All other tables have the MLP with BatchNorm. The plain softmax takes products '
           'of features with class weights, neither of unit length, at temperature 1.')
options = dict(config='pic_cifar10-5k.py', images=60000)
factors = {
    'augmentation': {
        'weak': {'train_dataloader.dataset.pipeline': _view},
        'strong': {},
    },
    'projection': {
        'linear': {
            'model.neck': dict(_delete_=True, type='LinearNeck', in_channels=128, out_channels=128,
                               gap_dim=2, norm_cfg=None)},
        'MLP': {
            'model.neck': dict(_delete_=True, type='MoCoV2Neck', in_channels=128, hid_channels=512,
                               out_channels=128)},
        'MLP with BatchNorm': {},
    },
    'softmax': {
        'plain': {'model.head.loss': dict(_delete_=True, type='PlainSoftmaxLoss')},
        'cosine': {},
    },
}
# What BatchNorm within the projection does is looked at for one augmentation.
leave_out = [{'augmentation': 'weak', 'projection': 'MLP'}]
metrics = dict(knn20='kNN, k = 20', knn200='kNN, k = 200', linear='linear')
figure = dict(x='softmax', y='knn20')
