# SPDX-License-Identifier: Apache-2.0
"""Draw the pictures of the documentation: ``python docs/drawings/draw.py``."""
from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from svg import BLUE, GREEN, INK, LIGHT, ORANGE, PALE, RULE, Drawing  # noqa: E402

IMAGES = Path(__file__).resolve().parents[1] / 'images'


def window() -> Drawing:
    """Windows over the shuffled data set, and when one image is visited."""
    drawing = Drawing(760, 372, 'A window slides over the shuffled data set; an image is visited '
                      'in each of four successive windows, and once an epoch otherwise')
    left, unit, size, stride = 150, 34, 4, 1
    drawing.text(left, 34, 'Data set in random order, as one endless stream', bold=True)
    for i in range(17):
        drawing.box(left + i * unit, 46, unit - 4, 22, LIGHT[ORANGE] if i == 4 else LIGHT[RULE],
                    ORANGE if i == 4 else RULE)
    drawing.text(left + 4.5 * unit - 2, 62, 'i', 13, ORANGE, 'middle', True)
    for k in range(6):
        y = 84 + 24 * k
        visits = k * stride <= 4 < k * stride + size
        drawing.text(left - 12, y + 13, f'window {k}', 13, INK if visits else PALE, 'end')
        drawing.box(left + k * stride * unit, y, size * unit - 4, 17, LIGHT[BLUE], BLUE)
        if visits:
            drawing.dot(left + 4.5 * unit - 2, y + 8.5, ORANGE, 5)
    drawing.line([(left + 4.5 * unit - 2, 68), (left + 4.5 * unit - 2, 226)], ORANGE, 1, '3 3')
    drawing.text(left + 10.2 * unit, 118, 'Each window is visited whole, in random', 13)
    drawing.text(left + 10.2 * unit, 136, 'order, then moves on by the stride.', 13)
    drawing.text(left + 10.2 * unit, 160, 'window / stride = 4 visits of image i,', 13, ORANGE)
    drawing.text(left + 10.2 * unit, 178, 'in close succession.', 13, ORANGE)
    drawing.text(left, 262, 'When image i is seen, over four epochs of training', bold=True)
    end = left + 17 * unit - 4
    for name, y, visits in (
            ('sliding window', 286, [0.20, 0.235, 0.27, 0.305]),
            ('plain epochs', 320, [0.11, 0.43, 0.60, 0.93])):
        drawing.text(left - 12, y + 5, name, 13, INK, 'end')
        drawing.line([(left, y), (end, y)], RULE, 2)
        for visit in visits:
            drawing.dot(left + visit * (end - left), y, ORANGE, 5)
    for epoch in range(5):
        x = left + epoch * (end - left) / 4
        drawing.line([(x, 276), (x, 330)], RULE, 1)
    drawing.text(left, 354, 'Four visits either way: the same number of images is seen.', 13, PALE)
    return drawing


def recent_negatives() -> Drawing:
    """Rows that are in the softmax, on the device, and those that wait on the host."""
    drawing = Drawing(760, 330, 'The softmax runs over the K classes that were sampled last; the '
                      'rows of the other classes wait in host memory or in a file')
    drawing.text(24, 34, 'Host: class weights of all N images', bold=True)
    drawing.text(24, 54, 'in memory or in a file, written when first visited', 13, PALE)
    active = {(1, 2), (3, 0), (3, 7), (5, 4), (0, 5), (6, 1)}
    for row in range(8):
        for column in range(9):
            away = (row, column) in active
            drawing.box(24 + column * 27, 70 + row * 25, 23, 20,
                        '#ffffff' if away else LIGHT[RULE], RULE)
    drawing.text(480, 34, 'Device: the K most recent classes', bold=True)
    drawing.text(480, 54, 'an ordinary parameter of shape (K, d)', 13, PALE)
    for i in range(6):
        new = i < 2
        drawing.box(480, 70 + i * 30, 130, 24, LIGHT[BLUE] if new else LIGHT[GREEN],
                    BLUE if new else GREEN)
        drawing.text(622, 87 + i * 30, ('images of this batch', '', 'sampled one step ago', '',
                                        'sampled longest ago', '')[i], 13, PALE)
    drawing.line([(275, 95), (470, 84)], BLUE, 2, arrow=True)
    drawing.text(372, 74, 'a class of the batch comes in,', 13, BLUE, 'middle')
    drawing.text(372, 122, 'corrected for its absence', 13, BLUE, 'middle')
    drawing.line([(470, 232), (275, 221)], ORANGE, 2, arrow=True)
    drawing.text(372, 206, 'the class not sampled', 13, ORANGE, 'middle')
    drawing.text(372, 256, 'for longest goes out', 13, ORANGE, 'middle')
    drawing.text(24, 302, 'Device memory and time of a step depend on K, not on N. Both '
                 'optimizer state and weight of a row move.', 13)
    return drawing


def correction_series() -> tuple[list[float], list[float], list[bool]]:
    """One number of a class weight under SGD: as dense training has it, and frozen while away.

    Momentum 0.9, weight decay 5e-3 (fifty times the usual, so that it shows), learning rate 0.05.
    """
    rate, momentum, decay = 0.05, 0.9, 5e-3
    gradients = {5: -1.0, 8: -0.8, 11: -0.9, 60: -0.7, 63: -0.8}
    series = []
    for frozen in (False, True):
        weight, velocity, values = 0.4, 0.0, []
        for step in range(80):
            here = step < 12 or step >= 60  # in the softmax
            if here or not frozen:
                velocity = momentum * velocity + gradients.get(step, 0.0) + decay * weight
                weight -= rate * velocity
            values.append(weight)
        series.append(values)
    return series[0], series[1], [step < 12 or step >= 60 for step in range(80)]


def correction() -> Drawing:
    """What becomes of a class weight while it is out of the softmax."""
    drawing = Drawing(790, 340, 'A class weight under SGD keeps moving while it has no gradient; '
                      'frozen meanwhile it comes back wrong, corrected it comes back right')
    dense, frozen, here = correction_series()
    left, top, width, height = 56, 66, 500, 210
    low, high = 0.3, max(dense) * 1.06

    def place(step: float, value: float) -> tuple[float, float]:
        return (left + step * width / 79, top + height * (1 - (value - low) / (high - low)))

    drawing.text(left, 32, 'One number of a class weight, step by step', bold=True)
    away = [step for step, is_here in enumerate(here) if not is_here]
    x0, x1 = place(away[0] - 0.5, 0)[0], place(away[-1] + 0.5, 0)[0]
    drawing.box(x0, top, x1 - x0, height, LIGHT[RULE], LIGHT[RULE], 0)
    drawing.text((x0 + x1) / 2, top + height - 12, 'out of the softmax: no gradient', 13, PALE,
                 'middle')
    drawing.line([(left, top), (left, top + height), (left + width, top + height)], PALE, 1)
    drawing.text(left + width, top + height + 20, 'optimizer steps', 13, PALE, 'end')
    drawing.line([place(i, value) for i, value in enumerate(dense)], INK, 6)
    drawing.line([place(i, value) for i, value in enumerate(frozen)], ORANGE, 2.5, '6 4')
    shown = [place(i, value) for i, value in enumerate(dense) if here[i]]
    cut = away[0]
    drawing.line(shown[:cut], '#56b4e9', 2.5)
    drawing.line(shown[cut:], '#56b4e9', 2.5)
    returned = place(away[-1] + 1, dense[away[-1] + 1])
    drawing.line([shown[cut - 1], (returned[0], returned[1])], '#56b4e9', 1.5, '2 4')
    drawing.dot(*returned, BLUE, 6)
    right = left + width + 20
    for y, colour, name, lines in (
            (96, INK, 'SGD on all N rows', ('momentum carries the row on,', 'decay shrinks it')),
            (162, ORANGE, 'frozen while away', ('misses both, and is wrong', 'when it returns')),
            (228, BLUE, 'corrected', ('stored, and brought up to', 'date once, on return'))):
        drawing.line([(right, y - 5), (right + 22, y - 5)], colour, 4)
        drawing.text(right + 30, y, name, 14, colour, bold=True)
        for i, words in enumerate(lines):
            drawing.text(right, y + 18 + 16 * i, words, 12, PALE)
    drawing.text(left, 320, 'The correction is exact: the same weights as SGD on all N rows, '
                 'without touching N rows in a step.', 13)
    return drawing


def training_step() -> Drawing:
    """PIC's five parts and what passes between them in a step."""
    drawing = Drawing(860, 430, 'The five parts of PIC: data scheduler, augmentation, backbone, '
                      'projection head, and the loss with its class weights')
    parts = (('1  Data scheduler', 'SlidingWindowSampler', 'which image next'),
             ('2  Augmentation', 'the data pipeline', 'one view, (B, 3, H, W)'),
             ('3  Backbone', 'any of mmpretrain', 'features, (B, C)'),
             ('4  Projection head', 'the neck, a small MLP', 'z, (B, d)'))
    for i, (name, code, gives) in enumerate(parts):
        x = 24 + i * 210
        drawing.box(x, 30, 176, 84, LIGHT[GREEN], GREEN)
        drawing.text(x + 12, 54, name, 14, INK, bold=True)
        drawing.text(x + 12, 76, code, 13)
        drawing.text(x + 12, 98, gives, 13, PALE)
        if i < 3:
            drawing.line([(x + 178, 72), (x + 207, 72)], INK, 2, arrow=True)
    drawing.line([(742, 116), (742, 166)], INK, 2, arrow=True)
    drawing.text(752, 146, 'z', 14, INK)
    drawing.box(444, 170, 386, 92, LIGHT[BLUE], BLUE)
    drawing.text(458, 194, '5  Loss: cosine softmax over K active classes', 14, INK, bold=True)
    drawing.text(458, 218, 'PICHead: class weights (K, d), targets (B,)', 13)
    drawing.text(458, 242, 'cross-entropy of cos(w, z) / temperature', 13, PALE)
    drawing.line([(112, 116), (112, 212), (270, 212)], INK, 2, arrow=True)
    drawing.text(122, 202, 'sample ids (B,)', 13)
    drawing.box(274, 184, 130, 58, LIGHT[ORANGE], ORANGE)
    drawing.text(339, 209, 'InstanceBankHook', 13, INK, 'middle', True)
    drawing.text(339, 229, 'around each step', 13, PALE, 'middle')
    drawing.line([(406, 212), (441, 212)], INK, 2, arrow=True)
    drawing.box(274, 306, 556, 96, LIGHT[ORANGE], ORANGE)
    drawing.text(290, 330, 'The bank: class weights of all N images', 14, INK, bold=True)
    drawing.text(290, 354, 'rows that are not in the softmax, with their optimizer state and the '
                 'step they left at', 13)
    drawing.text(290, 376, 'on the host; a correction brings a row up to date when it returns',
                 13, PALE)
    drawing.line([(600, 303), (600, 266)], BLUE, 2, arrow=True)
    drawing.text(590, 290, 'rows come in', 13, BLUE, 'end')
    drawing.line([(640, 265), (640, 302)], ORANGE, 2, arrow=True)
    drawing.text(650, 290, 'rows go out', 13, ORANGE)
    drawing.line([(339, 244), (339, 302)], INK, 2, arrow=True)
    drawing.box(24, 306, 210, 96, '#ffffff', PALE)
    drawing.text(40, 330, 'Checkpoint', 14, INK, bold=True)
    drawing.text(40, 354, 'epoch_N.pth: network, K rows', 13)
    drawing.text(40, 376, 'one bank file a process', 13)
    drawing.line([(272, 354), (237, 354)], INK, 2, arrow=True)
    return drawing


DRAWINGS = dict(window=window, recent_negatives=recent_negatives, correction=correction,
                training_step=training_step)


def render() -> dict[str, str]:
    """Text of each file, by name."""
    return {f'{name}.svg': make().render() for name, make in DRAWINGS.items()}


def main() -> None:
    """Write the files."""
    for name, content in render().items():
        (IMAGES / name).write_text(content, encoding='utf-8')


if __name__ == '__main__':
    main()
