# SPDX-License-Identifier: Apache-2.0
"""Read a checkpoint of any origin without running code of it, and find the backbone in it."""
from __future__ import annotations

import logging
import pickle
import types
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from .checkpoint_file import newest_checkpoint

StateDict = dict[str, Tensor]
# Put in front of a model's own names by DistributedDataParallel, torch.compile, and by averages of
# the weights that are stored as a model of their own.
WRAPPERS = ('module.', '_orig_mod.', 'model.')
AVERAGES = ('ema_model.', 'model_ema.', 'ema.')
# Where a state dict is in a file: mmengine's name, and the one of the authors' code.
ENTRIES = ('state_dict', 'model')
TRAINED = 'ema_state_dict'  # of mmengine's EMAHook, whose name says the opposite of what it holds
# Depth by whether blocks are bottlenecks, and how many each stage has.
RESNETS: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}


class _StandIn:
    """Takes the place of every object in a pickle that is not a tensor; does nothing."""

    dump_patches = False  # torch asks it of a class whose source is in a file older than torch 1.6

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> _StandIn:
        return _StandIn()

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Pickle's way to fill a list."""

    def extend(self, values: Any) -> None:
        """Pickle's way to fill a list."""


_HARMLESS = {
    ('collections', 'OrderedDict'),
    ('torch', 'Size'),
    ('torch._utils', '_rebuild_tensor'),
    ('torch._utils', '_rebuild_tensor_v2'),
    ('torch._utils', '_rebuild_parameter'),
    ('torch.serialization', '_get_layout'),
}


class _TensorsOnly(pickle.Unpickler):

    def find_class(self, module: str, name: str) -> Any:
        """The few functions that make tensors; anything else becomes a stand-in."""
        is_storage = module in ('torch', 'torch.storage') and name.endswith('Storage')
        if (module, name) in _HARMLESS or is_storage:
            return super().find_class(module, name)
        return _StandIn


def _load(file: Any, **options: Any) -> Any:
    return _TensorsOnly(file, **options).load()


def read_checkpoint(path: str | Path) -> dict:
    """Read a checkpoint on the CPU; no code in it is run.

    What torch's ``weights_only`` refuses (mmengine's histories, the ``argparse.Namespace`` of the
    authors' checkpoints) is replaced by empty objects, for any version of torch.

    Args:
        path (str | Path): File written by ``torch.save``.

    Returns:
        dict: Its content.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a checkpoint, or only a part of one.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'there is no checkpoint {path}.')
    try:
        try:
            content = torch.load(path, map_location='cpu', weights_only=True)
        except pickle.UnpicklingError:
            reader = types.ModuleType('tensors_only')
            # Torch reads files older than 1.6 with both.
            reader.__dict__.update(vars(pickle), Unpickler=_TensorsOnly, load=_load)
            content = torch.load(path, map_location='cpu', pickle_module=reader,
                                 weights_only=False)
    # A damaged file makes torch and pickle raise nearly anything.
    except Exception as error:
        # The first sentence: torch goes on to say what may have happened.
        reason = (str(error) or type(error).__name__).splitlines()[0].split('. ')[0]
        raise ValueError(
            f'{path} ({path.stat().st_size} bytes) is not a checkpoint, or only a part of one '
            f'({reason}): copy or download it again, and compare its size.') from error
    if not isinstance(content, dict):
        kind = 'pickled object' if isinstance(content, _StandIn) else type(content).__name__
        raise ValueError(f'{path} holds a {kind}, and no state dict: save model.state_dict(), not '
                         'the model.')
    return content


def find_checkpoint(checkpoint: str | Path) -> Path:
    """The file itself, or the newest of a work folder.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = Path(checkpoint).expanduser()
    if not path.is_dir():
        return path
    newest = newest_checkpoint(path)
    if newest is None:
        raise FileNotFoundError(f'{path} holds no epoch_N.pth or iter_N.pth: '
                                'name the file of a checkpoint.')
    return newest


def state_dict_of(content: dict, path: str | Path) -> StateDict:
    """The weights in the content of a file.

    Returns:
        dict[str, Tensor]: Names and tensors, as they are in the file.

    Raises:
        ValueError: If there are none.
    """
    for candidate in (*(content.get(name) for name in ENTRIES), content):
        if isinstance(candidate, dict):
            tensors = {name: value for name, value in candidate.items()
                       if isinstance(name, str) and isinstance(value, Tensor)}
            if tensors:
                return tensors
    raise ValueError(f'{path} holds no weights; its entries are {", ".join(map(str, content))}.')


def weights_of(content: dict, path: str | Path) -> StateDict:
    """The weights in the content of a file, trained and averaged ones by their names.

    mmengine's ``EMAHook`` puts the averages in the place of the trained weights and those into an
    entry of their own. Here trained weights have the plain names, and averages begin with
    ``ema_model.``, as :func:`unwrap` tells them apart.

    Returns:
        dict[str, Tensor]: As :func:`state_dict_of`, if the file has one kind of weights.

    Raises:
        ValueError: If there are none.
    """
    state = state_dict_of(content, path)
    trained = content.get(TRAINED)
    if not isinstance(trained, dict):
        return state
    plain = {name.removeprefix('module.'): value for name, value in trained.items()
             if isinstance(name, str) and name.startswith('module.') and isinstance(value, Tensor)}
    # What the average does not have, such as a sharded head, has no other place.
    return {**{f'{AVERAGES[0]}{name}': value for name, value in state.items()},
            **{name: value for name, value in state.items() if name not in plain}, **plain}


def say_which(content: dict, path: str | Path, averaged: bool, advice: str = '') -> None:
    """Log which weights are taken, of a file that has trained and averaged ones."""
    if isinstance(content.get(TRAINED), dict):
        print_log(f'{path} holds trained weights and their averages (EMAHook): taking the '
                  f'{"averages" if averaged else "trained ones"}{advice}.', logger='current',
                  level=logging.INFO)


def check_finite(state: StateDict, path: str | Path) -> None:
    """Refuse weights or BatchNorm statistics that diverged: all features would be NaN.

    Raises:
        ValueError: If one of them is NaN or infinite.
    """
    wrong = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if wrong:
        raise ValueError(f'{path} has {len(wrong)} of {len(state)} weights with values that are '
                         f'NaN or infinite ({wrong[0]} for one): its training diverged. Give an '
                         'earlier checkpoint.')


def differing(own: StateDict, given: StateDict) -> list[str]:
    """Names that one of two state dicts lacks or has with another shape, sorted."""
    shapes, others = ({name: value.shape for name, value in state.items()}
                      for state in (own, given))
    return sorted(name for name in {**shapes, **others} if shapes.get(name) != others.get(name))


def describe_differing(own: StateDict, saved: StateDict) -> str:
    """How many weights of a network and a file differ, and how one of them; '' if none does."""
    wrong = differing(own, saved)
    if not wrong:
        return ''
    network, file = (f'shape {tuple(state[wrong[0]].shape)}' if wrong[0] in state else 'absent'
                     for state in (own, saved))
    return (f'{len(wrong)} of {len(own)} weights differ, such as {wrong[0]} ({network} in the '
            f'network, {file} in the file)')


def unwrap(state: StateDict, ema: bool | None = None) -> StateDict:
    """Names without wrappers.

    Args:
        state (dict[str, Tensor]): Any names.
        ema (bool, optional): Whether to take the averaged weights. Defaults to None: the plain
            ones, or the averaged ones if there are no others.

    Returns:
        dict[str, Tensor]: Of one of the two kinds.
    """
    plain: StateDict = {}
    averaged: StateDict = {}
    for name, value in state.items():
        kind = plain
        while prefix := next((one for one in (*WRAPPERS, *AVERAGES) if name.startswith(one)), ''):
            kind = averaged if prefix in AVERAGES else kind
            name = name[len(prefix):]
        kind[name] = value
    if ema is None:
        ema = not any(name.startswith('backbone.') for name in plain) and bool(averaged)
    return averaged if ema else plain


def backbone_of(state: StateDict, path: str | Path, ema: bool | None = None) -> StateDict:
    """Weights of the backbone, without any prefix.

    Args:
        state (dict[str, Tensor]): From :func:`state_dict_of`.
        path (str | Path): For the message.
        ema (bool, optional): As in :func:`unwrap`.

    Returns:
        dict[str, Tensor]: Names as the backbone itself has them.

    Raises:
        ValueError: If there is no backbone.
    """
    names = unwrap(state, ema)
    found = {name.removeprefix('backbone.'): value for name, value in names.items()
             if name.startswith('backbone.')}
    if found:
        return found
    if ema:
        raise ValueError(f'{path} has no averaged weights of a backbone (names that begin with '
                         f'{" or ".join(AVERAGES)}): leave --ema out.')
    if any(name.startswith('encoder.conv1.') for name in names):  # a ResNet; not torchvision's ViT
        raise ValueError(f"{path} is a checkpoint of the authors' code: convert it first with "
                         '`python -m pic_plugin.tools.convert_official IN OUT`.')
    depth = resnet_depth(names)
    if depth is not None and 'conv1.weight' in names:
        raise ValueError(f'{path} holds the bare weights of a ResNet-{depth}, as the formats '
                         'torchvision and timm have them: give the checkpoint of PIC '
                         'pre-training, or what `python -m pic_plugin.tools.extract_backbone '
                         'CHECKPOINT OUT --format openmmlab` makes of it.')
    first_parts = list(dict.fromkeys(name.split('.')[0] for name in names))[:6]
    beginnings = ', '.join(f'{first}.*' for first in first_parts)
    raise ValueError(f'{path} has no backbone: no name begins with `backbone.` (there are '
                     f'{beginnings}). Give a checkpoint of PIC pre-training, epoch_N.pth, or what '
                     '`python -m pic_plugin.tools.extract_backbone CHECKPOINT OUT --format '
                     'openmmlab` makes of it.')


def resnet_depth(names: StateDict) -> int | None:
    """Depth of a ResNet by the names of its weights, or None if they are not a ResNet's."""
    blocks = tuple(
        len({name.split('.')[1] for name in names if name.startswith(f'layer{stage}.')})
        for stage in (1, 2, 3, 4))
    return RESNETS.get(('layer1.0.conv3.weight' in names, blocks))
