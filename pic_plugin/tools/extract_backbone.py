# SPDX-License-Identifier: Apache-2.0
"""Take the backbone out of a PIC checkpoint, for OpenMMLab, torchvision or timm.

    mim run pic_plugin extract_backbone epoch_200.pth pic_resnet50.pth --format openmmlab
    python -m pic_plugin.tools.extract_backbone epoch_200.pth pic_resnet50.pth --format timm

writes ``pic_resnet50-xxxxxxxx.pth`` (x: from the file's SHA-256) with entries ``state_dict`` and
``meta``, plain tensors and values, and prints ``loaded n of n`` for the network that took them.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence

from pic_plugin.analysis.plain_lines import torchvision_lines
from pic_plugin.command_line import explained_errors
from pic_plugin.engine.checkpoint.foreign_checkpoint import (
    backbone_of,
    check_finite,
    find_checkpoint,
    read_checkpoint,
    say_which,
    weights_of,
)
from pic_plugin.engine.config_file import read_config
from pic_plugin.transfer.export import (
    FORMATS,
    backbone_config,
    export_backbone,
    file_content,
    read_training,
    write_with_hash,
)

USE = {
    'openmmlab': "init_cfg=dict(type='Pretrained', checkpoint='{file}', prefix='backbone.')",
    'timm': "timm.models.load_checkpoint(network, '{file}')",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        prog='extract_backbone', description='Take the backbone out of a PIC checkpoint.')
    parser.add_argument('checkpoint', help='file that a training or '
                        'convert_official wrote, or a work folder, for its newest')
    parser.add_argument('out', help='file to write; digits of its hash are added to the name')
    parser.add_argument('--format', choices=FORMATS, default='openmmlab', dest='form',
                        help='names of the weights; default: %(default)s')
    parser.add_argument('--config', help='config of the training, for a checkpoint that does not '
                        'hold it')
    parser.add_argument('--ema', action='store_true', default=None,
                        help='the averaged weights, where a file has both')
    args = parser.parse_args(argv)
    with explained_errors('extract_backbone'):
        checkpoint = find_checkpoint(args.checkpoint)
        content = read_checkpoint(checkpoint)
        weights = backbone_of(weights_of(content, checkpoint), checkpoint, args.ema)
        say_which(content, checkpoint, bool(args.ema), '' if args.ema else ' (the others: --ema)')
        check_finite(weights, checkpoint)
        training = read_training(content)
        if args.config is not None:
            config = read_config(args.config)
            model = config.to_dict().get('model') or {}
            training.update(cfg=config.pretty_text, backbone=model.get('backbone'),
                            data_preprocessor=model.get('data_preprocessor'))
        cfg = backbone_config(training, weights)
        export = export_backbone(weights, cfg, args.form)
        made = file_content(export, training, cfg, checkpoint, args.form)
        file = write_with_hash(made, args.out)
    if str(checkpoint) != args.checkpoint:
        print(f'newest checkpoint: {checkpoint}')
    print(f'{export.target}: loaded {export.num_loaded} of {len(weights)}')
    for check in export.checks:
        print(check)
    print(f'{file}: {file.stat().st_size} bytes')
    lines = (torchvision_lines(file, export.code, made) if args.form == 'torchvision' else
             [*export.code, USE[args.form].format(file=file)])
    print('use: ' + '\n     '.join(lines))


if __name__ == '__main__':
    main()
