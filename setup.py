# SPDX-License-Identifier: Apache-2.0
"""Packaging. mim finds configs in ``pic_plugin/.mim``: links if editable, copies in a wheel."""
import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.develop import develop

try:
    from setuptools.command.editable_wheel import editable_wheel
except ImportError:  # setuptools < 64, where pip makes editable installs with `develop`
    editable_wheel = None

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / 'pic_plugin'
MIM_RESOURCES = ('configs', 'model-index.yml')


def remove(path):
    """Remove a file, a link (not what it points to) or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()


def copy(source, target):
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__'))
    else:
        shutil.copyfile(source, target)


def link_mim_resources():
    """Make ``pic_plugin/.mim`` of the checkout point to its configs, so that edits are seen."""
    folder = PACKAGE / '.mim'
    remove(folder)
    folder.mkdir()
    for name in MIM_RESOURCES:
        try:
            (folder / name).symlink_to(os.path.join('..', '..', name),
                                       target_is_directory=(ROOT / name).is_dir())
        except OSError:  # Windows without the right to make links
            copy(ROOT / name, folder / name)


class BuildWithMim(build_py):
    """Copies what mim looks for into the wheel; the checkout stays as it is."""

    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        folder = Path(self.build_lib, 'pic_plugin', '.mim')
        remove(folder)  # build/ may hold a config that has been renamed since
        folder.mkdir(parents=True)
        for name in MIM_RESOURCES:
            copy(ROOT / name, folder / name)


class DevelopWithMim(develop):
    def run(self):
        link_mim_resources()
        super().run()


COMMANDS = {'build_py': BuildWithMim, 'develop': DevelopWithMim}

if editable_wheel is not None:

    class EditableWithMim(editable_wheel):
        """PEP 517 editable install.

        mim (and mmengine) join the folder of the ``.dist-info`` with the first line of its
        top_level.txt to find a package. That is site-packages, where an editable install has no
        folder of the package; an absolute path on that line survives the join.
        """

        def run(self):
            link_mim_resources()
            if self.dist_info_dir is None:
                dist_info = self.reinitialize_command('dist_info')
                dist_info.output_dir = str(self.dist_dir)
                dist_info.ensure_finalized()
                dist_info.run()
                self.dist_info_dir = dist_info.dist_info_dir
            Path(self.dist_info_dir, 'top_level.txt').write_text(
                f'{PACKAGE}\npic_plugin\n', encoding='utf-8')
            super().run()

    COMMANDS['editable_wheel'] = EditableWithMim


def read_version():
    scope = {}
    exec((PACKAGE / 'version.py').read_text(encoding='utf-8'), scope)
    return scope['__version__']


def read_description():
    readme = ROOT / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.exists() else ''


EXTRAS = {
    # mmcv and mmcv-lite install the same folder. Pre-training needs only the latter; those who have
    # mmcv for mmdet or mmseg must not get it on top.
    'lite': ['mmcv-lite==2.1.0'],
    # mim imports pkg_resources, which setuptools 82 dropped.
    'mim': ['openmim==0.3.9', 'setuptools<82'],
    # Both refuse mmcv >= 2.2 and need its compiled ops: install mmcv==2.1.0 yourself, in place of
    # the extra `lite`. mmseg imports ftfy and regex without declaring them.
    'downstream': ['mmdet==3.3.0', 'mmsegmentation==1.2.2', 'ftfy', 'regex'],
    'tensorboard': ['tensorboard'],
    # Decodes JPEG faster than OpenCV; `benchmark pipeline` measures by how much.
    'fast': ['simplejpeg>=1.7'],
    # Figures, features on a map, and the report's page; `umap-learn` besides for another kind of
    # map.
    'analysis': ['matplotlib', 'scikit-learn', 'jinja2'],
    # Pictures of telephones (HEIC); AVIF is Pillow's own from 11.3 on.
    'heif': ['pillow-heif', 'pillow>=11.3'],
    # Data sets in an LMDB, and those of Hugging Face on disk.
    'lmdb': ['lmdb'],
    'huggingface': ['datasets'],
    # Features as Parquet, and the backbone as ONNX.
    'parquet': ['pyarrow'],
    'onnx': ['onnx', 'onnxruntime', 'onnxscript'],
    # The report's test in a browser; Debian's package chromium besides.
    'browser': ['playwright'],
    'tests': ['pytest>=7.3', 'pytest-xdist', 'hypothesis', 'psutil', 'tensorboard',
              'setuptools>=64,<82', 'wheel'],
    # The site: sphinx-build -W docs docs/_build.
    'docs': ['sphinx>=8,<10', 'myst-parser>=4', 'furo'],
    # Pinned: a new linter finds new faults in old code.
    'lint': ['ruff==0.17.6', 'mypy==2.4.1'],
}
EXTRAS['tests'] += EXTRAS['analysis'] + EXTRAS['fast']
EXTRAS['dev'] = EXTRAS['lite'] + EXTRAS['tests'] + EXTRAS['lint']

setup(
    name='pic_plugin',  # mim maps a distribution to a package only if both have one name
    version=read_version(),
    description='Parametric Instance Classification (PIC) pre-training for OpenMMLab',
    long_description=read_description(),
    long_description_content_type='text/markdown',
    keywords='self-supervised learning, instance classification, OpenMMLab, computer vision',
    license='Apache-2.0',
    python_requires='>=3.9',
    packages=find_packages(include=['pic_plugin', 'pic_plugin.*']),
    package_data={'pic_plugin': ['py.typed', 'data/*']},
    include_package_data=False,
    # Not here: torch and torchvision, which pip could replace by a build for another CUDA, and
    # mmcv (see the extras). pic_plugin/dependencies.py checks all of them at import.
    install_requires=[
        'mmengine>=0.10.3,<0.11',
        'mmpretrain>=1.2,<2',
        'numpy',
        'pillow',
        # mmengine imports pkg_resources for `_base_ = 'mmpretrain::...'` and does not declare it.
        'setuptools<82',
    ],
    extras_require=EXTRAS,
    cmdclass=COMMANDS,
    zip_safe=False,
)
