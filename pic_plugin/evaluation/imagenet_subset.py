# SPDX-License-Identifier: Apache-2.0
"""Lists of labelled ImageNet images for semi-supervised evaluation: make, check, annotate."""
from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

EXTENSIONS = ('.jpeg', '.jpg', '.png')
NUM_CLASSES = 1000


def find_images(train: Path) -> dict[str, list[str]]:
    """Names of the images of each class.

    Args:
        train (Path): With a folder for each class.

    Returns:
        dict[str, list[str]]: By folder, both sorted.

    Raises:
        FileNotFoundError: If there is no such folder, or no folder in it.
        ValueError: If a class has no image.
    """
    folders = sorted(path for path in train.iterdir() if path.is_dir()) if train.is_dir() else []
    if not folders:
        raise FileNotFoundError(f'{train} must be a folder with a folder of images for each class.')
    images = {folder.name: sorted(path.name for path in folder.iterdir()
                                  if path.suffix.lower() in EXTENSIONS) for folder in folders}
    empty = [name for name, files in images.items() if not files]
    if empty:
        raise ValueError(f'{train / empty[0]} has no images ({", ".join(EXTENSIONS)}).')
    return images


def choose_images(images: dict[str, list[str]], percent: float, seed: int) -> list[str]:
    """Equally many images of each class, give or take one.

    Args:
        images (dict[str, list[str]]): From :func:`find_images`.
        percent (float): Part of all images to take.
        seed (int): Of the choice.

    Returns:
        list[str]: File names, sorted.

    Raises:
        ValueError: If that is less than one image for each class, or more than a class has.
    """
    total = int(percent * sum(map(len, images.values())) / 100)  # 29 % of 100 are 29
    each, rest = divmod(total, len(images))
    if each < 1:
        raise ValueError(f'{percent} % are {total} images for {len(images)} classes: choose a '
                         'larger part, so that each class has one.')
    generator = random.Random(seed)
    one_more = set(generator.sample(sorted(images), rest))
    chosen = []
    for name, files in sorted(images.items()):
        number = each + (name in one_more)
        if number > len(files):
            raise ValueError(f'{percent} % of all images are {number} of each class, and {name} '
                             f'has {len(files)}: choose a smaller part.')
        chosen += generator.sample(files, number)
    return sorted(chosen)


def annotate(names: Sequence[str], images: dict[str, list[str]],
             source: str = 'the list') -> list[str]:
    """Check a list and give each image its folder and label.

    Args:
        names (Sequence[str]): File names, ``CLASS_NUMBER.JPEG``.
        images (dict[str, list[str]]): From :func:`find_images`.
        source (str): Where the names come from, for messages.

    Returns:
        list[str]: ``CLASS/CLASS_NUMBER.JPEG LABEL``, in the order of the list.

    Raises:
        ValueError: If an image is not there or is listed twice, or the classes are not balanced.
    """
    if not names:
        raise ValueError(f'{source} is empty.')
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f'{source} has {len(repeated)} images more than once, {repeated[0]} for '
                         'one.')
    labels = {name: label for label, name in enumerate(sorted(images))}
    known = {folder: set(files) for folder, files in images.items()}
    folders = [name.split('_')[0] for name in names]
    missing = [name for name, folder in zip(names, folders) if name not in known.get(folder, ())]
    if missing:
        raise ValueError(f'{len(missing)} of the {len(names)} images of {source} are not there, '
                         f'{missing[0]} for one: a line is a file name such as '
                         'n01440764_10026.JPEG, of an image in the folder n01440764.')
    counts = dict.fromkeys(images, 0)
    counts.update(Counter(folders))
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[most] - counts[least] > 1:
        raise ValueError(f'{source} is not balanced: {counts[least]} images of {least} and '
                         f'{counts[most]} of {most}. Results would not compare with published '
                         'ones.')
    return [f'{folder}/{name} {labels[folder]}' for name, folder in zip(names, folders)]
