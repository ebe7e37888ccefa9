# SPDX-License-Identifier: Apache-2.0
"""Print so that a program lives on when what reads its output, as ``tee``, ends before it."""
from __future__ import annotations

import os
import sys
from typing import TextIO


def tell(line: str, stream: TextIO | None = None) -> None:
    """Print a line at once, if not where the stream leads then where :func:`lead_on` leads it.

    Args:
        line (str): Text.
        stream (TextIO, optional): One of the standard streams. Defaults to None: stdout.
    """
    while True:
        try:
            return print(line, file=stream, flush=True)
        except OSError:
            lead_on(stream or sys.stdout)


def lead_on(stream: TextIO) -> None:
    """Lead a standard stream that takes nothing any more to stderr, or else nowhere.

    Python too writes what waits in it as it ends, and has an exit status of its own where it
    cannot.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    there, errors = stream.fileno(), nowhere if sys.stderr is None else 2
    to_errors = not os.path.sameopenfile(there, errors)
    os.dup2(nowhere, there)
    stream.flush()  # what could not be written
    if to_errors:
        os.dup2(errors, there)
    os.close(nowhere)
