# SPDX-License-Identifier: Apache-2.0
"""Serve pages and JSON on the loopback address, to any number of clients at once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from fuzz.triage.report_site import HTML, Answer, answer
from harness.errors import InputError
from harness.report.html_markup import LIVE_POLICY

LOOPBACK = "127.0.0.1"
TIMEOUT_SECONDS = 30
"""Time in which a client must send its request."""


class Server(ThreadingHTTPServer):
    """Serves each client in a thread, so that a client that hangs blocks neither others nor the shutdown."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that disconnected; report any other error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # the types of the base class


def make_server(port: int, get: Callable[[str], Answer]) -> Server:
    """Return a server on the loopback address that answers with ``get(path)``.  InputError: the port is in use."""

    class Handler(BaseHTTPRequestHandler):
        """The connection of one client."""

        protocol_version = "HTTP/1.1"
        timeout = TIMEOUT_SECONDS

        def do_GET(self) -> None:
            """Answer a request; reject another name in the Host header, which indicates DNS rebinding."""
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            if host not in (LOOPBACK, "localhost"):
                self._send(answer(403, HTML, "this page is for this machine only"))
            else:
                self._send(get(unquote(self.path.partition("?")[0])))

        do_HEAD = do_GET

        def _send(self, what: Answer) -> None:
            tag = f'"{what.tag}"'
            same = what.status == 200 and tag in (self.headers.get("If-None-Match") or "")
            packed = "gzip" in (self.headers.get("Accept-Encoding") or "")
            data = b"" if same else what.packed if packed else what.plain
            self.send_response(304 if same else what.status)
            headers = {
                "Content-Type": what.kind,
                "Content-Security-Policy": f"{LIVE_POLICY}; frame-ancestors 'none'",
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                # The client may cache the answer, but must revalidate it.
                "Cache-Control": "no-cache",
                "Vary": "Accept-Encoding",
                "ETag": tag,
                "Content-Length": str(len(data)),
                **({"Content-Encoding": "gzip"} if packed and data else {}),
            }
            if same:
                del headers["Content-Length"]
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    try:
        return Server((LOOPBACK, port), Handler)
    except (OSError, OverflowError) as error:
        raise InputError("--port", None, f"{port} cannot be used: {error}") from error
