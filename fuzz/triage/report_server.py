# SPDX-License-Identifier: Apache-2.0
"""Serve a page on the loopback address, made anew for each visit."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

from harness.errors import InputError
from harness.report.html_markup import POLICY, el

LOOPBACK = "127.0.0.1"


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
