# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz report`` and ``shadowfuzz report serve``: write the findings as one HTML page, or serve it."""

from __future__ import annotations

import sys

from fuzz.cli.declare import Args, declare, flag
from fuzz.cli.options import campaign_beside_out, json_flag, number, out_file
from fuzz.cli.output import announce_page, page_with_program_name, print_json
from harness.exit_status import ExitStatus

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
  shadowfuzz report serve --campaign out/campaign --port 8642
      serve the same page at http://127.0.0.1:8642/, kept up to date, and its data as JSON at /api/v1 (docs/formats.md);
      for this machine only

exit status: 2 bad usage or input, or the port is taken, 130 ended with Ctrl-C
"""


@declare("write", "Write the findings and runs of a campaign's directory or database as one page.", REPORT)
@out_file("--out", "the file to write", required=True)
@flag("--open", help="show it in the browser")
@campaign_beside_out
@json_flag
def write(args: Args) -> int:
    """Write the report; raise errors for the caller to show."""
    from fuzz.store.kept_findings import open_database
    from fuzz.triage.report_page import write_report

    size = write_report(open_database(args.campaign, args.store), args.campaign, args.out, page_with_program_name)
    announce_page(args.out, size, show=args.open)
    if args.json:
        print_json("report write", {"file": str(args.out), "bytes": size})
    return ExitStatus.OK


@declare("serve", "Serve the page of `shadowfuzz report` to this machine's browser, until Ctrl-C.", SERVE)
@number("--port", 8642, "0: any free port", 0, 65535)
@campaign_beside_out
def serve(args: Args) -> int:
    """Serve until interrupted."""
    from fuzz.store.kept_findings import open_database
    from fuzz.triage.report_page import site_of
    from fuzz.triage.report_server import LOOPBACK, make_server

    database = open_database(args.campaign, args.store)
    server = make_server(args.port, site_of(database, args.campaign, page_with_program_name).get)
    print(f"serve: http://{LOOPBACK}:{server.server_port}/ (Ctrl-C ends it)", file=sys.stderr, flush=True)
    try:
        server.serve_forever()
    finally:
        server.server_close()
    return ExitStatus.OK
