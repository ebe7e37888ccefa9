# SPDX-License-Identifier: Apache-2.0
"""Images of several places under one numbering: where each is, its name and its label."""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np

from pic_plugin.datasets.file_names import printable
from pic_plugin.datasets.sources import Part

NUM_NAMED = 3  # places that are printed


class ImageTable:
    """The images of some places, one place after the other.

    Args:
        parts (Sequence[Part]): The places.

    Attributes:
        num_images (int): N.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)
        self._ends = np.cumsum([len(part.files.names) for part in parts])
        self.num_images = int(self._ends[-1]) if len(parts) else 0

    def __str__(self) -> str:
        more = f' and {len(self.parts) - NUM_NAMED} more' if len(self.parts) > NUM_NAMED else ''
        return ', '.join(printable(part.root) for part in self.parts[:NUM_NAMED]) + more

    def place(self, image: int) -> tuple[Part, int]:
        """The place that an image is in, and its number there."""
        number = int(np.searchsorted(self._ends, image, side='right'))
        return self.parts[number], image - (int(self._ends[number - 1]) if number else 0)

    def path(self, image: int) -> str:
        """Where an image is, for a loader."""
        part, local = self.place(image)
        return part.path(local)

    def name(self, image: int) -> str:
        """Path of an image below its place, for people to read."""
        part, local = self.place(image)
        return printable(part.files.names[local])

    def names(self) -> Iterator[tuple[bytes, str]]:
        """Path below the place, and path for a loader, of each image."""
        for part in self.parts:
            for local, name in enumerate(part.files.names):
                yield name, part.path(local)

    def column(self, name: str) -> np.ndarray | None:
        """(N,) entries of all places; None if one of them has no such entry."""
        columns = [part.files.arrays[name] for part in self.parts if name in part.files.arrays]
        if len(columns) < len(self.parts):
            return None
        return columns[0] if len(columns) == 1 else np.concatenate(columns)

    def labels(self, by_folder: bool, classes: Sequence[str] | None
               ) -> tuple[np.ndarray | None, Sequence[str] | None]:
        """Labels from lists and tables or, without them, from folders.

        Args:
            by_folder (bool): Whether the first folder below its place is an image's class.
            classes (Sequence[str], optional): Names of the classes, in their order.

        Returns:
            tuple: (N,) int32 labels and the names of the classes, or None for what is not known.

        Raises:
            ValueError: If an image has none, or places do not agree on the classes.
        """
        listed = self.column('label')
        named = [part.files.meta.get('classes') for part in self.parts]
        if listed is not None and all(names == named[0] for names in named):
            if not classes or named[0] is None:
                return listed, classes or named[0]
            kind, found = 'label', [named[0][number] for number in listed.tolist()]
        elif not by_folder:
            return None, classes
        elif any('label' in part.files.arrays for part in self.parts):
            raise ValueError(f'the labels of {self} are not of the same classes: let all lists '
                             'name them by the same numbers, or by names that all of them have.')
        else:
            kind, found = 'folder', self._folders()
        classes = classes or tuple(sorted(set(found)))
        unknown = set(found) - set(classes)
        if unknown:
            raise ValueError(f'the {kind} {printable(min(unknown))} is not among the classes '
                             f'{classes}.')
        numbers = {name: number for number, name in enumerate(classes)}
        return np.array([numbers[name] for name in found], dtype=np.int32), classes

    def _folders(self) -> list[str]:
        """The first folder below its place of each image."""
        folders = []
        for part in self.parts:
            for name in part.files.names:
                folder, slash, _ = name.partition(b'/')
                if not slash:
                    raise ValueError(f'{printable(name)} lies in no folder that would be its '
                                     'class: set with_label=False, or move it.')
                folders.append(os.fsdecode(folder))
        return folders
