# SPDX-License-Identifier: Apache-2.0
"""Command-line tools, each a module: ``python -m pic_plugin.tools.NAME``."""
