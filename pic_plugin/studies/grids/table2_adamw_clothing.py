# SPDX-License-Identifier: Apache-2.0
"""The grid of table2_adamw.py on photos of clothes.

    python -m pic_plugin.tools.ablation run table2_adamw_clothing.py --data-root FOLDER
"""
_base_ = 'table2_adamw.py'

title = 'A ViT and a ConvNeXt on photos of clothes: negatives under AdamW, SGD, and DIET'
caption = ('3,068 photos of clothes (clothing-dataset-small), 48x48 pixels, 18,408 images seen; '
           '713 other photos (one standard error of an accuracy is about 1.8). The ViT has 6 '
           'layers of 128 channels and patches of 12x12 pixels, the ConvNeXt 12 blocks of 16 to '
           '128 channels. Random weights are those before training.')
# As many passes, and as many patches of a picture.
options = {'config': 'pic_clothing.py', 'images': 18408}
factors = {
    'network': {
        'ViT': {'model.backbone': dict(img_size=48, patch_size=12)},
        'ConvNeXt': {'model.backbone': dict(stem_patch_size=3)},
    },
    'method': {
        'random weights': {'images': 3068},
        'PIC, a tenth, corrected': {'model.head.num_negatives': 307},
        'PIC, a tenth, left as they were': {'model.head.num_negatives': 307},
        'DIET': {'model.head': dict(num_classes=3068)},
    },
}
