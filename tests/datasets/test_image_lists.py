# SPDX-License-Identifier: Apache-2.0
"""Lists of images as people write them."""
import json

import numpy as np
import pytest

from pic_plugin.datasets.file_names import hash_names
from pic_plugin.datasets.image_lists import NO_KEY, number_labels, read_list


@pytest.mark.parametrize('content', [b'a 1.jpg\nb/2.jpg\n', b'a 1.jpg\r\n\r\nb/2.jpg',
                                     b'\n\na 1.jpg\nb/2.jpg\n\n'])
def test_a_path_a_line(content):
    index = read_list(content, 'list.txt')
    assert list(index.names) == [b'a 1.jpg', b'b/2.jpg']
    assert index.report.read == {'.jpg': 2} and not index.arrays


def test_an_empty_list():
    assert len(read_list(b'', 'list.txt').names) == 0


def test_labels_behind_paths():
    index = read_list(b'a b.jpg 3\nc.jpg 0\n', 'list.txt', with_label=True)
    assert list(index.names) == [b'a b.jpg', b'c.jpg']
    assert index.arrays['label'].tolist() == [3, 0] and index.meta['classes'] is None
    with pytest.raises(ValueError, match='line 2 has no label .*with_label=False'):
        read_list(b'a.jpg 3\nc.jpg\n', 'list.txt', with_label=True)


def test_columns():
    text = 'patient,file,label\np1,"a, b.jpg",dog\np2,caf\u00e9.jpg,cat\np1,c.jpg,dog\n'
    index = read_list(text.encode(), 'x.CSV', key_column='patient', with_label=True)
    assert list(index.names) == [b'a, b.jpg', 'café.jpg'.encode(), b'c.jpg']
    assert index.arrays['label'].tolist() == [1, 0, 1] and index.meta['classes'] == ['cat', 'dog']
    np.testing.assert_array_equal(index.arrays['key'], hash_names([b'p1', b'p2', b'p1']))
    index = read_list(text.replace(',', '\t').encode(), 'x.tsv', path_column='patient')
    assert list(index.names) == [b'p1', b'p2', b'p1']


def test_any_bytes_in_a_csv():
    index = read_list(b'\xef\xbb\xbfpath,label\ncaf\xe9.jpg,1\n', 'x.csv')
    assert list(index.names) == [b'caf\xe9.jpg']


def test_json_lines():
    lines = [json.dumps(dict(img_path='a.jpg', gt_label=4, key=7)),
             json.dumps(dict(img_path='b\udce9.jpg', gt_label=5, key='7'))]
    index = read_list('\n'.join(lines).encode(), 'x.jsonl', key_column='key', with_label=True)
    assert list(index.names) == [b'a.jpg', b'b\xe9.jpg']
    assert index.arrays['label'].tolist() == [4, 5]
    assert len(set(index.arrays['key'].tolist())) == 1
    assert list(read_list(b'"a.jpg"\n"b.jpg"\n', 'x.jsonl').names) == [b'a.jpg', b'b.jpg']


def test_an_image_without_a_key_is_a_class_by_itself():
    index = read_list(b'path,patient\na.jpg,\nb.jpg,p\nc.jpg\n', 'x.csv', key_column='patient')
    assert index.arrays['key'].tolist() == [NO_KEY, int(hash_names([b'p'])[0]), NO_KEY]
    lines = b'{"path": "a", "patient": null}\n{"path": "b", "patient": ""}\n{"path": "c"}\n'
    index = read_list(lines, 'x.jsonl', key_column='patient')
    assert index.arrays['key'].tolist() == [NO_KEY] * 3


def test_labels_that_are_no_numbers_of_classes_are_names():
    for labels, classes in (([0.5, 1], ['0.5', '1']), ([2**40, 1], ['1', str(2**40)]),
                            ([2.0, 1], None)):
        content = '\n'.join(json.dumps(dict(path='a', label=label)) for label in labels).encode()
        index = read_list(content, 'x.jsonl', with_label=True)
        assert index.meta['classes'] == classes


def test_a_mark_of_the_byte_order():
    bom = b'\xef\xbb\xbf'
    assert list(read_list(bom + b'a.jpg\n', 'x.txt').names) == [b'a.jpg']
    assert list(read_list(bom + b'"a.jpg"\n', 'x.jsonl').names) == [b'a.jpg']


@pytest.mark.parametrize('content, file, options, message', [
    (b'path,label\na.jpg,1\nb.jpg\n', 'x.csv', dict(with_label=True), "entry 2 has no 'label'"),
    (b'path,label\na.jpg,1\nb.jpg,\n', 'x.csv', dict(with_label=True), "entry 2 has no 'label'"),
    (b'label,path\n1,a.jpg\n2\n', 'x.csv', {}, "entry 2 has no 'path'"),
    (b'path,label\na,b.jpg,1\n', 'x.csv', {}, "entry 1 has more cells .* hold a ',' in double"),
    (b'a', 'x.xml', {}, 'not a list of images.*must end in'),
    (b'a,b\n1,2\n', 'x.csv', {}, r"columns \['a', 'b'\].*say which with path_column"),
    (b'path,b\n1,2\n', 'x.csv', dict(key_column='c'), "none is 'c': say which with instance_key"),
    (b'path,b\n1,2\n', 'x.csv', dict(with_label=True), 'say which with label_column'),
    (b'a.jpg\n', 'x.txt', dict(key_column='c'), "instance_key names the column 'c'"),
    (b'{"path": "a"}\nno json\n', 'x.jsonl', {}, 'line 2 is not JSON'),
    (b'{"path": "a"}\n{}\n', 'x.jsonl', {}, "entry 2 has no 'path'"),
    (b'[1]\n', 'x.jsonl', {}, 'line 1 is neither a path nor an object'),
])
def test_what_cannot_be_understood(content, file, options, message):
    with pytest.raises(ValueError, match=message):
        read_list(content, file, **options)


@pytest.mark.parametrize('labels, expected', [
    (['1', '0', '1'], ([1, 0, 1], None)),
    (['01', '02', '01'], ([1, 2, 1], None)),
    (['1_0', '10', '1_0'], ([1, 0, 1], ['10', '1_0'])),
    (['01', '1', '1'], ([0, 1, 1], ['01', '1'])),
    ([1, 2.0, 1], ([1, 2, 1], None)),
])
def test_names_are_numbers_only_if_no_two_are_the_same(labels, expected):
    numbers, classes = number_labels(labels)
    assert (numbers.tolist(), classes) == expected
