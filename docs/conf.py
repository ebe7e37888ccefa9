# SPDX-License-Identifier: Apache-2.0
"""Sphinx configuration: ``sphinx-build -W --keep-going -b html docs docs/_build``."""
from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / 'extensions')]

from pic_plugin.version import __version__  # noqa: E402

project = 'pic_plugin'
author = 'pic_plugin contributors'
copyright = author
version = release = __version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'from_the_code']
exclude_patterns = ['_build', 'drawings', 'extensions']
source_suffix = {'.md': 'markdown'}

myst_heading_anchors = 4  # so that links to headings are checked
myst_links_external_new_tab = True

autodoc_typehints = 'none'  # the docstrings have them
autodoc_member_order = 'bysource'
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = 'furo'
html_title = f'pic_plugin {version}'
html_theme_options = dict(navigation_with_keys=True)
