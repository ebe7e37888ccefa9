# SPDX-License-Identifier: Apache-2.0
"""README.md: short, and with the two commands that other programs read from it."""
import re
import subprocess

from toys.pages import ROOT, blocks_of

README = ROOT / 'README.md'
BLOCKS = list(blocks_of(README))


def line_after(mark):
    """The one line of the block with a mark."""
    found, = [block for block in BLOCKS if mark in block.marks]
    line, = found.text.splitlines()
    return line


def test_it_is_short():
    """A stranger decides by it: at most 1,500 words, tables and commands included."""
    words = re.sub(r'<!--.*?-->', '', README.read_text(encoding='utf-8')).split()
    assert len(words) <= 1500


def test_ci_finds_the_test_command():
    """.ci/run takes it with awk: the first line of the block after the mark."""
    script = (ROOT / '.ci' / 'run').read_text(encoding='utf-8')
    program = re.search(r"readme_line=\$\(awk '(.*?)' README\.md\)", script, re.DOTALL)[1]
    found = subprocess.run(['awk', program, str(README)], capture_output=True, text=True,
                           check=True).stdout.strip()
    assert found == line_after('test-command')
    torch = re.search(r"^current_torch='(.*)'$", script, re.MULTILINE)[1]
    for line in (found, line_after('demo-command')):
        assert line.startswith('python3 -m venv .venv && ') and torch in line
    assert '-m pytest tests' in found


def test_installation_is_the_same_in_get_started():
    """What the page installs in three lines is what the demo's one line installs."""
    installed = re.search(r'pip install (.*?) &&', line_after('demo-command'))[1]
    page, *_ = blocks_of(ROOT / 'docs' / 'get_started.md')
    assert f'pip install {installed}\n' in page.text


def test_there_is_a_picture():
    pictures = re.findall(r'!\[([^\]]+)\]\(([^)]+)\)', README.read_text(encoding='utf-8'))
    assert pictures and all(words and (ROOT / file).is_file() for words, file in pictures)
