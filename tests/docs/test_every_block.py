# SPDX-License-Identifier: Apache-2.0
"""Every block that a reader may copy is run by a test or says why not; every option exists."""
import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest
from mmengine.config import Config

from pic_plugin.engine.config_file import find_config
from toys import pages

TESTS = Path(__file__).resolve().parents[1]
BLOCKS = pages.all_blocks()
RUNNABLE = [block for block in BLOCKS if block.language in pages.RUNNABLE]
SHELL = [block for block in RUNNABLE if block.language in ('bash', 'sh', 'shell', 'console')]
#: What stands for a file of the reader's own.
PLACEHOLDERS = {'CONFIG', 'my_config.py'}


class Parsed(Exception):
    """A command line was understood."""


def test_blocks_are_found():
    """Else all of what follows would pass for the wrong reason."""
    assert len(RUNNABLE) > 30 and len(SHELL) > 20


def test_every_block_names_its_language():
    unnamed = [block.where for block in BLOCKS if not block.language]
    assert not unnamed, ('these blocks do not say what they are: write ```bash, ```python or, for '
                         f'what nobody runs, ```text: {unnamed}')


def test_no_block_hides_in_an_indentation():
    """Four spaces make a block without a language, to which no mark belongs."""
    hidden = []
    for page in pages.pages():
        text = re.sub(r'^(`{3,}).*?^\1$', lambda match: '\n' * match[0].count('\n'),
                      page.read_text(encoding='utf-8'), flags=re.DOTALL | re.MULTILINE)
        lines = text.splitlines()
        hidden += [f'{page.relative_to(pages.ROOT)}:{i + 1}' for i, line in enumerate(lines)
                   if line.startswith('    ') and i and not lines[i - 1].strip()
                   and not in_a_list(lines[:i])]
    assert not hidden, f'put these between fences, with a language: {hidden}'


def in_a_list(lines):
    above = next((line for line in reversed(lines) if line.strip() and line[0] != ' '), '')
    return bool(re.match(r'([-*]|\d+\.) ', above))


@pytest.mark.parametrize('block', RUNNABLE, ids=lambda block: block.where)
def test_block_is_run_or_says_why_not(block):
    tested, not_run = block.mark('tested'), block.mark('not run')
    assert (tested is None) != (not_run is None), (
        f'{block.where}: put one of <!-- tested: NAME --> and <!-- not run: REASON --> on the line '
        'before the block (docs/develop.md).')
    if tested is not None:
        assert tested in asked_for(), f'{block.where}: no test has the text block({tested!r}).'
        pages.block(tested)
    else:
        assert len(not_run) > 10, f'{block.where}: say why.'
        named = re.findall(r'\btests/[\w/.]+\.py', not_run)
        assert all((pages.ROOT / name).is_file() for name in named), f'{block.where}: {named}'


def asked_for():
    """Names of blocks that tests ask for."""
    return {name for path in TESTS.rglob('test_*.py')
            for name in re.findall(r"\bblock\('([\w-]+)'\)", path.read_text(encoding='utf-8'))}


def tool_commands():
    """(where, tool, arguments) of each call of one of our command lines."""
    calls = []
    for block in SHELL:
        for line in block.commands:
            for command in line.split('&&'):
                words = shlex.split(command, comments=True)
                call = tool_of(words)
                if call is not None:
                    calls.append((f'{block.where} {call[0]}', *call))
    return calls


def tool_of(words):
    """(tool, arguments), if it is a call of ours."""
    for i, word in enumerate(words[:-1]):
        if word == '-m' and words[i + 1].startswith('pic_plugin.tools.'):
            return words[i + 1].rsplit('.', 1)[1], words[i + 2:]
    if words[:3] == ['mim', 'run', 'pic_plugin']:
        return words[3], words[4:]
    return None


def stops_after(parse):
    def parse_and_stop(*args, **kwargs):
        raise Parsed(parse(*args, **kwargs))

    return parse_and_stop


@pytest.mark.parametrize('where, tool, arguments', tool_commands(), ids=lambda value: (
    value if isinstance(value, str) and ':' in value else ''))
def test_command_takes_these_arguments(where, tool, arguments, monkeypatch):
    """The command's own parser takes them; and a config with a name is one of ours."""
    for name in ('parse_args', 'parse_intermixed_args'):
        parse = getattr(argparse.ArgumentParser, name)
        monkeypatch.setattr(argparse.ArgumentParser, name, stops_after(parse))
    module = importlib.import_module(f'pic_plugin.tools.{tool}')
    try:
        with pytest.raises(Parsed) as parsed:
            module.main([word.replace('$DATA', 'DATA') for word in arguments])
    except SystemExit as error:
        pytest.fail(f'{where}: {tool} does not take {arguments} (exit {error.code})')
    given = parsed.value.args[0]
    config = getattr(given, 'config', None)
    if config is None or config in PLACEHOLDERS or config.startswith('work_dirs/'):
        return
    file = find_config(config)
    if tool in ('train', 'test'):  # configs of mmdet and mmseg need these to be read
        cfg = Config.fromfile(file)
        for key in given.cfg_options or {}:
            assert has(cfg, key.split('.')), f'{where}: {file.name} has no {key}'


def has(part, keys):
    """Whether a config has a key, or the place that a new value goes to."""
    if isinstance(part, list):
        index = int(keys[0])
        return index < len(part) and (len(keys) == 1 or has(part[index], keys[1:]))
    if len(keys) == 1 or keys[0] not in part:
        return keys[0] in part or 'type' in part  # an argument that has its default
    return has(part[keys[0]], keys[1:])


def test_extras_exist():
    """`pip install -e '.[lite,analysis]'` names extras of setup.py."""
    extras = set(re.findall(r"^    '(\w+)': \[", (pages.ROOT / 'setup.py').read_text(),
                            re.MULTILINE)) | {'dev'}
    named = {name for block in SHELL for group in re.findall(r'\.\[([\w,]+)\]', block.text)
             for name in group.split(',')}
    assert {'lite', 'tests'} <= named <= extras
