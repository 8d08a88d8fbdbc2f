# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz bench trial``: compare guidance by KVM's own code and by the model; write a page and a plot."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from fuzz.campaign.limits import MAX_JOBS
from fuzz.cli.declare import Args, declare
from fuzz.cli.options import MAX_SEED, file, json_flag, number, out_directory, subject
from fuzz.cli.output import print_json
from fuzz.cli.progress import say
from harness.errors import InputError
from harness.exit_status import ExitStatus
from harness.output_file import write_whole

if TYPE_CHECKING:
    from fuzz.bench.guidance_trial import TrialPlan

NAME = "coverage"

DESCRIPTION = """\
Run campaigns from an empty corpus, guided by the model, by KVM's own code, and by both in turn, and write how many
edges and decisions each reached over time: coverage.{json,svg,md} in --out.  Findings are discarded.
"""
EPILOG = """\
examples:
  shadowfuzz bench trial --runs 5 --seconds 60 --out docs      a quarter of an hour on an idle machine
  shadowfuzz bench trial --page docs                           write plot and page again, from docs/coverage.json

exit status: 0 done, 2 bad usage or input, 3 a campaign ended early, or something is missing here
"""


@declare("trial", DESCRIPTION, EPILOG)
@subject
@number("--seconds", 60, "of each campaign")
@number("--runs", 5, "campaigns of each mode")
@number("--jobs", 2, "workers of each campaign", most=MAX_JOBS)
@number("--seed", None, "of the campaigns' seeds (default: random; the page shows it)", 0, MAX_SEED)
@out_directory("--out", "where to write (default: out)", default=Path("out"))
@json_flag
@file("--page", "do not measure: write plot and page from DIR/coverage.json", metavar="DIR")
def command(args: Args) -> int:
    """Measure, or read an earlier measurement, and write; raise errors for the caller to show."""
    from fuzz.bench.guidance_trial import measure_trial
    from harness.jsonfile import reading
    from harness.report.guidance_trial import markdown, svg

    if args.page is not None:
        out = args.page
        with reading(out / f"{NAME}.json", "what `shadowfuzz bench trial` measures") as data:
            plot, page = svg(data), markdown(data)
    else:
        out, data = args.out, measure_trial(_plan(args), say)
        _write(out / f"{NAME}.json", json.dumps(data, indent=1) + "\n")
        plot, page = svg(data), markdown(data)
    _write(out / f"{NAME}.svg", plot)
    _write(out / f"{NAME}.md", page)
    if args.json:
        print_json("bench trial", data)
    return ExitStatus.OK


def _plan(args: Args) -> TrialPlan:
    from fuzz.bench.guidance_trial import TrialPlan

    if args.kernel is not None:
        raise InputError("--kernel", None, "a trial uses the target's own kernel")
    seed = args.seed if args.seed is not None else secrets.randbits(32)
    return TrialPlan(args.target, args.level, args.seconds, args.runs, args.jobs, seed)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(str(path), None, f"cannot be written: {error.strerror}") from error
    write_whole(path, text)
    say(f"wrote {path}")
