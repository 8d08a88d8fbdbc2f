# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz recording distil``: extract scenarios from a recording, one for each kind of exit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fuzz.cli.declare import PATH, Args, declare, flag
from fuzz.cli.options import json_flag, out_directory, out_file, target
from fuzz.cli.output import print_json
from fuzz.cli.progress import progress_printer
from harness.exit_status import ExitStatus

if TYPE_CHECKING:
    from fuzz.corpus.recorded_seeds import Trials

_say = progress_printer("distil")

EPILOG = """\
examples:
  shadowfuzz recording distil boot.trace --out seeds
      write seeds/recorded_*.scn, without any VM
  shadowfuzz recording distil boot.trace --out seeds --verify --excerpt small.trace
      run each first and write only those that show the exit from which they were made; also write the first rounds of
      each kind of exit as a recording that `shadowfuzz recording check` reads

a kind of exit is its class, its syndrome, the model's decisions and the exception level; exits that no step can
reproduce are listed with their count

exit status: 0 nothing unexplained, 1 --verify saw an unexplained divergence, 2 bad usage or input, 3 target lost
"""


@declare("distil", "Write the smallest scenario for each kind of exit that a recording shows.", EPILOG)
@click.argument("trace", type=PATH, metavar="TRACE", help="a file of `shadowfuzz recording record`")
@out_directory("--out", "where to write; existing files are kept", required=True)
@flag("--verify", help="run each on the target, write those that show the exit")
@out_file("--excerpt", "write the first rounds of each kind, too")
@target
@json_flag
def command(args: Args) -> int:
    """Extract, verify, write, print; raise errors for the caller to show."""
    from fuzz.corpus.extract_seeds import extract_seeds
    from fuzz.corpus.recorded_seeds import check_room, seeds_json, seeds_text, try_seeds, write_seeds
    from fuzz.corpus.recordings import read_with_progress
    from fuzz.targets.options import TargetOptions
    from fuzz.targets.target_set import open_targets
    from harness.trace.recorded_rounds import excerpt
    from harness.trace.recording import Reader, rewrite

    reader = Reader(args.trace)
    result = extract_seeds(read_with_progress(reader, _say), reader.head.program)
    check_room(result.seeds, args.out)
    tried: Trials = {}
    if args.verify:
        with open_targets(TargetOptions(args.target, "spec"), _say) as targets:
            tried = try_seeds(targets, result.seeds, _say)
    if args.excerpt is not None:
        again = Reader(args.trace)
        rewrite(args.excerpt, again, excerpt(again, result.spans))
    kept = write_seeds(result, tried, args.out)
    if args.json:
        print_json("recording distil", seeds_json(result, tried))
    else:
        print(seeds_text(result, tried, args.out, kept))
    return ExitStatus.DIVERGENCE if any(each.unexplained for each in tried.values()) else ExitStatus.OK
