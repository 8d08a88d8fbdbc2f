# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz corpus reach``: count the steps, exits and relations that a corpus exercises on each target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz.cli.declare import Args, declare
from fuzz.cli.options import MAX_SEED, file, json_flag, level, number, out_file, paths, targets
from fuzz.cli.output import print_json
from fuzz.cli.progress import progress_printer
from fuzz.paths import SEEDS
from harness.exit_status import ExitStatus
from harness.output_file import write_whole
from harness.vm.config import DEFAULT_TARGET, list_configs, load_config

if TYPE_CHECKING:
    from fuzz.corpus.exercise_counts import ExercisePlan

_say = progress_printer("reach")

DESCRIPTION = """\
Run scenarios and mutants of them.  Show for every step of a scenario which exits it had and which relations compared
the result (steps x exit classes x relations x targets).  The exits that a step can have are rows of
harness/coverage/reachable_exits.py.  An exit that never occurred is listed with its reason, and so is one that
occurred and was never fully compared.  The same runs are counted by rules of the host's contract
(harness/relations/contract_rules.py), of the given scenarios only, not of their mutants.
"""
EPILOG = """\
examples:
  shadowfuzz corpus reach                          run seeds, regressions and 300 mutants on the default target
  shadowfuzz corpus reach --mutants 0 a.scn        show what one scenario exercises
  shadowfuzz corpus reach --all-targets --keep corpus/reach.json --page docs/reach.md --contract docs/contract.md
  shadowfuzz corpus reach --show corpus/reach.json show an earlier measurement without running anything

`shadowfuzz corpus coverage` shows what the same scenarios reach of KVM's own code.

exit status: 0 every exit that was not reached has a reason, 2 bad usage or input, 3 one has none, a machine was lost,
or something is missing here
"""


@declare("reach", DESCRIPTION, EPILOG, exclusive=(("target", "all_targets", "show"),))
@paths(optional=True)
@targets
@file("--show", "show the counts that --keep wrote, without running anything")
@level
@number("--mutants", 300, "mutants of the scenarios", 0, 999_999_999)
@number("--seed", 1, "of the mutants' random numbers", 0, MAX_SEED)
@out_file("--keep", "write the counts, too, as JSON")
@out_file("--page", "write the tables, too, as Markdown")
@out_file("--contract", "write the contract's rules by targets, too, as Markdown")
@json_flag
def command(args: Args) -> int:
    """Measure and show; raise errors for the caller to show."""
    from fuzz.corpus.exercise_counts import counts_text, measure_targets, read_counts
    from harness.report.contract_page import Exercised, contract_page, contract_text
    from harness.report.step_coverage import Reach, page, text, without_reason

    document = read_counts(args.show) if args.show is not None else measure_targets(_plan(args), _say)
    reach = Reach.from_json(document)
    rules = Exercised.from_json(document)
    made_by = (args.keep, counts_text(document)), (args.page, page(reach)), (args.contract, contract_page(rules))
    for path, made in made_by:
        if path is not None:
            write_whole(path, made)
            _say(f"wrote {path}")
    if args.json:
        print_json("corpus reach", document)
    else:
        print(f"{text(reach)}\n\n{contract_text(rules)}")
    if any(one["lost"] for one in document["targets"].values()):
        return ExitStatus.FAILED
    return ExitStatus.FAILED if without_reason(reach) or any(rules.without_reason()) else ExitStatus.OK


def _plan(args: Args) -> ExercisePlan:
    from fuzz.corpus.exercise_counts import ExercisePlan

    targets = list_configs() if args.all_targets else tuple(dict.fromkeys(args.target or [DEFAULT_TARGET]))
    for name in targets:
        load_config(name)  # check all names before the first run
    return ExercisePlan(tuple(args.paths or SEEDS), targets, args.level, args.mutants, args.seed)
