# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz corpus cmin``: select the simplest scenarios of a corpus that together have its coverage."""

from __future__ import annotations

import click

from fuzz.cli.declare import PATH, Args, declare
from fuzz.cli.options import chain, json_flag, number, out_directory, subject, targets_of
from fuzz.cli.output import print_json
from fuzz.cli.progress import say
from harness.exit_status import ExitStatus

DESCRIPTION = """\
Run every scenario of a directory on the target, record which edges of KVM's own code and which decisions of the model
it reaches, and copy to --out the simplest ones that reach all of it together.  What a scenario reaches in one run but
not in another is noise and is ignored.  The machine is deterministic: the same corpus gives the same result.
"""
EPILOG = """\
example:
  shadowfuzz corpus cmin out/campaign/corpus --out out/small
      keep the scenarios of a campaign's corpus that have the coverage of all

exit status: 0 done, 2 bad usage or input, 3 a machine was lost (its scenarios are copied, too), or something is missing
"""


def _minimise(args: Args) -> int:
    """Measure, select, copy; raise errors for the caller to show."""
    from fuzz.corpus.minimise import minimise_directory

    found = minimise_directory(args.directory, args.out, targets_of(args), args.repeat, say)
    if args.json:
        print_json("corpus cmin", found.to_json())
    else:
        print(found.text())
    return ExitStatus.FAILED if found.lost else ExitStatus.OK


_DIRECTORY = click.argument("directory", type=PATH, metavar="DIR", help="a corpus, such as a campaign's")
_OPTIONS = chain(subject, number("--repeat", 2, "run each N times; what all runs reach counts", most=100), json_flag)
"""All options except the directory for the result."""


@declare("cmin", DESCRIPTION, EPILOG)
@_DIRECTORY
@out_directory("--out", "where to copy the result; new, or empty", required=True)
@_OPTIONS
def command(args: Args) -> int:
    """Run ``corpus cmin``."""
    return _minimise(args)


@declare("cmin", DESCRIPTION, EPILOG)
@_DIRECTORY
@click.argument("out", type=PATH, metavar="OUT", help="where to copy the result; new, or empty")
@_OPTIONS
def old_command(args: Args) -> int:
    """Run ``cmin DIR OUT``, the form of version 0.1."""
    return _minimise(args)
