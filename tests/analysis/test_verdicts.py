# SPDX-License-Identifier: Apache-2.0
"""Each verdict on numbers that call for it, and not on the numbers of a good run."""
import math
import re
from pathlib import Path

import pytest
from mmengine.model import PretrainedInit

from pic_plugin.analysis.scalars import Run
from pic_plugin.analysis.verdict_help import PAGE, explanation
from pic_plugin.analysis.verdicts import (
    BAD,
    GOOD,
    NOTICE,
    Context,
    config_differences,
    context_of,
    verdicts_of,
)


def curve(*values):
    return [(100.0 * (place + 1), value) for place, value in enumerate(values)]


def falling(first, last, count=20):
    return curve(*(first + (last - first) * place / (count - 1) for place in range(count)))


GOOD_RUN = {
    'loss': falling(8.0, 4.0), 'active_classes': curve(3000.0), 'time': falling(1.0, 1.0),
    'data_time': falling(0.1, 0.1), 'knn/top1_k20': curve(30.0, 35.0, 40.0),
    'row_staleness': curve(10.0), 'row_decay': curve(0.01), 'lr': falling(0.1, 0.01)}
CONTEXT = Context()


def names(changes=None, context=CONTEXT, untrained=None):
    run = Run('run', {**GOOD_RUN, **(changes or {})}, 0)
    return [one.name for one in verdicts_of(run, context, untrained)]


def test_a_good_run():
    run = Run('run', GOOD_RUN, 0)
    found = verdicts_of(run, CONTEXT, {'knn/top1_k20': 25.0})
    assert [one.level for one in found] == [GOOD, GOOD]
    assert [one.name for one in found] == ['loss', 'above random weights']
    assert 'ln(3,000) = 8.01' in found[0].text


@pytest.mark.parametrize('loss, expected', [(8.0, True), (7.9, True), (7.7, False)])
def test_loss_at_chance(loss, expected):
    assert ('loss at chance' in names({'loss': falling(8.0, loss)})) is expected
    # Of a softmax over fewer classes chance is lower.
    assert ('loss at chance' in names({'loss': falling(8.0, loss),
                                       'active_classes': curve(300.0)})) is True


REFRESHED = Context(refresh=1.0)


@pytest.mark.parametrize('values, says', [
    # A learning rate of zero: rows begin as features, and more and more of them compete.
    ([0.3, 1.9, 2.9, 4.0, 5.0, 5.05, 5.0, 5.1, 5.0, 5.2, 5.2, 5.3, 5.3, 5.2, 5.4, 5.5, 5.4, 5.5,
      5.4, 5.45], False),
    ([0.3, *[5.4, 5.5] * 20], False),
    ([0.3, 1.9, 2.9, *[5.6] * 10, *[5.0] * 10], True)])
def test_with_refresh_a_low_loss_may_be_nothing(values, says):
    """Below chance, which is ln(400) = 5.99; without refresh it always says something."""
    run = Run('run', {'loss': curve(*values), 'active_classes': curve(400.0)}, 0)
    assert verdicts_of(run, CONTEXT)[0].level == GOOD
    found = verdicts_of(run, REFRESHED)[0]
    assert (found.name, found.level) == (
        ('loss', GOOD) if says else ('loss does not tell yet', NOTICE))
    # At chance it is as without.
    run = run._replace(curves={**run.curves, 'loss': falling(0.3, 7.0, 40)})
    assert verdicts_of(run, REFRESHED) == verdicts_of(run, CONTEXT)


def test_a_short_training_is_not_blamed():
    points = falling(8.0, 7.95)
    seen = points[-1][0]
    for classes, level in ((seen / 4, NOTICE), (seen / 6, BAD)):
        run = Run('run', {'loss': points, 'active_classes': [(seen, classes)]}, 0)
        found = [one for one in verdicts_of(run) if one.name == 'loss at chance']
        assert [one.level for one in found] == [level]


def test_a_beginning_says_nothing():
    assert names({'loss': curve(8.0, 8.0), 'knn/top1_k20': curve(30.0)}) == []


def test_loader_bound():
    assert 'loader-bound' in names({'data_time': falling(0.6, 0.6)})
    assert 'loader-bound' not in names({'data_time': falling(0.4, 0.4)})
    # The end counts: a first step that starts workers is no verdict.
    assert 'loader-bound' not in names({'data_time': curve(*[9.0] * 3, *[0.1] * 17)})


def test_features_collapse():
    assert 'features collapse' in names({'effective_rank': curve(60.0, *[1.1] * 9)})
    assert 'features collapse' not in names({'effective_rank': falling(60.0, 20.0)})
    assert 'features collapse' not in names({'effective_rank': curve(1.0)})


def test_knn_falls_while_the_loss_falls():
    name = 'kNN falls while the loss falls'
    assert name in names({'knn/top1_k20': curve(30.0, 45.0, 38.0)})
    assert name not in names({'knn/top1_k20': curve(30.0, 40.0, 38.0)})
    assert name not in names({'knn/top1_k20': curve(30.0, 45.0, 38.0), 'loss': falling(4.0, 8.0)})
    assert name not in names({'knn/top1_k20': curve(30.0, 45.0, 38.0),
                              'loss': falling(8.01, 7.9)})
    # With recent negatives or refresh it rises before it falls.
    assert name in names({'knn/top1_k20': curve(30.0, 45.0, 38.0),
                          'loss': [*curve(0.3), *[(100.0 + seen, value)
                                                  for seen, value in falling(6.0, 4.0)]]})


def test_not_above_random_weights():
    assert names(untrained={'knn/top1_k20': 39.0}) == ['loss', 'not above random weights']
    assert names(untrained={'knn/top1_k20': 36.9})[-1] == 'above random weights'
    # Of several numbers of neighbours the smaller one says it.
    assert names({'knn/top1_k173': curve(50.0)}, untrained={
        'knn/top1_k173': 10.0, 'knn/top1_k20': 39.0}) == ['loss', 'not above random weights']


def test_a_difference_within_the_error_says_the_error():
    run = Run('run', {**GOOD_RUN, 'knn/top1_k20': curve(30.0, 32.7)}, 0)

    def last(before, num_queries):
        context = Context(num_queries=num_queries)
        return verdicts_of(run, context, {'knn/top1_k20': before})[-1]

    found = last(29.8, 98)
    assert found.level == NOTICE and found.name == 'not above random weights'
    # Two of the root of 0.3125 * 0.6875 / 98.
    assert 'is within the error of 98 pictures, 9.4 points' in found.text
    assert last(29.8, 5000).level == GOOD
    assert last(29.8, 5000).text == (
        'The accuracy by the 20 nearest neighbours is 32.7 % (± 1.3), with random weights it is '
        '29.8 %.')
    assert last(32.7, 98).level == BAD and 'error' not in last(32.7, 98).text
    assert 'the error of so few pictures, 3.0 points' in last(29.8, None).text


def test_pictures_that_are_classified_are_counted(tmp_path):
    (tmp_path / 'queries.txt').write_text('a.png 0\nb.png 1\n')
    parts = [dict(ann_file='gone', pipeline=[dict(type='MarkReference')]),
             dict(ann_file=str(tmp_path / 'queries.txt'), pipeline=[dict(type='PackInputs')])]
    cfg = dict(val_dataloader=dict(dataset=dict(datasets=parts)))
    assert context_of(cfg).num_queries == 2
    parts[0]['pipeline'] = [dict(type='mmpretrain.MarkReference')]
    assert context_of(cfg).num_queries == 2
    parts[0]['pipeline'] = []
    assert context_of(cfg).num_queries is None


@pytest.mark.parametrize('name', ['queries.json', 'queries.csv', ['queries.txt', 'more.txt']])
def test_lines_that_are_not_one_for_each_picture_are_not_counted(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for file in [name] if isinstance(name, str) else name:
        (tmp_path / file).write_text('{"data_list": [{}, {}, {}]}\n')
    cfg = dict(val_dataloader=dict(dataset=dict(datasets=[dict(ann_file=name, pipeline=[])])))
    assert context_of(cfg).num_queries is None


def test_a_network_that_was_trained_before_is_compared_with_itself():
    for model in (dict(pretrained='resnet50.pth'),
                  dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='a.pth'))),
                  dict(backbone=dict(init_cfg=dict(type=PretrainedInit, checkpoint='a.pth')))):
        context = context_of(dict(model=model))
        assert context.goes_on
        found = verdicts_of(Run('run', GOOD_RUN, 0), context, {'knn/top1_k20': 39.0})
        assert found[-1].name == 'not above the weights it began with'
        assert 'random' not in found[-1].text and 'lower learning rate' in found[-1].text
    assert not context_of(dict(model=dict(backbone=dict(init_cfg=[dict(type='Kaiming')])))).goes_on


def test_rows_return_as_nothing():
    name = 'rows return as nothing'
    assert name in names({'row_decay': curve(0.0, 3.1, 0.5)})
    assert name not in names({'row_decay': curve(0.0, 2.9, 0.5)})
    # Of a run of an earlier version, which did not log it, or without decay of class weights.
    assert name not in names({'row_staleness': curve(1e6), 'row_decay': []})


def test_a_loss_that_is_not_a_number():
    found = names({'loss': curve(8.0, math.nan, math.nan)})
    assert found[0] == 'loss not finite'
    run = Run('run', {**GOOD_RUN, 'loss': curve(8.0, 7.0, math.inf)}, 0)
    assert verdicts_of(run, CONTEXT)[0].level == BAD


def test_each_has_a_section_on_its_page():
    page_text = (Path(__file__).parents[2] / 'docs' / 'verdicts.md').read_text(encoding='utf-8')
    anchors = {re.sub(r'[^a-z0-9 -]', '', line[3:].lower()).replace(' ', '-')
               for line in page_text.splitlines() if line.startswith('## ')}
    bad = {'loss': curve(8.0, 8.0, 8.0, 8.0, math.nan, 8.0), 'data_time': falling(0.9, 0.9),
           'knn/top1_k20': curve(30.0, 45.0, 38.0), 'row_decay': curve(9.0),
           'effective_rank': falling(1.0, 1.0)}
    found = [one for loss in (bad['loss'], falling(8.0, 8.0), falling(8.0, 4.0))
             for one in verdicts_of(Run('run', {**GOOD_RUN, **bad, 'loss': loss}, 0), CONTEXT,
                                    {'knn/top1_k20': 38.0})]
    found += verdicts_of(Run('run', GOOD_RUN, 0), Context(goes_on=True), {'knn/top1_k20': 38.0})
    found += verdicts_of(Run('run', GOOD_RUN, 0), CONTEXT, {'knn/top1_k20': 25.0})
    found += verdicts_of(Run('run', {**GOOD_RUN, 'loss': falling(4.0, 4.0)}, 0), REFRESHED)
    pages = {one.page for one in found}
    assert pages == {f'verdicts.md#{anchor}' for anchor in anchors}
    # The package has a copy, for where no site is at hand.
    assert PAGE.read_text(encoding='utf-8') == page_text, f'cp docs/verdicts.md {PAGE}'
    # Words alone.
    for page in pages:
        text = explanation(page)
        assert len(text) > 100 and not re.search(r'\]\(|```|<!--|^#', text)
    assert 'or freeze the first stages' in explanation(
        'verdicts.md#not-above-the-weights-it-began-with')


def test_context_of_a_config():
    assert context_of(dict(train_dataloader=dict(num_workers=3))) == Context(3)
    assert context_of({}) == Context()
    assert context_of(dict(model=dict(head=dict(refresh_returning=0.5)))) == Context(refresh=0.5)


def test_differences_of_configs():
    one = dict(a=1, model=dict(depth=18, hooks=[dict(type='A')]), same=[1, 2])
    two = dict(a=1, model=dict(depth=50, hooks=[dict(type='B')]), same=[1, 2], extra=None)
    assert config_differences([one, two]) == [
        ['extra', '', 'None'], ['model.depth', '18', '50'], ['model.hooks.0.type', 'A', 'B']]
    assert config_differences([one, one]) == []
    names = [dict(one, work_dir=name, experiment_name=name) for name in 'ab']
    assert config_differences(names) == []
