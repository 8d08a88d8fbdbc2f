# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz report`` and ``shadowfuzz serve``: everything on one page, as a file or live on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from fuzz.cli.options import Subparsers, add_number
from fuzz.store.kept_findings import open_database
from fuzz.triage.report_page import book_of, write_report
from harness.errors import InputError
from harness.report.html_markup import POLICY, el
from harness.report.html_report import page

LOOPBACK = "127.0.0.1"

REPORT = """\
examples:
  shadowfuzz report --out report.html
      what out/campaign holds, as one file that needs no server and loads nothing
  shadowfuzz report --out vhe.html --campaign out/vhe --open
      another campaign's directory, shown in the browser

exit status: 0 written, 2 bad usage or input, 3 it could not be written
"""
SERVE = """\
example:
  shadowfuzz serve --campaign out/campaign --port 8642
      the same page at http://127.0.0.1:8642/, made anew for each visit; for this machine only

exit status: 2 bad usage or input, or the port is taken, 130 ended with Ctrl-C
"""


def add_parsers(subparsers: Subparsers) -> None:
    """Add ``report`` and ``serve``; each sets `run`, which takes the arguments and returns the exit status."""
    raw = argparse.RawDescriptionHelpFormatter
    report = subparsers.add_parser(
        "report",
        help="everything that was found, as one HTML file",
        description="Write the findings and runs of a campaign's directory or database as one page.",
        epilog=REPORT,
        formatter_class=raw,
    )
    report.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    report.add_argument("--open", action="store_true", help="show it in the browser")
    report.set_defaults(run=run_report)
    serve = subparsers.add_parser(
        "serve",
        help="the same page, live, on 127.0.0.1",
        description="Serve the page of `shadowfuzz report` to this machine's browser, until Ctrl-C.",
        epilog=SERVE,
        formatter_class=raw,
    )
    add_number(serve, "--port", 8642, "0: any that is free", 0, 65535)
    serve.set_defaults(run=run_serve)
    for parser in (report, serve):
        parser.add_argument(
            "--campaign", type=Path, default=Path("out/campaign"), metavar="DIR", help="its directory (out/campaign)"
        )
        parser.add_argument("--store", metavar="URL", help="database, as SQLAlchemy writes it")


def run_report(args: argparse.Namespace) -> int:
    """Write the report; errors are raised for the caller to show."""
    return write_report(open_database(args.campaign, args.store), args.campaign, args.out, show=args.open)


def run_serve(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    database = open_database(args.campaign, args.store)
    server = make_server(args.port, lambda: page(book_of(database, args.campaign)))
    print(f"serve: http://{LOOPBACK}:{server.server_port}/ (Ctrl-C ends it)", file=sys.stderr, flush=True)
    try:
        server.serve_forever()
    finally:
        server.server_close()
    return 0


def make_server(port: int, render: Callable[[], str]) -> HTTPServer:
    """Return a server on the loopback address that renders one page for each visit.  InputError: the port is taken."""

    class Handler(BaseHTTPRequestHandler):
        """One visit."""

        def do_GET(self) -> None:
            """Answer; another host's name in the request is somebody who made that name point here."""
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            if host not in (LOOPBACK, "localhost"):
                self._send(403, "this page is for this machine only")
            elif self.path.partition("?")[0] != "/":
                self._send(404, "there is one page, /")
            else:
                try:
                    self._send(200, render())
                except InputError as error:
                    self._send(500, el("p", str(error)))

        def _send(self, status: int, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    try:
        return HTTPServer((LOOPBACK, port), Handler)
    except (OSError, OverflowError) as error:
        raise InputError("--port", None, f"{port} cannot be used: {error}") from error
