# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz lint``: check scenario files without a VM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fuzz.cli.declare import Args, declare, flag
from fuzz.cli.options import json_flag, paths
from fuzz.cli.output import print_json
from harness.exit_status import ExitStatus

EPILOG = """\
examples:
  shadowfuzz lint found.scn
      report what does not parse, and what is legal but probably not intended: a host step after an instruction that
      does not trap (it waits for the next exit), a register that is set twice before the guest runs, a `complete`
      without a load
  shadowfuzz lint corpus/seeds --json > lint.json
      check a directory; print one JSON object
  shadowfuzz lint --strict mine/*.scn
      for a commit hook: a warning is an error, too

All files are checked.  Errors and warnings are the result: each is a line of standard output, FILE:LINE: and its text.
docs/scenarios.md has the language.

exit status: 0 every file is a scenario (with --strict: without a warning), 2 a file is no scenario, or cannot be read
"""


@declare(
    "lint",
    "Check scenario files: report errors, and what is probably not intended.  No VM is needed.",
    EPILOG,
)
@paths()
@flag("--strict", help="exit status 2 for warnings, too")
@json_flag
def command(args: Args) -> int:
    """Check all files and print their errors and warnings."""
    from fuzz.corpus.files import find_scenarios
    from harness.report.terminal import many

    found = [row for path in find_scenarios(args.paths) for row in _rows(path)]
    errors = sum(row["kind"] == "error" for row in found)
    warnings = len(found) - errors
    if args.json:
        print_json("lint", {"files": len(find_scenarios(args.paths)), "found": found})
    else:
        for row in found:
            where = row["file"] if row["line"] is None else f"{row['file']}:{row['line']}"
            print(f"{where}: {row['kind']}: {row['text']}")
        if found:
            print(f"{many(errors, 'error')}, {many(warnings, 'warning')}")
    return ExitStatus.USAGE if errors or (args.strict and warnings) else ExitStatus.OK


def _rows(path: Path) -> Iterator[dict[str, object]]:
    """Yield the errors and warnings of a file, as rows of the JSON output."""
    from harness.errors import InputError
    from harness.scenario.lint import warnings_of
    from harness.scenario.scenario import load_text, parse

    try:
        text = load_text(path)
        scenario = parse(text, str(path))
    except InputError as error:
        yield {"file": str(path), "line": error.line, "kind": "error", "text": error.reason}
        return
    for one in warnings_of(text.decode(), scenario):
        yield {"file": str(path), "line": one.line, "kind": "warning", "text": f"`{one.item}` {one.text}"}
