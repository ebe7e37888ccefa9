# SPDX-License-Identifier: Apache-2.0
"""Checks that a downstream library and mmcv's compiled ops are there."""
from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

from pic_plugin.dependencies import Requirement, import_required, parse_version

ENVIRONMENT = '.ci/downstream_env .venv-downstream'
LIBRARIES = {
    'mmdet': Requirement('mmdet', '3.3', '3.4', 'pip install mmdet==3.3.0'),
    'mmseg': Requirement('mmseg', '1.2', '1.3',
                         'pip install mmsegmentation==1.2.2 ftfy regex'),
}


def check_downstream(library: str,
                     importer: Callable[[str], ModuleType] = importlib.import_module) -> None:
    """Check mmcv, its ops and a library, in the order in which they fail.

    Not an ImportError: mmengine replaces those of ``custom_imports`` by one without a reason.

    Args:
        library (str): 'mmdet' or 'mmseg'.
        importer (Callable): Called with a module's name. Defaults to Python's import.

    Raises:
        RuntimeError: In one line with the command to run.
    """
    version = importer('mmcv').__version__
    command = ('run `pip uninstall -y mmcv mmcv-lite`, then compile mmcv 2.1.0 as in '
               f'docs/troubleshooting.md, or make an environment that has it with `{ENVIRONMENT}`.')
    if parse_version(version) >= (2, 2):
        raise RuntimeError(f'{library} refuses mmcv {version}, it needs mmcv>=2.0,<2.2: {command}')
    try:
        importer('mmcv._ext')
    except ModuleNotFoundError as error:
        raise RuntimeError(f'{library} needs the compiled ops of mmcv, and mmcv-lite {version}, '
                           f'which has none, is installed: {command}') from error
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise RuntimeError(f'the compiled ops of mmcv {version} do not load ({reason}); they were '
                           f'made for another version of torch: {command}') from error
    try:
        import_required(LIBRARIES[library], importer)
    except ImportError as error:
        raise RuntimeError(str(error)) from error
