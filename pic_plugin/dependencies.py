# SPDX-License-Identifier: Apache-2.0
"""Checks what must be installed, before an import of it fails with a message that helps nobody.

By import and ``__version__``, never by the name of a distribution: mmcv and mmcv-lite install the
same module, and so do the forks of OpenMMLab's packages under other names.
"""
from __future__ import annotations

import importlib
import importlib.util
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

Version = tuple[int, ...]


@dataclass(frozen=True)
class Requirement:
    """A module, the versions that work, and how to get one.

    Args:
        module (str): Name to import.
        minimum (str): First version that works.
        below (str, optional): First version that does not work any more. Defaults to None, no
            limit.
        command (str): What to run when it is missing or has another version.
    """
    module: str
    minimum: str
    below: str | None
    command: str

    @property
    def range(self) -> str:
        """Versions that work, as pip would write them."""
        return f'>={self.minimum}' + (f',<{self.below}' if self.below else '')

    def allows(self, version: str) -> bool:
        """Whether a version lies in the range."""
        release = parse_version(version)
        return release >= parse_version(self.minimum) and (
            self.below is None or release < parse_version(self.below))


TORCH_COMMAND = 'pip install torch==2.14.1 torchvision==0.29.1'
MMCV_COMMAND = 'pip install mmcv-lite==2.1.0'

# In the order of their imports: mmengine imports torch, mmcv mmengine, and mmpretrain asserts the
# versions of both in words that do not say what to run.
REQUIREMENTS = (
    Requirement('torch', '2.1', None, TORCH_COMMAND),
    Requirement('torchvision', '0.16', None, TORCH_COMMAND),
    # engine/runner_private.py is tested with each of these.
    Requirement('mmengine', '0.10.3', '0.11', "pip install 'mmengine>=0.10.3,<0.11'"),
    Requirement('mmcv', '2.0', '2.4', MMCV_COMMAND),
    Requirement('mmpretrain', '1.2', '2', "pip install 'mmpretrain>=1.2,<2'"),
)


OPENMMLAB = ('mmengine', 'mmcv', 'mmpretrain')
CORE_ONLY = ('mmengine, mmcv and mmpretrain are not installed: pic_plugin.bank and '
             'pic_plugin.losses work in a training loop of your own; for configs, `mim train` and '
             "the tools run `pip install 'pic_plugin[lite]'`.")


def has_openmmlab() -> bool:
    """Whether any of OpenMMLab's packages is installed, in whatever version."""
    return any(importlib.util.find_spec(name) is not None for name in OPENMMLAB)


def warn_of_core_only() -> None:
    """Say that there is the core alone, and how to get the rest."""
    warnings.warn(CORE_ONLY, stacklevel=3)


def parse_version(version: str) -> Version:
    """Release numbers of a version without trailing zeros: '2.1.0+cu121' and '2.1' are (2, 1).

    Raises:
        ValueError: If it does not start with a number.
    """
    release = re.match(r'\d+(\.\d+)*', version)
    if release is None:
        raise ValueError(f'{version!r} is not a version: it does not start with a number.')
    return tuple(int(number) for number in re.sub(r'(\.0+)+$', '', release.group()).split('.'))


def import_required(requirement: Requirement,
                    importer: Callable[[str], ModuleType] = importlib.import_module) -> str:
    """Import a module and say its version.

    Args:
        requirement (Requirement): What to import and which versions work.
        importer (Callable): Called with the module's name. Defaults to Python's import.

    Returns:
        str: The module's ``__version__``.

    Raises:
        ImportError: In one line with the command to run, if the module is missing, does not
            import, or has a version that does not work.
    """
    name, command = requirement.module, requirement.command
    try:
        module = importer(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise ImportError(f'pic_plugin needs {name}{requirement.range}, and there is none: '
                              f'run `{command}`.') from error
        raise ImportError(f'pic_plugin needs {name}, which itself misses the module {error.name}: '
                          f'run `{command}`, or install {error.name}.') from error
    # A package built for another version of torch, or whose own checks fail, raises anything.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImportError(f'pic_plugin needs {name}, which is installed but does not import '
                          f'({reason}): run `{command}`.') from error
    version = getattr(module, '__version__', None)
    if version is None:
        raise ImportError(_incomplete(requirement))
    if not requirement.allows(version):
        raise ImportError(f'pic_plugin needs {name}{requirement.range}, and {name} {version} is '
                          f'installed: run `{command}`.')
    return version


def _incomplete(requirement: Requirement) -> str:
    if requirement.module == 'mmcv':
        return ('pic_plugin finds only a part of mmcv (mmcv and mmcv-lite share a folder, and '
                'removing one breaks the other): run `pip uninstall -y mmcv mmcv-lite && '
                f'{requirement.command}`.')
    return (f'pic_plugin finds only a part of {requirement.module}: run `pip uninstall -y '
            f'{requirement.module} && {requirement.command}`.')


def check_numpy(numpy_version: str, torch_version: str) -> None:
    """Builds of torch before 2.3 cannot exchange arrays with numpy 2.

    Raises:
        ImportError: In one line with the command to run, if the two do not go together.
    """
    if parse_version(torch_version) < (2, 3) and parse_version(numpy_version) >= (2,):
        # opencv-python 4.12 and later would bring numpy 2 back.
        raise ImportError(f'torch {torch_version} does not work with numpy {numpy_version}: run '
                          "`pip install 'numpy<2' 'opencv-python<4.12'`.")


def check_new_mmcv(version: str, importer: Callable[[str], ModuleType]) -> None:
    """Warn that mmcv 2.2 and 2.3, which mmpretrain takes, close the way to mmdet and mmseg.

    Raises:
        ImportError: If there is an mmdet that refuses it: mmpretrain's models import mmdet where
            they find it, and would stop with its assertion.
    """
    if parse_version(version) < (2, 2):
        return
    environment = '`.ci/downstream_env .venv-downstream`'
    try:
        importer('mmdet')
    except ModuleNotFoundError:
        pass
    except AssertionError as error:
        raise ImportError(
            f'mmdet refuses mmcv {version}, and mmpretrain imports mmdet: make an environment with '
            f'mmcv 2.1.0 by {environment}, or, to pre-train only, run `pip uninstall -y mmdet`.'
        ) from error
    warnings.warn(
        f'mmcv {version} works for pre-training, but mmdet 3.3 and mmseg 1.2 refuse it: for '
        f'detection and segmentation make an environment with mmcv 2.1.0 by {environment}.',
        stacklevel=3)


def check_dependencies(
        importer: Callable[[str], ModuleType] = importlib.import_module) -> None:
    """Import everything that pic_plugin builds on and check the versions.

    Args:
        importer (Callable): Called with a module's name. Defaults to Python's import.

    Raises:
        ImportError: In one line with the command to run.
    """
    versions = {}
    for requirement in REQUIREMENTS:
        versions[requirement.module] = import_required(requirement, importer)
        if requirement.module == 'torch':
            check_numpy(importer('numpy').__version__, versions['torch'])
    check_new_mmcv(versions['mmcv'], importer)


def explain_missing_pkg_resources(error: ModuleNotFoundError) -> str | None:
    """What to run when a config cannot be read because setuptools is too new or absent.

    mmengine imports pkg_resources when ``_base_`` names another package
    (``_base_ = 'mmpretrain::...'``). setuptools 82 dropped it, and Python 3.12 brings none.

    Args:
        error (ModuleNotFoundError): What reading the config raised.

    Returns:
        str | None: One line, or None if the error has another cause.
    """
    if error.name != 'pkg_resources':
        return None
    return ("mmengine needs pkg_resources to read `_base_ = 'package::...'`, which setuptools 82 "
            "dropped: run `pip install 'setuptools<82'`.")
