# SPDX-License-Identifier: Apache-2.0
"""Tables of a training's order, against the sampler and against lists."""
import numpy as np
import pytest

from pic_plugin.datasets import SlidingWindowSampler
from pic_plugin.studies.ahead.schedule import (
    recency_thresholds,
    repeat_absence,
    visit_numbers,
    visits,
    window_stream,
)


@pytest.mark.parametrize('num_images, window, stride', [(100, 40, 5), (37, 37, 37), (90, 20, 7)])
def test_the_stream_is_the_samplers(num_images, window, stride):
    sampler = SlidingWindowSampler(range(num_images), window, stride, seed=5)
    stream = window_stream(500, num_images, window, stride, seed=5)
    assert stream.tolist() == sampler.ids_at(0, 500).tolist()


def test_no_window_means_epochs():
    stream = window_stream(60, 20, 0, 0, seed=1)
    assert all(sorted(stream[i:i + 20]) == list(range(20)) for i in (0, 20, 40))


@pytest.mark.parametrize('window, stride', [(40, 5), (12, 3), (0, 0)])
def test_absence_counts_steps_since_the_last_visit(window, stride):
    steps, batch, num_images = 60, 8, 50
    visit = visits(steps, batch, num_images, window, stride, 3)
    last = {}
    for step in range(steps):
        seen = set()
        for place, image in enumerate(visit.ids[step].tolist()):
            gap = visit.absence[step, place]
            if image in seen:
                assert not visit.is_first[step, place] and gap == 0
            elif image in last:
                assert visit.is_first[step, place] and gap == step - last[image]
            else:
                assert visit.is_first[step, place] and gap > steps
            seen.add(image)
        last.update(dict.fromkeys(seen, step))


def test_a_second_place_in_a_batch_has_the_absence_of_the_first():
    visit = visits(60, 8, 50, 12, 3, 3)
    repeated = repeat_absence(visit)
    assert (visit.absence == 0).any() and (repeated > 0).all()


@pytest.mark.parametrize('num_negatives', [8, 15, 30])
def test_thresholds_leave_the_most_recent_classes(num_negatives):
    steps, batch, num_images = 40, 8, 50
    ids = visits(steps, batch, num_images, 20, 5, 7).ids
    thresholds = recency_thresholds(steps, batch, num_images, 20, 5, 7, num_negatives)
    recent, last = [], np.full(num_images, -1)
    for step in range(steps):
        for place, image in enumerate(ids[step].tolist()):
            recent = ([one for one in recent if one != image] + [image])
            last[image] = step * batch + place
        expected = sorted(recent[-num_negatives:])
        assert np.flatnonzero(last >= thresholds[step]).tolist() == expected


def test_visits_are_numbered_from_each_return():
    ids = np.array([[0, 1], [0, 1], [2, 2], [0, 0]])
    absence = np.array([[99, 99], [1, 1], [99, 0], [2, 0]])
    assert visit_numbers(absence, ids, away=1.5).tolist() == [[1, 1], [2, 2], [1, 1], [1, 1]]
