# SPDX-License-Identifier: Apache-2.0
"""Watch trainings in a browser while they run: curves, verdicts, and how their configs differ.

    mim run pic_plugin watch work_dirs/mine
    python -m pic_plugin.tools.watch work_dirs/one work_dirs/two --port 8017

Serves on this machine alone (127.0.0.1) until Ctrl-C; the page renews itself. ``--once FILE``
writes it into a file instead.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, List, Optional

from pic_plugin.analysis.live_page import live_page, parse_address
from pic_plugin.analysis.style import require
from pic_plugin.command_line import explained_errors


def make_server(work_dirs: List[Path], port: Optional[int], seconds: int) -> ThreadingHTTPServer:
    """A server of the page, not yet started.

    Raises:
        ValueError: If the port is out of range.
    """

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

    return ThreadingHTTPServer(parse_address(port), Handler)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog='watch', allow_abbrev=False,
                                     description='Watch trainings in a browser.')
    parser.add_argument('work_dirs', nargs='+', type=Path, help='work folders of trainings')
    parser.add_argument('--port', type=int, help='default: one that is free')
    parser.add_argument('--seconds', type=int, default=20,
                        help='between two looks; default: %(default)s')
    parser.add_argument('--once', type=Path, metavar='FILE', help='write the page and end')
    args = parser.parse_args(argv)
    with explained_errors('watch'):
        require('matplotlib')
        for folder in args.work_dirs:
            if not folder.is_dir():
                raise FileNotFoundError(f'there is no folder {folder}.')
        if args.once is not None:
            args.once.write_text(live_page(args.work_dirs, args.seconds), encoding='utf-8')
            print(f'{args.once}: {args.once.stat().st_size} bytes')
            return
        server = make_server(args.work_dirs, args.port, args.seconds)
    print(f'http://127.0.0.1:{server.server_port}/ (Ctrl-C ends)', flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


if __name__ == '__main__':
    main()
