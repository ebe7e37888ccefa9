# SPDX-License-Identifier: Apache-2.0
"""Maps of features whose groups are planted."""
import re

import numpy as np
import pytest

pytest.importorskip('sklearn', reason="scikit-learn is not installed: pip install '.[analysis]'")

from pic_plugin.analysis.embedding import (  # noqa: E402
    MARKERS,
    cluster,
    draw_embedding,
    embed,
    group_styles,
)
from pic_plugin.analysis.page import THUMB, Section, build_page, picture_map  # noqa: E402
from pic_plugin.analysis.style import COLOURS, styled, write_figure  # noqa: E402


def planted(count=20):
    """Three directions in 16 dimensions, with a little noise; lengths differ."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(3, 16))
    group = np.arange(3).repeat(count)
    features = centres[group] + 0.1 * generator.normal(size=(3 * count, 16))
    return (features * generator.uniform(0.5, 2, (3 * count, 1))).astype(np.float32), group


@pytest.mark.parametrize('method', ['tsne', 'pca'])
def test_planted_groups_lie_apart(method):
    features, group = planted()
    points = embed(features, method)
    assert points.shape == (60, 2) and points.min() == 0 and points.max() == 1
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (group[distance.argmin(axis=1)] == group).all()
    assert np.array_equal(points, embed(features, method))


@pytest.mark.parametrize('count', [1, 2, 4, 6])
def test_few_features(count):
    points = embed(planted()[0][:count])
    assert points.shape == (count, 2) and np.isfinite(points).all()


def test_unknown_method():
    with pytest.raises(ValueError, match='tsne, umap, pca'):
        embed(planted()[0], 'isomap')


@pytest.mark.parametrize('method', ['tsne', 'pca'])
@pytest.mark.parametrize('value', [0, 1, 0.3])
def test_features_that_are_all_the_same_have_no_map(value, method):
    """scikit-learn's t-SNE would divide by their spread and end the process."""
    features = np.full((50, 16), value, np.float32)
    features += 1e-8 * (np.arange(50) % 2)[:, None].astype(np.float32)
    with pytest.raises(ValueError, match='all 50 pictures are the same.* learning rate'):
        embed(features if value else 0 * features, method)


def test_clusters_are_the_planted_groups():
    features, group = planted()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    names = np.array(cluster(features[5:], 3))
    assert [len(set(names[group[5:] == number])) for number in range(3)] == [1, 1, 1]
    assert (names[group[5:] == 0] == 'cluster 3').all()  # the smallest
    assert cluster(features[:2], 9)


def test_groups_look_different():
    styles = group_styles([f'cluster {number}' for number in range(1, 40)])
    assert len(set(styles.values())) == 39
    assert list(styles)[:3] == ['cluster 1', 'cluster 2', 'cluster 3']
    with styled():
        figure = draw_embedding(np.random.default_rng(0).random((3, 2)), ['a', 'b', 'a'])
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ['a', 'b']


def test_groups_look_different_on_the_page_too():
    groups = [f'class {number}' for number in range(len(COLOURS) * len(MARKERS))]
    count = len(groups)
    part = picture_map(np.zeros((count, 2)), groups, groups,
                       [np.zeros((THUMB, THUMB, 3), np.uint8)] * count)
    looks = re.findall(r'<path .*?d="(.+?)" fill="(.+?)"', build_page('', '', [
        Section('map', '', [part])]))
    dots = dict(zip(part['data']['groups'], looks[:count]))
    assert len(set(dots.values())) == count
    assert dots == dict(zip([name for name, *_ in part['key']], looks[count:]))


def test_names_of_groups_are_shown_as_they_are(tmp_path):
    names = ['$x_{ b$', '50$ and 20$ {', '_background']
    write_figure(lambda: draw_embedding(np.zeros((3, 2)), names), tmp_path / 'map')
    svg = (tmp_path / 'map.svg').read_text()
    assert all(f'>{name}<' in svg for name in names)


def test_a_map_of_more_pictures_than_a_jpeg_is_high():
    count = 44_000  # in rows of 32 pictures 66,000 pixels
    picture = np.zeros((THUMB, THUMB, 3), np.uint8)
    part = picture_map(np.zeros((count, 2)), ['a'] * count, [''] * count, [picture] * count)
    assert part['data']['columns'] * part['data']['rows'] >= count
    assert part['sprite'].startswith('data:image/jpeg;base64,')
