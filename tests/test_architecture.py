# SPDX-License-Identifier: Apache-2.0
"""The direction of imports, read from the source: each part knows only the parts below it."""
from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / 'pic_plugin'
# From the top. A part imports from its own line and from those below; parts on one line do not
# know each other.
LAYERS = (
    ('tools', ),
    ('command_line', ),
    ('studies', ),
    ('features', ),
    ('pretrain', ),
    ('analysis', ),
    ('transfer', 'evaluation'),
    ('engine', ),
    ('models', ),
    ('losses', 'datasets'),
    ('bank', ),
    ('communication', ),
    ('files', 'output', 'random_bits', 'dependencies', 'version', 'data', 'wording'),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
STUDY_TOOLS = ('ablation', 'ahead', 'benchmark', 'compare_transfer', 'make_scenes',
               'saliency_seeds', 'two_objects')
# The core: it works where OpenMMLab is not installed.
FREE_OF_OPENMMLAB = ('bank', 'losses', 'communication', 'files', 'random_bits')
OPENMMLAB = {'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg'}


def part_of(module: str) -> str:
    """``pic_plugin.bank.row_store`` -> ``bank``; '' for the package itself."""
    return '.'.join(module.split('.')[1:2])


def name_of(file: Path) -> str:
    parts = ('pic_plugin', *file.relative_to(PACKAGE).with_suffix('').parts)
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


FILES = {name_of(file): file for file in sorted(PACKAGE.rglob('*.py'))
         if '.mim' not in file.parts and '__pycache__' not in file.parts}


def imported_names(module: str) -> list[tuple[str, str]]:
    """What a module imports anywhere in it, also in functions and for types only.

    Pairs of a module and a name in it, or '' for the module itself.
    """
    found = []
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found += [(alias.name, '') for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module if FILES[module].name == '__init__.py' else module.rpartition('.')[0]
            base = node.module or ''
            if node.level:
                above = package.rsplit('.', node.level - 1)[0]
                base = f'{above}.{base}' if base else above
            # `from package import module` is an import of the module.
            found += [(f'{base}.{alias.name}', '') if f'{base}.{alias.name}' in FILES else
                      (base, alias.name) for alias in node.names]
    return found


def imports(module: str) -> list[str]:
    return [name for name, _ in imported_names(module)]


def defining(module: str, name: str) -> str:
    """The module that a name comes from, through the faces of packages that hand it on."""
    if module in FILES and FILES[module].name == '__init__.py' and name:
        handed_on = {given: source for source, given in imported_names(module)}
        if name in handed_on:
            return defining(handed_on[name], name)
    return module


def own_imports(module: str) -> list[str]:
    return [name for name in imports(module) if name.split('.')[0] == 'pic_plugin']


MODULES = sorted(set(FILES) - {'pic_plugin'})


@pytest.mark.parametrize('module', MODULES)
def test_what_is_imported_exists(module):
    missing = [name for name in own_imports(module) if name not in FILES]
    assert not missing, f'{module} imports {missing}, which are no modules of the package'


@pytest.mark.parametrize('module', MODULES)
def test_no_arrow_runs_upward(module):
    part = part_of(module)
    assert part in RANK, f'{module}: give the part {part!r} a line in LAYERS'
    wrong = [name for name in own_imports(module) if part_of(name) not in ('', part)
             and RANK.get(part_of(name), -1) <= RANK[part]]
    assert not wrong, f'{module} imports {wrong}, which lie above or beside it'


@pytest.mark.parametrize('module', [name for name in MODULES if part_of(name) == 'tools'])
def test_no_command_line_imports_another(module):
    others = [name for name in own_imports(module) if part_of(name) == 'tools']
    assert not others, f'{module} imports {others}: move what they share below the tools'


def test_studies_are_known_to_their_command_lines_alone():
    users = {module for module in MODULES if part_of(module) != 'studies'
             and any(part_of(name) == 'studies' for name in own_imports(module))}
    assert users == {f'pic_plugin.tools.{name}' for name in STUDY_TOOLS}


@pytest.mark.parametrize('part', FREE_OF_OPENMMLAB)
def test_the_core_does_not_know_openmmlab(part):
    wrong = {module: name for module in MODULES if part_of(module) == part
             for name in imports(module) if name.split('.')[0] in OPENMMLAB}
    assert not wrong


def test_the_reader_of_imports_sees_all_forms(tmp_path, monkeypatch):
    """Otherwise the tests above would pass whatever is imported."""
    file = tmp_path / 'module.py'
    file.write_text('from .bank import x\nfrom . import models\nfrom pic_plugin import tools\n'
                    'def f():\n    import pic_plugin.studies.grids\n')
    monkeypatch.setitem(FILES, 'pic_plugin.probe', file)
    assert imports('pic_plugin.probe') == ['pic_plugin.bank', 'pic_plugin.models',
                                           'pic_plugin.tools', 'pic_plugin.studies.grids']


def test_configs_hold_training_configs_alone():
    """Grids, tables and figures lie elsewhere; mim offers all of this folder."""
    configs = PACKAGE.parent / 'configs'
    wrong = [file.name for file in configs.rglob('*') if file.is_file() and
             (file.suffix != '.py' or 'factors' in {
                 target.id for node in ast.parse(file.read_text(encoding='utf-8')).body
                 if isinstance(node, ast.Assign) for target in node.targets
                 if isinstance(target, ast.Name)})]
    assert not [name for name in wrong if not name.endswith('.pyc')]


def test_no_modules_import_each_other():
    """In a ring of any length, and in functions too."""
    graph = {module: {defining(*one) for one in imported_names(module)} & set(FILES)
             for module in FILES if FILES[module].name != '__init__.py'}
    TopologicalSorter(graph).prepare()  # raises CycleError with the ring


def test_a_ring_through_the_face_of_a_package_is_seen(tmp_path, monkeypatch):
    (tmp_path / '__init__.py').write_text('from .a import A\n')
    (tmp_path / 'a.py').write_text('from pic_plugin.bank.b import B\n')
    (tmp_path / 'b.py').write_text('def later():\n    from pic_plugin.bank import A\n')
    monkeypatch.setattr(sys.modules[__name__], 'FILES', {
        'pic_plugin.bank': tmp_path / '__init__.py', 'pic_plugin.bank.a': tmp_path / 'a.py',
        'pic_plugin.bank.b': tmp_path / 'b.py'})
    with pytest.raises(CycleError):
        test_no_modules_import_each_other()


# Methods of named tuples have an underscore so as not to collide with fields.
PUBLIC_IN_SPITE = {'_replace', '_asdict', '_fields', '_make', '_exit'}


# Places that `indices=` of mmengine's BaseDataset picks; datasets/ lies below engine/.
OF_DATA_SETS = {'pic_plugin.datasets.instance_numbers': {'_indices'}}


@pytest.mark.parametrize('module', [
    module for module in MODULES
    if module != 'pic_plugin.engine.runner_private' and part_of(module) != 'studies'])
def test_private_parts_of_others_are_touched_in_one_module(module):
    tree = ast.parse(FILES[module].read_text(encoding='utf-8'))
    own = {node.name for node in ast.walk(tree)
           if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    touched = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith('_') and not (
                node.attr.startswith('__')):
            of_self = isinstance(node.value, ast.Name) and node.value.id in ('self', 'cls')
            if of_self:
                own.add(node.attr)
            elif isinstance(node.value, ast.Call) and getattr(
                    node.value.func, 'id', '') == 'super':
                own.add(node.attr)
            else:
                touched[node.attr] = node.lineno
        elif isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(
                node.args[1], ast.Constant) and getattr(node.func, 'id', '') in (
                    'getattr', 'setattr', 'hasattr', 'delattr'):
            name = str(node.args[1].value)
            if name.startswith('_') and not name.startswith('__'):
                touched[name] = node.lineno
        elif isinstance(node, ast.ImportFrom) and not node.level and (
                node.module.split('.')[0] != 'pic_plugin'):
            touched.update({alias.name: node.lineno for alias in node.names
                            if alias.name.startswith('_')})
    foreign = {name: line for name, line in touched.items()
               if name not in own | PUBLIC_IN_SPITE | OF_DATA_SETS.get(module, set())}
    assert not foreign, f'{module}: {foreign}: put it into engine/runner_private.py'
