# SPDX-License-Identifier: Apache-2.0
"""Table and figure of the saliency study, over the seeds that reproduce.sh has run.

    python -m pic_plugin.tools.saliency_seeds work_dirs/saliency --out docs/results/saliency

Takes ``FOLDER/SEED/NAME/saliency.json`` of the comparisons and
``FOLDER/SEED/two_objects/two_objects.json``; a seed that is not finished is left out. Writes
saliency_seeds.csv (each number of each seed), saliency_seeds.md (mean ± sample standard deviation
over seeds) and series.png and .svg (overlap over kNN accuracy in the course of training).
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pic_plugin.analysis.style import require
from pic_plugin.command_line import explained_errors
from pic_plugin.studies.saliency_seeds import summarise_seeds

TOOL = 'saliency_seeds'


def main(argv: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        prog=TOOL, description='Table and figure of the saliency study over seeds.',
        allow_abbrev=False)
    parser.add_argument('folder', type=Path, help='that of reproduce.sh')
    parser.add_argument('--out', type=Path, default=Path('.'), help='default: here')
    args = parser.parse_args(argv)
    with explained_errors(TOOL):
        require('matplotlib')
        print(summarise_seeds(args.folder, args.out))


if __name__ == '__main__':
    main()
