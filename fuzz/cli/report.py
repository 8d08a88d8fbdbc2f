# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz report`` and ``shadowfuzz serve``: everything on one page, as a file or live on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fuzz.cli.options import Subparsers, add_number
from fuzz.cli.output import announce_page
from fuzz.store.kept_findings import open_database
from fuzz.triage.report_page import site_of, write_report
from fuzz.triage.report_server import LOOPBACK, make_server

REPORT = """\
examples:
  shadowfuzz report --out report.html
      write the findings of out/campaign as one file that needs no server and loads nothing
  shadowfuzz report --out vhe.html --campaign out/vhe --open
      write those of another campaign's directory, and show them in the browser

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
        help="write all findings as one HTML file",
        description="Write the findings and runs of a campaign's directory or database as one page.",
        epilog=REPORT,
        formatter_class=raw,
    )
    report.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    report.add_argument("--open", action="store_true", help="show it in the browser")
    report.set_defaults(run=run_report)
    serve = subparsers.add_parser(
        "serve",
        help="serve the report live on 127.0.0.1",
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
    size = write_report(open_database(args.campaign, args.store), args.campaign, args.out)
    announce_page(args.out, size, show=args.open)
    return 0


def run_serve(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    database = open_database(args.campaign, args.store)
    server = make_server(args.port, site_of(database, args.campaign).get)
    print(f"serve: http://{LOOPBACK}:{server.server_port}/ (Ctrl-C ends it)", file=sys.stderr, flush=True)
    try:
        server.serve_forever()
    finally:
        server.server_close()
    return 0
