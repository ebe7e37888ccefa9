# SPDX-License-Identifier: Apache-2.0
"""Wheel, source archive and editable install, each really built, and installed where it matters.

Everything is built from a copy of the checkout and installed, without a network, into small
environments that see this one's packages but not its pic_plugin.
"""
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from pic_plugin.version import __version__

ROOT = Path(__file__).resolve().parents[1]
# Where mim is, setuptools may be too old to build an editable install.
BUILD_PYTHON = os.environ.get('PIC_PLUGIN_BUILD_PYTHON', sys.executable)
CONFIG = 'pic_packaging_probe.py'
# Small enough for a second, with a base next to it as our own configs have.
CONFIG_TEXT = (ROOT / 'tests' / 'tools' / 'tiny_config.py').read_text(encoding='utf-8')


def run(*command, cwd, **env):
    result = subprocess.run([str(part) for part in command], cwd=cwd, text=True,
                            env={**os.environ, 'PYTHONPATH': '', **env},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert result.returncode == 0, result.stdout
    return result.stdout


def build(kind, checkout, out):
    """What pip calls, ``build_wheel``, ``build_sdist`` or ``build_editable``: path of the file."""
    code = (f'import setuptools.build_meta as backend; print(backend.build_{kind}'
            f'({str(out)!r}))')
    return Path(out) / run(BUILD_PYTHON, '-c', code, cwd=checkout).strip().splitlines()[-1]


def make_checkout(folder):
    """A copy of what git would hold, and one more config."""
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(
        '.*', '*.egg-info', 'build', 'dist', '__pycache__', 'work_dirs', 'venv*'))
    (folder / 'configs' / 'pic' / CONFIG).write_text(CONFIG_TEXT, encoding='utf-8')
    return folder


class Environment:
    """A virtual environment that sees the packages of the running one."""

    def __init__(self, folder):
        venv.create(folder, with_pip=False, symlinks=True)
        self.folder = folder
        self.python = folder / 'bin' / 'python'
        version = f'python{sys.version_info.major}.{sys.version_info.minor}'
        self.site = folder / 'lib' / version / 'site-packages'
        # Lines of a .pth file only lengthen the path: the .pth files in there, and with them an
        # editable pic_plugin, have no effect.
        others = [path for path in sys.path if path.endswith('site-packages')]
        if sys.version_info >= (3, 12):  # mmengine wants distutils, which setuptools' .pth brings
            others.append('import _distutils_hack; _distutils_hack.add_shim()')
        (self.site / 'others.pth').write_text('\n'.join(others) + '\n')

    def install(self, wheel):
        run(self.python, '-m', 'pip', 'install', '--no-deps', '--no-index', '--ignore-installed',
            wheel, cwd=self.folder)

    def __call__(self, *command):
        return run(self.python, *command, cwd=self.folder)

    def where(self):
        return Path(self('-c', 'import pic_plugin; print(pic_plugin.__file__)')
                    .strip().splitlines()[-1]).parent


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    return make_checkout(tmp_path_factory.mktemp('source') / 'checkout')


@pytest.fixture(scope='module')
def wheel(checkout, tmp_path_factory):
    return build('wheel', checkout, tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='module')
def sdist(checkout, tmp_path_factory):
    return build('sdist', checkout, tmp_path_factory.mktemp('sdist'))


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp('installed'))
    environment.install(wheel)
    return environment


@pytest.fixture(scope='module')
def editable(tmp_path_factory):
    """An editable install and its checkout, which is its own: it is changed."""
    folder = tmp_path_factory.mktemp('editable')
    checkout = make_checkout(folder / 'checkout')
    environment = Environment(folder / 'environment')
    environment.install(build('editable', checkout, folder))
    return environment, checkout


def files_below(folder, *patterns):
    return {file.relative_to(folder).as_posix() for pattern in patterns
            for file in folder.rglob(pattern) if '__pycache__' not in file.parts}


def test_wheel_holds_the_package_its_data_and_what_mim_needs(wheel, checkout):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name == f'pic_plugin-{__version__}-py3-none-any.whl'
    expected = {f'pic_plugin/{file}' for file in files_below(
        checkout / 'pic_plugin', '*.py', '*.webp', 'py.typed', 'report.*')}
    expected |= {f'pic_plugin/.mim/configs/{file}'
                 for file in files_below(checkout / 'configs', '*')
                 if (checkout / 'configs' / file).is_file()}
    expected |= {'pic_plugin/.mim/model-index.yml'}
    assert expected <= names
    assert {name.split('/')[0] for name in names} == {
        'pic_plugin', f'pic_plugin-{__version__}.dist-info'}
    assert not [name for name in names if name.endswith('.pyc') or '/test_' in name]


def test_wheel_asks_for_neither_torch_nor_mmcv(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(f'pic_plugin-{__version__}.dist-info/METADATA').decode()
    always = [line.split(': ')[1] for line in metadata.splitlines()
              if line.startswith('Requires-Dist') and 'extra ==' not in line]
    assert {'mmengine<0.11,>=0.10.3', 'mmpretrain<2,>=1.2'} <= set(always)
    assert not [line for line in always if line.startswith(('torch', 'mmcv', 'mmdet', 'mmseg'))]
    assert 'mmcv-lite==2.1.0; extra == "lite"' in metadata.replace(' ;', ';')


def test_building_leaves_the_sources_alone(wheel, sdist, checkout):
    assert not (checkout / 'pic_plugin' / '.mim').exists()


def test_a_config_that_was_renamed_is_not_in_the_next_wheel(tmp_path):
    checkout = make_checkout(tmp_path / 'checkout')
    build('wheel', checkout, tmp_path)
    (checkout / 'configs' / 'pic' / CONFIG).rename(checkout / 'configs' / 'pic' / 'renamed.py')
    names = zipfile.ZipFile(build('wheel', checkout, tmp_path)).namelist()
    assert 'pic_plugin/.mim/configs/pic/renamed.py' in names
    assert f'pic_plugin/.mim/configs/pic/{CONFIG}' not in names


def test_sdist_gives_the_same_wheel(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path)
    assert not [name for name in names if '/tests' in name or '/.' in name]
    assert {f'pic_plugin-{__version__}/{name}' for name in
            ('LICENSE', 'CHANGELOG.md', 'README.md', 'model-index.yml')} <= set(names)
    again = build('wheel', tmp_path / f'pic_plugin-{__version__}', tmp_path)
    assert (sorted(zipfile.ZipFile(again).namelist())
            == sorted(zipfile.ZipFile(wheel).namelist()))


def test_installed_wheel_finds_its_configs_and_data(installed):
    assert installed.where() == installed.site / 'pic_plugin'
    code = f'from pic_plugin.engine.config_file import find_config; print(find_config({CONFIG!r}))'
    assert Path(installed('-c', code).strip().splitlines()[-1]) == (
        installed.site / 'pic_plugin' / '.mim' / 'configs' / 'pic' / CONFIG).resolve()


def test_installed_wheel_trains_by_bare_name(installed):
    installed('-m', 'pic_plugin.tools.train', CONFIG, '--work-dir', 'by_module', '--no-validate',
              '--cfg-options', 'train_cfg.max_epochs=1')
    assert (installed.folder / 'by_module' / 'epoch_1.pth').is_file()


def test_editable_install_follows_the_checkout(editable):
    environment, checkout = editable
    assert environment.where() == checkout / 'pic_plugin'
    late = checkout / 'configs' / 'pic' / 'written_later.py'
    late.write_text('')
    linked = checkout / 'pic_plugin' / '.mim' / 'configs' / 'pic' / late.name
    assert linked.is_file() and linked.resolve() == late


def test_editable_install_is_found_by_its_metadata(editable):
    """As mmengine and mim look for it: folder of the metadata, joined with top_level.txt."""
    environment, checkout = editable
    code = "from mmengine.utils import get_installed_path as f; print(f('pic_plugin'))"
    assert environment('-c', code).strip().splitlines()[-1] == str(checkout / 'pic_plugin')


def test_editable_install_again_replaces_what_an_earlier_one_left(editable, tmp_path):
    checkout = editable[1]
    mim = checkout / 'pic_plugin' / '.mim'
    (mim / 'configs').unlink()
    (mim / 'configs').symlink_to(tmp_path / 'gone')
    (mim / 'stale').mkdir()
    build('editable', checkout, tmp_path)
    assert sorted(path.name for path in mim.iterdir()) == ['configs', 'model-index.yml']
    assert os.readlink(mim / 'configs') == os.path.join('..', '..', 'configs')


def test_model_index_names_existing_configs_and_no_weights():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text(encoding='utf-8'))
    collections = {collection['Name'] for collection in index['Collections']}
    for model in index['Models']:
        assert model['In Collection'] in collections
        assert (ROOT / model['Config']).is_file(), model['Config']
        assert Path(model['Config']).stem == model['Name']
        assert 'Weights' not in model
        for result in model['Results'] or []:
            assert 'the authors' in result['Task']


def test_names_of_configs_are_unique():
    """mim and our tools find a config by its name alone."""
    names = [file.name for file in (ROOT / 'configs').rglob('*.py')]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.mim
@pytest.mark.parametrize('kind', ['installed', 'editable'])
def test_mim_train_by_bare_name(kind, request):
    environment = request.getfixturevalue(kind)
    environment = environment[0] if kind == 'editable' else environment
    output = environment(
        '-m', 'mim', 'train', 'pic_plugin', CONFIG, '--work-dir', 'by_mim', '--no-validate',
        '--cfg-options', 'train_cfg.max_epochs=1')
    assert 'Training finished successfully.' in output
    assert (environment.folder / 'by_mim' / 'epoch_1.pth').is_file()
    output = environment('-m', 'mim', 'train', 'pic_plugin', CONFIG, '--resume', '--work-dir',
                         'by_mim', '--no-validate')
    assert 'Epoch(train) [2][5/5]' in output and 'Epoch(train) [1]' not in output
    output = environment('-m', 'mim', 'test', 'pic_plugin', CONFIG, '--checkpoint',
                         'by_mim/epoch_2.pth', '--work-dir', 'by_mim')
    assert 'knn/top1_k5' in output


@pytest.mark.mim
@pytest.mark.parametrize('kind', ['installed', 'editable'])
def test_mim_run_finds_the_tools(kind, request):
    environment = request.getfixturevalue(kind)
    environment = environment[0] if kind == 'editable' else environment
    output = environment('-m', 'mim', 'run', 'pic_plugin', 'train', CONFIG, '--work-dir', 'by_run',
                         '--no-validate', '--cfg-options', 'train_cfg.max_epochs=1')
    assert 'The script finished successfully.' in output
    assert (environment.folder / 'by_run' / 'epoch_1.pth').is_file()


@pytest.mark.mim
def test_mim_train_of_mmpretrain_with_custom_imports(installed):
    config = installed.folder / 'own_config.py'
    config.write_text(CONFIG_TEXT + "\ncustom_imports = dict(imports=['pic_plugin'], "
                      'allow_failed_imports=False)\ntrain_dataloader.update('
                      'persistent_workers=False)\nval_dataloader.update(persistent_workers=False)\n')
    output = installed('-m', 'mim', 'train', 'mmpretrain', config, '--work-dir', 'mmpretrain',
                       '--cfg-options', 'train_cfg.max_epochs=1')
    assert 'Training finished successfully.' in output


def test_installed_wheel_pretrains_on_a_folder(installed, tmp_path):
    """As a stranger would, far from the repository: one command, then the features."""
    code = ('import cv2; from pic_plugin.datasets import ImageGrid\n'
            "for number, one in enumerate(ImageGrid('cifar10_test_1000.webp', indices=24)):\n"
            "    cv2.imwrite(f'pictures/{number}.png', one['img'])")
    (installed.folder / 'pictures').mkdir()
    installed('-c', code)
    output = installed('-m', 'pic_plugin.tools.pretrain', 'pictures', '--out', 'pretrained',
                       '--backbone', 'resnet18', '--images-seen', '48', '--no-report')
    assert 'images                      24' in output and 'into torchvision resnet18' in output
    output = installed('-m', 'pic_plugin.tools.embed', 'pictures', 'pretrained', '--out', 'f.npy')
    assert 'f.npy: 24 pictures, 512 numbers each' in output
