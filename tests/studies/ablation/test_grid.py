# SPDX-License-Identifier: Apache-2.0
"""Grids as files: which trainings they mean."""
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import DATA_SAMPLERS, MODELS, PARAM_SCHEDULERS

import pic_plugin.studies.ablation  # noqa: F401
from pic_plugin.studies.ablation.grid import read_grid
from pic_plugin.studies.ablation.table import known_trainings, read_tables

TOY = Path(__file__).with_name('toy_grid.py')
ROOT = Path(__file__).resolve().parents[3]
GRIDS = sorted(path.stem for path in (ROOT / 'pic_plugin/studies/grids').glob('[!_]*.py'))


def write(tmp_path, **changes):
    content = Config.fromfile(TOY).to_dict()
    content['options']['config'] = str(TOY.with_name('toy_training.py'))
    content.update(changes)
    file = tmp_path / 'grid.py'
    file.write_text(''.join(f'{key} = {value!r}\n' for key, value in content.items()
                            if value is not None))
    return str(file)


def test_all_combinations_seed_by_seed():
    grid = read_grid(str(TOY))
    assert [(t.labels['rate'], t.seed, t.cfg.optim_wrapper.optimizer.lr, t.cfg.randomness.seed)
            for t in grid.trainings] == [('low', 0, 0.01, 0), ('high', 0, 0.1, 0),
                                         ('low', 1, 0.01, 1), ('high', 1, 0.1, 1)]
    assert [t.seed for t in read_grid(str(TOY), seeds=[7]).trainings] == [7, 7]


@pytest.mark.parametrize('options, epochs', [
    (dict(images=160), 4), (dict(passes=160), 4), (dict(images=139), 3), (dict(images=1), 1),
    (dict(passes=160, num_views=2), 2)])
def test_length_scales_the_schedule(tmp_path, options, epochs):
    options['config'] = str(TOY.with_name('toy_training.py'))
    cfg = read_grid(write(tmp_path, options=options)).trainings[0].cfg
    warmup, cosine = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs == epochs
    assert (warmup.begin, warmup.end, cosine.begin, cosine.end, cosine.T_max) == (
        0, epochs / 2, epochs / 2, epochs, epochs / 2)


def test_left_out_combinations_and_nested_changes(tmp_path):
    factors = {
        'window': {'8': {'train_dataloader.sampler.window_size': 8}, '16': {}},
        'stride': {'8': {}, '16': {'train_dataloader.sampler': dict(
            _delete_=True, type='DefaultSampler', shuffle=True)}},
    }
    grid = read_grid(write(tmp_path, factors=factors, seeds=[0],
                           figure=dict(x='stride', y='knn20'),
                           leave_out=[{'window': '8', 'stride': '16'}]))
    assert [tuple(t.labels.values()) for t in grid.trainings] == [('8', '8'), ('16', '8'),
                                                                  ('16', '16')]
    samplers = [t.cfg.train_dataloader.sampler.to_dict() for t in grid.trainings]
    assert [s.get('window_size') for s in samplers] == [8, 16, None]
    assert samplers[2] == dict(type='DefaultSampler', shuffle=True)


def test_name_depends_on_what_the_result_depends_on(tmp_path):
    names = [t.name for t in read_grid(str(TOY)).trainings]
    assert len(set(names)) == 4
    # Other labels, title and order of the same settings: the same trainings.
    other = write(tmp_path, title='Other', factors={
        'x': {'b': {'optim_wrapper.optimizer.lr': 0.1}, 'a': {'optim_wrapper.optimizer.lr': 0.01}}},
                  figure=dict(x='x', y='knn20'))
    assert {t.name for t in read_grid(other).trainings} == set(names)
    assert not {t.name for t in read_grid(str(TOY), images=80).trainings} & set(names)


@pytest.mark.parametrize('changes, message', [
    (dict(factors=None), r"lacks \['factors'\]"),
    (dict(colour='red'), r"has \['colour'\]"),
    (dict(factors={'rate': {'low': 0.1}}), 'factors must be a dict of factors'),
    (dict(figure=dict(x='speed', y='knn20')), r"x of \['rate'\]"),
    (dict(figure=dict(x='rate', y='knn20', joined=False)), 'figure may have x, y and line'),
    (dict(leave_out=[{'rate': 'medium'}]), "leave_out names .'rate', 'medium'"),
    (dict(seeds=[1, 1]), 'seeds must be different'),
    (dict(options=dict(images=40)), 'names a config'),
    (dict(options=dict(config=str(TOY.with_name('toy_training.py')))), 'must have a length'),
    (dict(options=dict(config=str(TOY.with_name('toy_training.py')), images=0)),
     'must see some images, not 0'),
])
def test_files_that_are_no_grid(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_grid(write(tmp_path, **changes))


def test_there_are_grids():
    assert {'compare_methods', 'table1_components', 'table2_negatives', 'table3_windows',
            'table4_schedulers', 'tune_pic', 'tune_simclr', 'tune_mocov2'} <= set(GRIDS)


def build_scheduler(scheduler, optim_wrapper):
    """Refuses arguments that it does not know."""
    config = dict(scheduler)
    assert config.pop('convert_to_iter_based')
    kind = PARAM_SCHEDULERS.get(config.pop('type'))
    kind.build_iter_from_epoch(optimizer=optim_wrapper, epoch_length=10, **config)


@pytest.mark.parametrize('name', GRIDS)
def test_settings_of_a_grid_differ_and_each_change_takes_effect(name):
    """A name that is misspelt would give another digest too, and nothing else."""
    grid = read_grid(name)
    assert len({t.name for t in grid.trainings}) == len(grid.trainings)
    for cfg in [t.cfg for t in grid.trainings if t.seed == grid.trainings[0].seed]:
        assert set(cfg) - set(Config.fromfile(cfg.filename)) <= {'randomness', 'window_phase'}
        model = MODELS.build(cfg.model)  # refuses arguments that it does not know
        built = build_optim_wrapper(model, cfg.optim_wrapper)
        base = cfg.optim_wrapper.optimizer
        keys = cfg.optim_wrapper.get('paramwise_cfg', {}).get('custom_keys', {})
        assert set(keys) <= {'head'}
        assert set(keys.get('head', {})) <= {'lr_mult', 'decay_mult', 'momentum'}
        assert set(cfg.train_dataloader) <= set(
            Config.fromfile(cfg.filename).train_dataloader)
        changes = keys.get('head', {})
        for group in built.optimizer.param_groups:
            is_head = any(parameter is getattr(model.head, 'weight', None)
                          for parameter in group['params']) and bool(keys)
            given = changes if is_head else {}
            assert group['lr'] == base.lr * given.get('lr_mult', 1)
            assert group['weight_decay'] == base.weight_decay * given.get('decay_mult', 1)
            assert group['momentum'] == given.get('momentum', base.momentum)
        for scheduler in cfg.param_scheduler:
            build_scheduler(scheduler, built)
        sampler = cfg.train_dataloader.sampler
        DATA_SAMPLERS.build({**sampler, 'dataset': range(cfg.num_images)})


@pytest.mark.parametrize('name', GRIDS)
def test_published_tables_hold_every_training(name):
    """Their names are digests of the configs: with others `run --results` would train again."""
    grid = read_grid(name)
    known = known_trainings(grid, read_tables(ROOT / 'docs/results'))
    assert known == {training.name for training in grid.trainings}


def test_names_do_not_depend_on_where_code_lies(tmp_path):
    config = tmp_path / 'moved.py'
    config.write_text(TOY.with_name('toy_training.py').read_text()
                      + "custom_imports['imports'].append('os')\n")
    options = [dict(config=str(path), images=160)
               for path in (config, TOY.with_name('toy_training.py'))]
    moved, kept = (read_grid(write(tmp_path, options=given)).trainings for given in options)
    assert ([training.name.rpartition('-')[2] for training in moved]
            == [training.name.rpartition('-')[2] for training in kept])


def test_methods_have_equal_passes_backbones_and_augmentation():
    trainings = [t for t in read_grid('compare_methods').trainings
                 if t.labels['forward passes'] == '60,000' and t.seed == 0]
    passes, backbones, views, steps = set(), set(), set(), set()
    for training in trainings:
        cfg = training.cfg
        pipeline = cfg.train_dataloader.dataset.pipeline
        two = pipeline[0]['type'] == 'MultiView'
        assert cfg.num_views == 1 + two
        if two:
            assert pipeline[0].num_views == 2 and len(pipeline[0].transforms) == 1
        view = pipeline[0].transforms[0] if two else pipeline[:-1]
        views.add(str([dict(transform) for transform in view]))
        batches = cfg.num_images // cfg.train_dataloader.batch_size
        steps.add(cfg.train_cfg.max_epochs * batches)
        passes.add(cfg.train_cfg.max_epochs * batches * cfg.train_dataloader.batch_size
                   * cfg.num_views)
        backbones.add(str(dict(cfg.model.backbone)))
    assert passes == {12 * 39 * 128} and len(trainings) == 4
    assert len(backbones) == len(views) == 1
