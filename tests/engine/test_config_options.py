# SPDX-License-Identifier: Apache-2.0
"""An option of the command line takes effect, or stops the tool with the name that was meant."""
from pathlib import Path

import pytest
from mmengine.config import Config

import pic_plugin  # noqa: F401
from pic_plugin.command_line import read_runner_config
from pic_plugin.engine.config_names import items_of
from pic_plugin.engine.config_options import apply_options, arguments_of
from pic_plugin.tools import train as train_tool

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/pic'


def changed(name='pic_folder', **options):
    file = CONFIGS / f'{name}.py'
    return apply_options(file, Config.fromfile(file), options)


def test_names_at_the_top_of_pic_folder():
    cfg = changed(batch_size=16, learning_rate=0.002, max_epochs=20, image_size=96,
                  data_root='/pictures', warmup_epochs=2)
    assert cfg.train_dataloader.batch_size == 16
    assert cfg.optim_wrapper.optimizer.lr == 0.002
    assert cfg.train_cfg.max_epochs == 20
    assert '96' in str(cfg.train_dataloader.dataset.pipeline)
    assert cfg.train_dataloader.dataset.data_root == '/pictures'
    assert [scheduler.end for scheduler in cfg.param_scheduler] == [2, 20]
    assert cfg.filename == str(CONFIGS / 'pic_folder.py')


@pytest.mark.parametrize('name', sorted(
    path.stem for path in CONFIGS.glob('pic_*.py')))
def test_the_length_of_every_config(name):
    """Its schedule follows; a warm-up of no epoch is none."""
    cfg = changed(name, max_epochs=12, warmup_epochs=2)
    assert cfg.train_cfg.max_epochs == 12
    assert [(one.begin, one.end) for one in cfg.param_scheduler] == [(0, 2), (2, 12)]
    cfg = changed(name, max_epochs=12, warmup_epochs=0)
    assert [(one.begin, one.end) for one in cfg.param_scheduler] == [(0, 12)]


def test_names_through_the_command_line(tmp_path):
    args = train_tool.parse_args(['pic_folder.py', '--cfg-options', 'batch_size=16',
                                  'train_dataloader.batch_size=4', 'window_size=500'])
    cfg = train_tool.merge_args(read_runner_config(args), args)
    assert cfg.train_dataloader.batch_size == 4  # the more exact of the two
    assert cfg.train_dataloader.sampler.window_size == 500
    assert cfg.work_dir == 'work_dirs/pic_folder'


def test_names_of_a_file_that_is_inherited_from(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text(f"_base_ = [{str(CONFIGS / 'pic_folder.py')!r}]\n"
                    'side = 3\nrandomness = dict(seed=side, deterministic={{_base_.data_root}})\n')
    cfg = apply_options(file, Config.fromfile(file), dict(side=7, batch_size=16, data_root=3))
    assert cfg.randomness == dict(seed=7, deterministic=3)
    assert cfg.train_dataloader.batch_size == 16
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_with_environment_variables(tmp_path, monkeypatch):
    monkeypatch.setenv('PIC_TEST_SIDE', '4')
    file = tmp_path / 'mine.py'
    file.write_text("side = {{'$PIC_TEST_SIDE:3'}}\nname = '{{$PIC_TEST_NAME:mine}}'\n"
                    'randomness = dict(seed=side)\nwork_dir = name\n')
    assert apply_options(file, Config.fromfile(file), dict(name='b')).work_dir == 'b'
    cfg = apply_options(file, Config.fromfile(file), dict(side=7))
    assert cfg.randomness.seed == 7 and cfg.work_dir == 'mine'


def test_a_base_that_is_no_python(tmp_path):
    """It sets no variables, and is inherited from where it lies."""
    (tmp_path / 'deeper.json').write_text('{"work_dir": "here"}')
    (tmp_path / 'base.yaml').write_text('_base_: ./deeper.json\nmodel:\n  type: PIC\n')
    file = tmp_path / 'mine.py'
    file.write_text("_base_ = './base.yaml'\nside = 3\nrandomness = dict(seed=side)\n")
    cfg = apply_options(file, Config.fromfile(file), dict(side=7))
    assert cfg.randomness.seed == 7 and cfg.model.type == 'PIC' and cfg.work_dir == 'here'


def test_a_dumped_config_says_what_to_set(tmp_path):
    """Its variables are copies."""
    file = tmp_path / 'dumped.py'
    Config.fromfile(CONFIGS / 'pic_folder.py').dump(str(file))
    with pytest.raises(ValueError, match='batch_size is a variable of .*dumped.py that nothing is '
                                         'computed from: set train_dataloader.batch_size'):
        apply_options(file, Config.fromfile(file), dict(batch_size=16))
    with pytest.raises(ValueError, match='learning_rate .*: set optim_wrapper.optimizer.lr'):
        apply_options(file, Config.fromfile(file), dict(learning_rate=0.5))


NEW_STYLE = '''from torch.optim import SGD
batch = 8
steps = [dict(type='PackInputs'), dict(type='CenterCrop', crop_size=3)]
train_dataloader = dict(batch_size=batch, dataset=dict(pipeline=steps))
'''
INHERITED = "_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64_pil_resize.py']\n"


@pytest.mark.parametrize('text, key, meant', [
    (NEW_STYLE, 'batch', 'train_dataloader.batch_size'),
    (NEW_STYLE, 'steps.1.crop_size', 'train_dataloader.dataset.pipeline.1.crop_size'),
    (INHERITED, 'dataset_type', 'train_dataloader.dataset.type'),
    (INHERITED, 'train_pipeline.1.scale', 'train_dataloader.dataset.pipeline.1.scale'),
])
def test_a_variable_of_a_file_that_is_not_read_again(tmp_path, text, key, meant):
    """Nothing would be computed from it: of another package, or in mmengine's new style."""
    file = tmp_path / 'mine.py'
    file.write_text(text)
    with pytest.raises(ValueError, match=f'--cfg-options {key}: .*mine.py.*: set {meant}'):
        apply_options(file, Config.fromfile(file), {key: 32})
    cfg = apply_options(file, Config.fromfile(file), {meant: 32})
    assert dict(items_of(cfg.to_dict()))[meant] == 32


def test_a_variable_that_is_adjusted_further_down(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text('epochs = 8\nwarm = 5\nwarm = min(warm, epochs // 2)\n'
                    'train_cfg = dict(max_epochs=epochs, val_interval=warm)\n')
    cfg = apply_options(file, Config.fromfile(file), dict(warm=3))
    assert cfg.train_cfg == dict(max_epochs=8, val_interval=3)
    cfg = apply_options(file, Config.fromfile(file), dict(warm=3, epochs=4))
    assert cfg.train_cfg == dict(max_epochs=4, val_interval=2)


def test_parts_of_a_variable():
    with pytest.raises(ValueError, match='train_pipeline is a variable of .*: set '
                                         r'train_dataloader\.dataset\.pipeline\.2\.size'):
        changed(**{'train_pipeline.2.size': 3})


@pytest.mark.parametrize('key, meant', [
    ('max_epoch', 'max_epochs'),
    ('train_dataloder.batch_size', 'train_dataloader'),
    ('train_dataloader.batchsize', 'train_dataloader.batch_size'),
    ('train_dataloader.sampler.window', 'train_dataloader.sampler.window_size'),
    ('train_dataloader.dataset.data_rot', 'train_dataloader.dataset.data_root'),
    ('train_cfg.max_epoch', 'train_cfg.max_epochs'),
    ('optim_wrapper.optimzer.lr', 'optim_wrapper.optimizer'),
    ('optim_wrapper.optimizer.learning_rate', 'optim_wrapper.optimizer'),
    ('optim_wrapper.optimizer.weight_deca', 'optim_wrapper.optimizer.weight_decay'),
    ('model.backbone.dept', 'model.backbone.depth'),
    ('model.head.num_negative', 'model.head.num_negatives'),
    ('model.head.temprature', 'model.head.loss.temperature'),
    ('optim_wrapper.momntum', 'optim_wrapper.optimizer.momentum'),
    ('param_scheduler.1.eta_mn', 'param_scheduler.1.eta_min'),
    ('default_hooks.checkpoint.intervall', 'default_hooks.checkpoint.interval'),
    ('default_hooks.chekpoint.interval', 'default_hooks.checkpoint'),
    ('custom_hooks.0.log_intervall', 'custom_hooks.0.log_interval'),
    ('env_cfg.cudn_benchmark', 'env_cfg.cudnn_benchmark'),
    ('randomness.sed', 'randomness.seed'),
    ('auto_scale_lr.base_batch', 'auto_scale_lr.base_batch_size'),
    ('model.data_preprocessor.men', 'model.data_preprocessor.mean'),
])
def test_a_key_that_nothing_looks_at(key, meant):
    with pytest.raises(ValueError, match=f'--cfg-options {key}: there is no ') as error:
        changed(**{key: 1})
    assert meant in str(error.value)


@pytest.mark.parametrize('key, value', [
    ('randomness.seed', 3), ('env_cfg.mp_cfg.opencv_num_threads', 1), ('resume', True),
    ('optim_wrapper.optimizer.nesterov', True), ('optim_wrapper.clip_grad.max_norm', 1.0),
    ('optim_wrapper.accumulative_counts', 2), ('optim_wrapper.paramwise_cfg.norm_decay_mult', 0.0),
    ('model.backbone.frozen_stages', 1), ('model.head.storage.type', 'mmap'),
    ('model.neck.with_avg_pool', False), ('train_dataloader.drop_last', True),
    ('train_dataloader.prefetch_factor', 4), ('train_dataloader.sampler.seed', 3),
    ('train_dataloader.dataset.indices', 8), ('default_hooks.checkpoint.save_best', 'knn/top1_k5'),
    ('default_hooks.visualization.type', 'VisualizationHook'), ('train_cfg.val_interval', 3),
    ('custom_hooks.0.priority', 3), ('visualizer.type', 'Visualizer'), ('compile', True),
    ('model.backbone.init_cfg.checkpoint', 'a'), ('model_wrapper_cfg.type', 'a'),
    ('runner_type', 'CPURunner'), ('find_unused_parameters', True), ('val_cfg.fp16', True),
    ('log_processor.window_size', 5),
])
def test_new_keys_that_something_looks_at(key, value):
    cfg = changed(**{key: value})
    for part in key.split('.'):
        cfg = cfg[int(part)] if part.isdigit() else cfg[part]
    assert cfg == value


def test_an_index_that_is_not_there():
    with pytest.raises(ValueError, match='--cfg-options: '):
        changed(**{'param_scheduler.7.end': 3})


def test_custom_imports_are_executed(tmp_path, monkeypatch):
    (tmp_path / 'module_of_a_user.py').write_text('import sys\nsys.user_was_here = True\n')
    monkeypatch.syspath_prepend(tmp_path)
    import sys
    monkeypatch.delattr(sys, 'user_was_here', raising=False)
    changed(**{'custom_imports.imports': ['module_of_a_user']})
    assert sys.user_was_here


def test_classes_that_pass_arguments_on():
    class Base:
        def __init__(self, a):
            pass

    class Passing(Base):
        def __init__(self, b, **kwargs):
            pass

    class Anything:
        def __init__(self, **kwargs):
            pass

    assert {'a', 'b'} <= arguments_of(Passing)
    assert arguments_of(Anything) is None
