# SPDX-License-Identifier: Apache-2.0
"""Scenes in the files of Pascal VOC, COCO and Cityscapes."""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from PIL import Image

from pic_plugin.studies.scenes.scenes import Scene, SceneObject

# In the order of CIFAR-10's classes. Where a data set lacks one, a class of its own stands for it.
VOC_NAMES = ('aeroplane', 'car', 'bird', 'cat', 'cow', 'dog', 'pottedplant', 'horse', 'boat', 'bus')
COCO_NAMES = ('airplane', 'car', 'bird', 'cat', 'cow', 'dog', 'teddy bear', 'horse', 'boat',
              'truck')
VOC_CLASSES = (
    'background', 'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair',
    'cow', 'diningtable', 'dog', 'horse', 'motorbike', 'person', 'pottedplant', 'sheep', 'sofa',
    'train', 'tvmonitor')
# trainIds; the first five and the last five stand for things as they come.
CITYSCAPES_IDS = (11, 13, 12, 17, 18, 16, 6, 7, 15, 14)
CITYSCAPES_ABOVE, CITYSCAPES_BELOW = 10, 0  # sky, road
VOID = 255
# All of COCO's categories: readers take a class's place among them for its number. The numbers in
# its files have gaps.
COCO_CATEGORIES = (
    'person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire '
    'hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, '
    'bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, '
    'snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis '
    'racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, '
    'orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, '
    'dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, '
    'toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, '
    'toothbrush').split(', ')
COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = dict(zip(COCO_CATEGORIES, (i for i in range(1, 91) if i not in COCO_GAPS)))
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95]
HARD = 0.4  # hidden share from which VOC calls an object difficult


def write_voc(scenes: dict[str, Sequence[Scene]], root: Path) -> None:
    """Write ``JPEGImages``, ``Annotations``, ``ImageSets`` and ``SegmentationClass``.

    ``SegmentationClassAug`` and ``ImageSets/Segmentation/aug.txt`` are those of the additional
    training set, for which the split ``aug`` is taken.

    Args:
        scenes (dict[str, Sequence[Scene]]): Scenes of the splits, e.g. ``trainval`` and ``test``.
        root (Path): Folder of one year, ``VOCdevkit/VOC2007``.
    """
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main', 'ImageSets/Segmentation',
                   'SegmentationClass', 'SegmentationClassAug'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, members in scenes.items():
        names = []
        for i, scene in enumerate(members):
            name = f'{split}_{i:06d}'
            names.append(name)
            _write_image(root / 'JPEGImages' / f'{name}.jpg', scene.image)
            _voc_xml(scene, name).write(root / 'Annotations' / f'{name}.xml', encoding='utf-8')
            folder = 'SegmentationClassAug' if split == 'aug' else 'SegmentationClass'
            _write_voc_labels(root / folder / f'{name}.png', scene)
        for kind in ('Main', 'Segmentation'):
            (root / 'ImageSets' / kind / f'{split}.txt').write_text('\n'.join(names) + '\n')


def _write_image(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image, JPEG):
        raise OSError(f'{path} cannot be written.')


def _voc_xml(scene: Scene, name: str) -> ElementTree.ElementTree:
    root = ElementTree.Element('annotation')

    def add(parent: ElementTree.Element, tag: str, text: object = None) -> ElementTree.Element:
        element = ElementTree.SubElement(parent, tag)
        if text is not None:
            element.text = str(text)
        return element

    add(root, 'folder', 'JPEGImages')
    add(root, 'filename', f'{name}.jpg')
    size = add(root, 'size')
    for tag, value in zip(('height', 'width', 'depth'), scene.image.shape):
        add(size, tag, value)
    add(root, 'segmented', 1)
    for item in scene.objects:
        element = add(root, 'object')
        add(element, 'name', VOC_NAMES[item.label])
        add(element, 'pose', 'Unspecified')
        add(element, 'truncated', int(item.hidden > 0.05))
        add(element, 'difficult', int(item.hidden > HARD))
        box = add(element, 'bndbox')
        x0, y0, x1, y1 = item.box
        # VOC counts pixels from 1 and includes the last.
        for tag, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), (x0 + 1, y0 + 1, x1, y1)):
            add(box, tag, value)
    return ElementTree.ElementTree(root)


def _write_voc_labels(path: Path, scene: Scene) -> None:
    labels = np.zeros(scene.image.shape[:2], dtype=np.uint8)
    for item in scene.objects:
        labels[item.mask] = VOC_CLASSES.index(VOC_NAMES[item.label])
        labels[_border(item.mask)] = VOID
    picture = Image.fromarray(labels, mode='P')
    # Any palette: readers take the indices. The colours only help to look at it.
    colours = np.random.default_rng(0).integers(40, 256, (256, 3), dtype=np.uint8)
    colours[0], colours[VOID] = 0, (224, 224, 192)
    picture.putpalette(colours.tobytes())
    picture.save(path)


def _border(mask: np.ndarray) -> np.ndarray:
    """Outermost pixels of a mask, which VOC leaves undecided."""
    return mask & ~cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8),
                             borderType=cv2.BORDER_CONSTANT, borderValue=0).astype(bool)


def write_coco(scenes: dict[str, Sequence[Scene]], root: Path) -> None:
    """Write ``annotations/instances_SPLIT.json`` and the folders of images.

    Segmentations are polygons. In every fourth image the objects of its first class are one crowd
    annotation instead, a run-length encoding.

    Args:
        scenes (dict[str, Sequence[Scene]]): Scenes of ``train2017``, ``val2017``.
        root (Path): ``data/coco``.
    """
    (root / 'annotations').mkdir(parents=True, exist_ok=True)
    for split, members in scenes.items():
        (root / split).mkdir(exist_ok=True)
        images: list[dict] = []
        annotations: list[dict] = []
        for i, scene in enumerate(members):
            file = f'{i:012d}.jpg'
            _write_image(root / split / file, scene.image)
            height, width = scene.image.shape[:2]
            images.append(dict(id=i, file_name=file, height=height, width=width))
            items = list(scene.objects)
            if i % 4 == 3 and len({item.label for item in items}) > 1:
                first = items[0].label
                members_of_crowd = [item for item in items if item.label == first]
                items = [item for item in items if item.label != first]
                mask = np.any([item.mask for item in members_of_crowd], axis=0)
                annotations.append(_annotation(SceneObject(first, mask, 0.), i, len(annotations),
                                               crowd=True))
            for item in items:
                annotations.append(_annotation(item, i, len(annotations), crowd=False))
        content = dict(
            info=dict(description='scenes made of CIFAR-10 photos'), images=images,
            annotations=annotations,
            categories=[dict(id=number, name=name, supercategory='object')
                        for name, number in COCO_IDS.items()])
        (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))


def _annotation(item: SceneObject, image: int, number: int, crowd: bool) -> dict:
    x0, y0, x1, y1 = item.box
    return dict(
        id=number + 1, image_id=image, iscrowd=int(crowd),
        category_id=COCO_IDS[COCO_NAMES[item.label]],
        bbox=[x0, y0, x1 - x0, y1 - y0], area=int(item.mask.sum()),
        segmentation=run_lengths(item.mask) if crowd else polygons(item.mask))


def polygons(mask: np.ndarray) -> list[list[float]]:
    """Outlines of the parts of a mask, as COCO has them: x, y, x, y, ..."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL,
                                   cv2.CHAIN_APPROX_NONE)
    # A polygon needs three corners; smaller parts are specks of a covered object.
    return [contour.reshape(-1).astype(float).tolist() for contour in contours if len(contour) > 2]


def run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed encoding: lengths of runs of 0 and 1 down the columns, 0 first."""
    flat = mask.flatten(order='F')
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return dict(size=list(mask.shape), counts=[0, *runs] if flat[0] else runs)


def write_cityscapes(scenes: dict[str, Sequence[Scene]], root: Path) -> None:
    """Write ``leftImg8bit/SPLIT/CITY`` and ``gtFine/SPLIT/CITY`` with trainIds.

    Args:
        scenes (dict[str, Sequence[Scene]]): Scenes of ``train``, ``val``.
        root (Path): ``data/cityscapes``.
    """
    for split, members in scenes.items():
        city = f'{split}stadt'
        images, labels = root / 'leftImg8bit' / split / city, root / 'gtFine' / split / city
        for folder in (images, labels):
            folder.mkdir(parents=True, exist_ok=True)
        for i, scene in enumerate(members):
            name = f'{city}_{i:06d}_000019'
            ids = np.full(scene.image.shape[:2], CITYSCAPES_BELOW, dtype=np.uint8)
            ids[:scene.horizon] = CITYSCAPES_ABOVE
            for item in scene.objects:
                ids[item.mask] = CITYSCAPES_IDS[item.label]
                ids[_border(item.mask)] = VOID
            for path, pixels in ((images / f'{name}_leftImg8bit.png', scene.image),
                                 (labels / f'{name}_gtFine_labelTrainIds.png', ids)):
                if not cv2.imwrite(str(path), pixels):
                    raise OSError(f'{path} cannot be written.')
