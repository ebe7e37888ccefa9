# SPDX-License-Identifier: Apache-2.0
"""The command line of train and test: real runs of a tiny config, and every error in one line."""
import json
import os
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.utils import digit_version
from mmpretrain.registry import MODELS

from pic_plugin.analysis.work_folder import find_run_config
from pic_plugin.command_line import read_runner_config
from pic_plugin.engine import config_file
from pic_plugin.tools import test as test_tool
from pic_plugin.tools import train as train_tool
from toys.processes import command, run_alone, run_ranks

TINY = Path(__file__).with_name('tiny_config.py')
ROOT = Path(__file__).resolve().parents[2]


def run(*words, cwd):
    """Run a new Python with the checkout importable; stdout and stderr together."""
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    return subprocess.run([sys.executable, *map(str, words)], cwd=cwd, env=env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder where the tiny config was trained as ``python -m`` does it, and the output."""
    folder = tmp_path_factory.mktemp('trained')
    status, output = run_alone(command, ['-m', 'pic_plugin.tools.train', TINY], folder)
    assert status == 0, output
    return folder, output


@pytest.fixture
def checkpoint(trained):
    return trained[0] / 'work_dirs' / 'tiny_config' / 'epoch_2.pth'


def merged(*argv, tool=train_tool, config=TINY):
    args = tool.parse_args([str(config), *map(str, argv)])
    return tool.merge_args(read_runner_config(args), args)


def test_train_writes_below_the_name_of_the_config(trained, checkpoint):
    assert checkpoint.is_file()
    assert 'knn/top1_k5' in trained[1]


def test_as_a_script_with_options(tmp_path):
    result = run(train_tool.__file__, TINY, '--work-dir', 'out', '--no-validate', '--launcher',
                 'none', '--cfg-options', 'train_cfg.max_epochs=1', cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    assert (tmp_path / 'out' / 'epoch_1.pth').is_file()
    assert not (tmp_path / 'out' / 'epoch_2.pth').exists()
    assert 'Epoch(val)' not in result.stdout


def test_two_processes_through_torchrun(tmp_path):
    result = run('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', '-m',
                 'pic_plugin.tools.train', TINY, '--launcher', 'pytorch', '--work-dir', 'out',
                 '--cfg-options', 'train_cfg.max_epochs=1', cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    assert 'Epoch(train) [1][3/3]' in result.stdout  # 40 images, 2 processes with 8 each
    assert result.stdout.count('train: ') == 1  # said by one process


@pytest.mark.parametrize('newest', [True, False])
def test_resume_continues(trained, checkpoint, work_dir, newest):
    """From the newest checkpoint in the work folder, or from the one that is given."""
    if newest:
        shutil.copytree(checkpoint.parent, work_dir)
        (work_dir / 'last_checkpoint').write_text(str(work_dir / checkpoint.name))
    train_tool.main([str(TINY), '--work-dir', str(work_dir), '--no-validate', '--resume',
                     *([] if newest else [str(checkpoint)]),
                     '--cfg-options', 'train_cfg.max_epochs=3'])
    log = max(work_dir.glob('*/*.log'), key=os.path.getmtime).read_text()
    assert 'Epoch(train) [3][5/5]' in log and 'Epoch(train) [2]' not in log
    assert torch.load(work_dir / 'epoch_3.pth')['meta']['iter'] == 15


def test_a_config_in_its_work_folder(work_dir):
    """It keeps its comments, and is not trained a second time among the first one's checkpoints."""
    work_dir.mkdir()
    config = work_dir / 'mine.py'
    config.write_text('# the reason\n' + TINY.read_text())
    argv = [str(config), '--work-dir', str(work_dir), '--no-validate', '--cfg-options',
            'train_cfg.max_epochs=1']
    train_tool.main(argv)
    assert config.read_text().startswith('# the reason') and (work_dir / 'epoch_1.pth').is_file()
    before = {path.name for path in work_dir.iterdir()}
    with pytest.raises(SystemExit, match='holds the checkpoints of another training.*--work-dir'):
        train_tool.main(argv)
    assert {path.name for path in work_dir.iterdir()} == before
    train_tool.main([*argv, '--resume'])
    assert config.read_text().startswith('# the reason')


def test_a_run_has_a_log_of_its_own(tmp_path):
    """mmengine names it after the second: here two that runs before this one have taken."""
    taken = [tmp_path / 'out' / time.strftime('%Y%m%d_%H%M%S', time.localtime(second))
             for second in (time.time(), time.time() + 1)]
    for folder in taken:
        folder.mkdir(parents=True)
    train_tool.main([str(TINY), '--work-dir', str(tmp_path / 'out'), '--no-validate',
                     '--cfg-options', 'train_cfg.max_epochs=1'])
    log, = tmp_path.glob('out/*/*.log')
    assert log.parent not in taken


def measured(config, checkpoint, work_dir, out):
    test_tool.main([str(config), str(checkpoint), '--work-dir', str(work_dir), '--out', str(out)])
    return json.loads(out.read_text())['knn/top1_k5']


def test_test_tool_gives_what_validation_gave(trained, checkpoint, work_dir, tmp_path):
    value = measured(TINY, checkpoint, work_dir, tmp_path / 'metrics.json')
    assert f'knn/top1_k5: {value:.4f}' in trained[1]
    assert 0 < value < 100
    # It depends on the weights: those of three random networks.
    content = torch.load(checkpoint)
    others = set()
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        content['state_dict'] = {
            name: tensor + torch.randn(tensor.shape, generator=generator)
            if name.endswith('conv1.weight') else tensor
            for name, tensor in content['state_dict'].items()}
        torch.save(content, tmp_path / 'other.pth')
        others.add(measured(TINY, tmp_path / 'other.pth', work_dir, tmp_path / 'other.json'))
    assert others - {value}


def test_a_test_leaves_the_config_of_the_training(trained, checkpoint, tmp_path):
    """That of a test names the checkpoint as the network from which the training began."""
    work_dir = tmp_path / 'run'
    shutil.copytree(checkpoint.parent, work_dir)
    config, kept = find_run_config(work_dir), (work_dir / TINY.name).read_text()
    measured(TINY, work_dir, work_dir, tmp_path / 'metrics.json')  # its newest checkpoint
    assert find_run_config(work_dir) == config and (work_dir / TINY.name).read_text() == kept
    assert len(list(work_dir.glob('*/vis_data/config.py'))) == 2


def test_two_processes_measure_what_one_does(trained, checkpoint, tmp_path):
    """375 samples: one of the two processes gets one sample twice."""
    values = {}
    for number in (1, 2):
        words = ['-m', 'pic_plugin.tools.test', TINY, checkpoint, '--launcher', 'pytorch', '--out',
                 f'{number}.json']
        for status, output in run_ranks(command, number, words, tmp_path):
            assert status == 0, output
        values[number] = json.loads((tmp_path / f'{number}.json').read_text())['knn/top1_k5']
    # Batches differ, and with them rounding: a near tie may go the other way in one of 125.
    assert abs(values[1] - values[2]) <= 0.81
    assert 0 < values[1] < 100


@pytest.mark.skipif(digit_version(torch.__version__) < digit_version('2.6'),
                    reason='torch before 2.6 loads any object')
@pytest.mark.parametrize('tool', [train_tool, test_tool])
def test_a_checkpoint_with_objects_names_the_opt_in(tmp_path, work_dir, checkpoint, tool):
    old = tmp_path / 'old.pth'
    content = torch.load(checkpoint)
    content['message_hub'] = dict(log_scalars=dict(loss=HistoryBuffer()))
    torch.save(content, old)
    options = [str(old)] if tool is test_tool else ['--resume', str(old)]
    with pytest.raises(SystemExit, match='the checkpoint holds Python objects.*'
                       'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1'):
        tool.main([str(TINY), *options, '--work-dir', str(work_dir)])


@pytest.mark.parametrize('argv, message', [
    (['pic_dmeo.py'], 'train: there is no config pic_dmeo.py: the nearest names are pic_demo.py'),
    ([str(TINY), '--resume', 'gone.pth'], 'train: there is no checkpoint gone.pth.'),
    ([str(TINY.parent)], f'train: {TINY.parent} is a folder'),
])
def test_a_wrong_input_ends_in_one_line(monkeypatch, argv, message, tmp_path):
    (tmp_path / 'pic_demo.py').write_text('')
    monkeypatch.setattr(config_file, 'config_folders', lambda: [tmp_path])
    with pytest.raises(SystemExit) as error:
        train_tool.main(argv)
    assert str(error.value).startswith(message) and '\n' not in str(error.value)


def test_a_missing_data_folder_ends_in_one_line(tmp_path):
    with pytest.raises(SystemExit) as error:
        train_tool.main(['pic_folder.py', '--work-dir', str(tmp_path / 'run'), '--cfg-options',
                         f'train_dataloader.dataset.data_root={tmp_path / "nothing"}'])
    assert str(error.value) == (
        f'train: there is nothing at {tmp_path / "nothing"}: check data_root.')


@pytest.mark.parametrize('option, message', [
    ('val_dataloader.dataset.datasets.0.img_file=nowhere.webp', 'nowhere.webp'),
    ('val_evaluator.topk=1000', 'topk=.* but there are .* references'),
    ('model.backbone.type=ResNett', r'model.backbone.type: nothing is registered as ResNett. Did '
                                    r'you mean ResNet\? Else name the module .* custom_imports'),
    ('model.backbone.type=Qqqqqqqq', 'registered as Qqqqqqqq. Name the module'),
    ('optim_wrapper.optimizer.type=SDG', 'optim_wrapper.optimizer.type: .* Did you mean SGD'),
    ('model.head.loss.temprature=0.1', 'did you mean model.head.loss.temperature'),
    ('model.neck.in_channels=9', 'the backbone gives .* channels, and .* takes 9: set'),
    ('train_cfg.max_epochs=0', 'train_cfg.max_epochs must be a whole number .*, not 0'),
    ('train_cfg.max_epochs=1.5', 'train_cfg.max_epochs must be .*, not 1.5'),
    ('train_cfg.val_interval=0', 'train_cfg.val_interval must be'),
])
def test_one_line_for_what_is_wrong_before_the_first_step_is_done(work_dir, option, message):
    with pytest.raises(SystemExit, match=f'^train: .*{message}') as error:
        train_tool.main([str(TINY), '--work-dir', str(work_dir), '--cfg-options', option])
    assert '\n' not in str(error.value)


def test_a_temperature_alone(work_dir):
    """The loss keeps its type where a config says nothing of it."""
    args = train_tool.parse_args([str(TINY), '--work-dir', str(work_dir), '--cfg-options',
                                  'model.head.loss.temperature=0.1'])
    model = MODELS.build(train_tool.merge_args(read_runner_config(args), args).model)
    assert type(model.head.loss_module).__name__ == 'CosineSoftmaxLoss'
    assert model.head.loss_module.temperature == 0.1


def test_an_error_of_other_code_in_a_step_keeps_its_traceback(work_dir, monkeypatch):
    def fail(self, *args):
        raise ValueError('of somebody else')

    monkeypatch.setattr('mmpretrain.models.ResNet.forward', fail)
    with pytest.raises(ValueError, match='of somebody else'):
        train_tool.main([str(TINY), '--work-dir', str(work_dir)])


@pytest.mark.parametrize('make, message', [
    (lambda folder: None, 'labelled.*: No such file or directory: check data_root, data_prefix'),
    (lambda folder: folder.mkdir(), 'Found 0 files .* have to be in a folder for each class'),
])
def test_faults_of_a_labelled_folder_end_in_one_line(tmp_path, make, message):
    folder = tmp_path / 'labelled'
    make(folder)
    config = tmp_path / 'evaluates.py'
    config.write_text(TINY.read_text().replace('val_evaluator', (
        f"val_dataloader['dataset'] = dict(type='CustomDataset', data_root={str(folder)!r}, "
        'pipeline=[pack])\nval_evaluator')))
    with pytest.raises(SystemExit, match=f'^train: .*{message}') as error:
        train_tool.main([str(config), '--work-dir', str(tmp_path / 'run')])
    assert '\n' not in str(error.value)


def test_a_name_that_a_class_does_not_take(tmp_path):
    config = tmp_path / 'mistake.py'
    config.write_text(TINY.read_text().replace("type='PICHead'", "type='PICHead', temprature=0.1"))
    with pytest.raises(SystemExit) as error:
        train_tool.main([str(config), '--work-dir', str(tmp_path / 'run')])
    assert str(error.value) == (f'train: {config}: there is no temprature in model.head: did you '
                                'mean model.head.loss.temperature?')


def test_a_config_that_needs_pkg_resources_says_what_to_install(tmp_path, monkeypatch):
    config = tmp_path / 'inherits.py'
    config.write_text("_base_ = 'mmpretrain::_base_/default_runtime.py'\n")
    monkeypatch.setitem(sys.modules, 'pkg_resources', None)
    with pytest.raises(SystemExit, match="pip install 'setuptools<82'"):
        train_tool.main([str(config)])


def test_find_config(tmp_path, monkeypatch):
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)  # a path that exists goes before a name
    for name in ('pic/pic_demo.py', 'benchmarks/linear.py', 'benchmarks/inat/linear.py'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('')
    demo = tmp_path / 'pic' / 'pic_demo.py'
    for name in ('pic_demo.py', 'pic_demo', 'pic/pic_demo.py', 'configs/pic/pic_demo.py', demo):
        assert config_file.find_config(str(name), [tmp_path]) == demo
    with pytest.raises(ValueError, match='2 configs are named linear.py'):
        config_file.find_config('linear.py', [tmp_path])
    with pytest.raises(FileNotFoundError, match='there are linear.py, pic_demo.py'):
        config_file.find_config('?', [tmp_path])
    with pytest.raises(FileNotFoundError, match='has no configs of its own'):
        config_file.find_config('zzz', [])


def test_config_folders(tmp_path):
    package = tmp_path / 'pic_plugin'
    (tmp_path / 'configs').mkdir()
    assert config_file.config_folders(package) == []  # site-packages/configs is not ours
    (tmp_path / 'setup.py').write_text('')
    assert config_file.config_folders(package) == [tmp_path / 'configs']
    (package / '.mim' / 'configs').mkdir(parents=True)
    assert config_file.config_folders(package) == [package / '.mim' / 'configs']
    (package / '.mim' / 'configs').rmdir()
    (package / '.mim' / 'configs').symlink_to(tmp_path / 'gone')
    assert config_file.config_folders(package) == [tmp_path / 'configs']


def test_options_reach_the_config(checkpoint):
    merged('--amp', '--cfg-options', 'optim_wrapper.type=mmengine.OptimWrapper')
    cfg = merged('--amp', '--auto-scale-lr', '--resume', checkpoint, '--work-dir', 'here')
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    assert cfg.auto_scale_lr == dict(base_batch_size=16, enable=True)
    assert (cfg.resume, cfg.load_from, cfg.work_dir) == (True, str(checkpoint), 'here')
    assert merged('--resume').load_from is None


def test_without_options_the_config_is_only_completed():
    cfg, plain = merged(), Config.fromfile(TINY)
    for name in ('train_dataloader', 'val_dataloader'):
        loader = cfg[name]
        assert loader.pop('collate_fn') == dict(type='default_collate')
        assert loader.pop('persistent_workers') is False  # no workers
        assert loader.pop('pin_memory') is torch.cuda.is_available()
    assert (cfg.pop('launcher'), cfg.pop('work_dir')) == ('none', 'work_dirs/tiny_config')
    assert cfg.custom_hooks.pop() == dict(type='SaveOnInterruptHook')
    assert cfg.to_dict() == plain.to_dict()


def test_resuming_without_a_checkpoint_is_said(work_dir, monkeypatch):
    texts = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *args: texts.append(str(text)))
    train_tool.main([str(TINY), '--work-dir', str(work_dir), '--no-validate', '--resume'])
    assert any(f'{work_dir} holds no checkpoint, so the training begins anew' in text
               for text in texts)


def test_checkpoints_of_other_names_are_gone_on_from(work_dir, monkeypatch):
    words = [str(TINY), '--work-dir', str(work_dir), '--no-validate', '--cfg-options',
             'default_hooks.checkpoint.filename_tmpl=model-{}.pth', 'train_cfg.max_epochs=1']
    train_tool.main(words)
    texts = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *args: texts.append(str(text)))
    train_tool.main([*words, '--resume'])
    assert not [text for text in texts if 'begins anew' in text]


def test_interrupts_save_where_the_run_can_resume(tmp_path):
    for hooks, expected in (
            ([], []), ([dict(type='PlainCheckpointHook')], [dict(type='SaveOnInterruptHook')]),
            ([dict(type='mmpretrain.InstanceBankHook')], [dict(type='SaveOnInterruptHook')]),
            ([dict(type='InstanceBankHook'), dict(type='SaveOnInterruptHook', interval=3)], [])):
        file = tmp_path / 'config.py'
        Config(dict(Config.fromfile(TINY).to_dict(), custom_hooks=hooks)).dump(str(file))
        assert merged(config=file).custom_hooks == hooks + expected


def test_dataloaders_keep_what_the_config_says():
    options = ('--cfg-options', 'train_dataloader.num_workers=2', 'val_dataloader.num_workers=2',
               'val_dataloader.persistent_workers=False', 'val_dataloader.pin_memory=True')
    cfg = merged(*options)
    assert cfg.train_dataloader.persistent_workers is True
    assert cfg.val_dataloader.persistent_workers is False
    assert cfg.val_dataloader.pin_memory is True
    cfg = merged('--no-persistent-workers', '--no-pin-memory', *options)
    assert cfg.train_dataloader.persistent_workers is False
    assert cfg.val_dataloader.pin_memory is False


def test_scope_of_an_inherited_collate_function_is_dropped():
    cfg = merged('--cfg-options', 'train_dataloader.collate_fn.type=default_collate',
                 'train_dataloader.collate_fn._scope_=mmpretrain')
    assert cfg.train_dataloader.collate_fn == dict(type='default_collate')


def test_options_that_do_not_fit_the_config():
    with pytest.raises(ValueError, match='--amp replaces OptimWrapper, and .* has ApexOptimWrap'):
        merged('--amp', '--cfg-options', 'optim_wrapper.type=ApexOptimWrapper')
    with pytest.raises(ValueError, match='auto_scale_lr = dict'):
        merged('--auto-scale-lr', '--cfg-options', 'auto_scale_lr.base_batch_size=0')
    with pytest.raises(ValueError, match=r'must end in \.json'):
        merged(TINY, '--out', 'metrics.txt', tool=test_tool)


@pytest.mark.parametrize('options', [
    ['--amp'], ['--cfg-options', 'optim_wrapper.type=mmengine.AmpOptimWrapper']])
def test_mixed_precision_without_a_gpu(options, monkeypatch):
    """mmengine would stop with an assertion, some seconds later."""
    monkeypatch.setattr(train_tool, 'get_device', lambda: 'cpu')
    with pytest.raises(SystemExit, match='on cpu: leave --amp out, or, if it is the config'):
        train_tool.main([str(TINY), *options])


def test_configs_without_anything_to_do(tmp_path):
    config = tmp_path / 'empty.py'
    config.write_text('model = dict()\n')
    with pytest.raises(ValueError, match='has no train_dataloader, train_cfg, optim_wrapper'):
        merged(config=config)
    with pytest.raises(ValueError, match='nothing to evaluate: add a val_dataloader'):
        merged(TINY, tool=test_tool, config=config)
    config.write_text('val_dataloader = dict()\nval_evaluator = []\n')
    with pytest.raises(ValueError, match="val_evaluator = dict.type='KNNMetric'"):
        merged(TINY, tool=test_tool, config=config)
    with pytest.raises(FileNotFoundError, match=r'no checkpoint gone\.pth'):
        merged('gone.pth', tool=test_tool)


def test_local_rank_reaches_the_environment_only_when_given(monkeypatch):
    monkeypatch.setattr(os, 'environ', {})
    merged()
    assert os.environ == {}
    merged('--local-rank', '3')
    merged('--local_rank', '4')
    assert os.environ == {'LOCAL_RANK': '3'}


def test_common_arguments_are_those_of_both_tools():
    for tool, required in ((train_tool, ['a']), (test_tool, ['a', 'b'])):
        args = tool.parse_args(required)
        assert isinstance(args, Namespace)
        assert {'work_dir', 'cfg_options', 'launcher', 'local_rank'} <= set(vars(args))
