# SPDX-License-Identifier: Apache-2.0
"""Serves the page about trainings under way, on this machine alone."""
from __future__ import annotations

from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pic_plugin.analysis.live_page import live_page


def make_server(work_dirs: Sequence[Path], port: int | None = None,
                seconds: int = 20) -> ThreadingHTTPServer:
    """A server of the page, not yet started.

    Args:
        work_dirs (Sequence[Path]): Of the trainings.
        port (int, optional): Defaults to None: one that is free.
        seconds (int): After which the page renews itself. Defaults to 20.

    Raises:
        ValueError: If the port is out of range.
    """
    if port is not None and not 0 <= port < 65536:
        raise ValueError(f'--port must be from 0 (any that is free) to 65535, not {port}.')

    class Handler(BaseHTTPRequestHandler):

        def do_GET(self) -> None:
            """The page, made anew; there is nothing else."""
            if self.path not in ('/', '/index.html'):
                self.send_error(404)
                return
            content = live_page(work_dirs, seconds).encode('utf-8')
            self.send_response(200)
            self.send_header('Content-Type', 'text/html; charset=utf-8')
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing of each request."""

    return ThreadingHTTPServer(('127.0.0.1', port or 0), Handler)


def serve(work_dirs: Sequence[Path], port: int | None = None) -> None:
    """Serve until Ctrl-C.

    Raises:
        FileNotFoundError: If there is no such work folder.
        ValueError: If the port is out of range.
    """
    for folder in work_dirs:
        if not folder.is_dir():
            raise FileNotFoundError(f'there is no folder {folder}.')
    server = make_server(work_dirs, port)
    print(f'http://127.0.0.1:{server.server_port}/ (Ctrl-C ends)', flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
