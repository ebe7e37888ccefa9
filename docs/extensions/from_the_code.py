# SPDX-License-Identifier: Apache-2.0
"""Sphinx extension that fills in what can be read from the code and the folder.

A page says where, in a comment on a line of its own:

- ``<!-- generated: registered MODELS -->``: the classes that pic_plugin has in a registry.
- ``<!-- generated: parts pic_plugin.bank SampledClassWeights ... -->``: classes or functions.
- ``<!-- generated: members pic_plugin.bank SampledClassWeights ... -->``: classes, with methods.
- ``<!-- generated: commands -->``: what each command line says of itself with ``--help``.
- ``<!-- generated: page NAME -->``, in a toctree: a page, where it is there.
- ``<!-- generated: other pages of . -->``, in a toctree: pages of a folder that none lists.
"""
from __future__ import annotations

import contextlib
import importlib
import io
import pkgutil
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

MARK = re.compile(r'^<!-- generated: (.+) -->$', re.MULTILINE)
TOCTREE = re.compile(r'^```\{toctree\}\n(.*?)^```', re.MULTILINE | re.DOTALL)


def registered(registry: str) -> str:
    """Documentation of our classes in one of mmpretrain's registries, in the order of names."""
    import mmpretrain.registry

    import pic_plugin  # noqa: F401
    known = getattr(mmpretrain.registry, registry).module_dict
    built = [value for _, value in sorted(known.items())
             if value.__module__.startswith('pic_plugin.') and '.studies.' not in value.__module__]
    if not built:
        raise ValueError(f'pic_plugin has nothing in {registry}')
    return documented(f'{value.__module__}.{value.__qualname__}' for value in built)


def parts(package: str, names: list[str], options: str = '') -> str:
    """Documentation of parts of a package by name."""
    return documented((f'{package}.{name}' for name in names), options)


def documented(names: Any, options: str = '') -> str:
    """Blocks for autodoc: a class with its arguments, or a function."""
    blocks = []
    for name in names:
        module, _, last = name.rpartition('.')
        value = getattr(importlib.import_module(module), last)
        kind = 'autoclass' if isinstance(value, type) else 'autofunction'
        blocks.append(f'```{{eval-rst}}\n.. {kind}:: {name}\n{options}```\n')
    return '\n'.join(blocks)


def commands() -> str:
    """A section for each command line, with its help."""
    import pic_plugin.tools
    sections = []
    for name in sorted(info.name for info in pkgutil.iter_modules(pic_plugin.tools.__path__)):
        module = importlib.import_module(f'pic_plugin.tools.{name}')
        if hasattr(module, 'main'):
            sections.append(f'## {name}\n\n```text\n{help_of(module)}\n```\n')
    return '\n'.join(sections)


def help_of(module: Any) -> str:
    """What a command prints with ``--help``, and its commands of a second level with theirs."""
    texts = [captured(module, ['--help'])]
    choices = re.search(r'^  \{([\w,]+)\}', texts[0], re.MULTILINE)
    for choice in choices[1].split(',') if choices else []:
        texts.append(captured(module, [choice, '--help']))
    return '\n'.join(texts).rstrip()


def captured(module: Any, arguments: list[str]) -> str:
    """What a command line prints before it ends by itself."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        module.main(arguments)
    return output.getvalue()


def other_pages(root: Path, folder: str, index: str) -> str:
    """Names of the pages in a folder that no toctree of the index lists: none is ever lost."""
    listed = set()
    for toctree in TOCTREE.findall(index):
        listed |= {line.strip().split('<')[-1].rstrip('>') for line in toctree.splitlines()}
        listed |= set(re.findall(r'generated: page (\S+)', toctree))
    files = (root / folder).glob('*.md') if folder == '.' else (root / folder).rglob('*.md')
    pages = sorted(path.relative_to(root).with_suffix('').as_posix()
                   for path in files if not is_piece(path))
    return '\n'.join(page for page in pages if page not in listed and page != 'index')


def is_piece(path: Path) -> bool:
    """Whether a Markdown file is the table that a command wrote beside its CSV, and no page."""
    return path.with_suffix('.csv').exists()


def fill_in(app: Sphinx, name: str, content: list[str]) -> None:
    """Replace the marks of a page."""
    page = content[0]

    def generate(match: re.Match) -> str:
        kind, *words = match[1].split()
        if kind == 'registered':
            return registered(*words)
        if kind == 'parts':
            return parts(words[0], words[1:])
        if kind == 'members':
            return parts(words[0], words[1:], '   :members:\n')
        if kind == 'commands':
            return commands()
        if kind == 'page':
            return words[0] if Path(app.srcdir, f'{words[0]}.md').is_file() else ''
        if kind == 'other':
            return other_pages(Path(app.srcdir), words[-1], page)
        raise ValueError(f'{name}: nobody knows how to generate {match[1]!r}')

    content[0] = MARK.sub(generate, page)


def leave_out_pieces(app: Sphinx, config: Any) -> None:
    """Tables that pages have taken in are no pages."""
    root = Path(app.srcdir)
    config.exclude_patterns.extend(
        path.relative_to(root).as_posix() for path in root.rglob('*.md') if is_piece(path))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect('config-inited', leave_out_pieces)
    app.connect('source-read', fill_in)
    return dict(parallel_read_safe=True, version='1')
