# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz lemma``: compare levels of the model with each other, without a VM."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from fuzz.cli.declare import Args, declare, flag, option
from fuzz.cli.options import MAX_SEED, json_flag, number, out_file, seconds
from fuzz.cli.output import print_json
from fuzz.cli.progress import progress_printer
from harness.exit_status import ExitStatus
from harness.model import FUNCTION, LAYERS, LEVEL_NAMES

if TYPE_CHECKING:
    from fuzz.campaign.lemma_run import LemmaPlan

_say = progress_printer("lemma")

DESCRIPTION = """\
Run the functions of two levels of the model on the same states and oracles, and report where they differ: a campaign
searches for such states, then finds a minimal one for each kind of difference (a cluster).  No VM is needed.
"""
EPILOG = """\
examples:
  shadowfuzz lemma --seconds 60
      run the pairs low:body, spec:low and spec:kernel, a minute each
  shadowfuzz lemma --pair low:body --function prep_abort --seconds 5 --json
      run one function of one pair; print one JSON object
  shadowfuzz lemma --stored --coq stored.v
      run the clusters of corpus/lemmas again, and write them as Coq text
  shadowfuzz lemma --pair low:body --prove
      for all states: prove each function equal, refute it, or leave it open, with the reason

  shadowfuzz lemma --pair low:body --function restore_shadow_kvm_regs --answer
      name the causes, and prove the statement outside them

docs/lemmas.md has the results, and how the search was tested (--expect-stored, --mutants, --stability).

exit status: 0 done (differences are the expected result), 1 --expect-stored found one that is not stored, 2 bad usage
or input, 3 a stored cluster is not reproduced, the campaign missed a required one, or a worker failed
"""


@declare("lemma", DESCRIPTION, EPILOG)
@option("--pair", multiple=True, metavar="LEFT:RIGHT", help=f"two of {', '.join(LEVEL_NAMES)}; repeatable, or 'all'")
@option("--layer", type=click.Choice(tuple(LAYERS)), help="only the functions of this layer")
@option("--function", type=click.Choice(tuple(FUNCTION)), metavar="NAME", help=f"only one of {', '.join(FUNCTION)}")
@seconds("for each pair")
@number("--jobs", 2, "worker processes", most=64)
@number("--seed", 1, "of the random numbers", 0, MAX_SEED)
@json_flag
@flag("--no-logs", help="lock logs do not count as a difference")
@out_file("--coq", "write the counterexamples as Coq text")
@flag("--store", help="write the found clusters to corpus/lemmas, too")
@flag(
    "--expect-stored",
    help="list stored clusters that the run missed and new ones that are not stored; fail if there are any",
)
@flag("--stored", help="instead of a campaign: run the stored clusters")
@flag("--prove", help="instead of a campaign: run the levels symbolically")
@flag(
    "--answer",
    help="instead of a campaign: report why each claim is false, and prove it under the weakest hypothesis",
)
@flag(
    "--changes",
    help="instead of a campaign: prove each claim with the proposed changes applied, without a hypothesis",
)
@number("--mutants", None, "instead of a campaign: check N mutants of the model (0: all)", 0)
@number("--stability", None, "instead of a campaign: minimise N starts of every goal")
@flag("--paths", help="instead of a campaign: collect and write one state for each path of each level")
@flag("--page", help="instead of a campaign: write docs/lemmas.md and docs/lemma-levels.md from what is stored")
def command(args: Args) -> int:
    """Run the selected mode; raise errors for the caller to show."""
    from fuzz.campaign import lemma_run as runs
    from harness.lemma.compare_levels import questions

    keep = args.store and not args.expect_stored
    plan = runs.LemmaPlan(args.seconds, args.jobs, args.seed, args.stored, keep)
    if args.page:
        _say(f"wrote {' and '.join(map(str, runs.write_pages()))}")
        return ExitStatus.OK
    if args.changes:
        print_json("lemma", {"claims": runs.prove_changes(keep=args.store, progress=_say)})
        return ExitStatus.OK
    if args.paths:
        _say(f"wrote {runs.write_paths(args.seed, _say)} states")
        return ExitStatus.OK
    if args.mutants is not None:
        print_json("lemma", runs.try_mutants(args.mutants, replace(plan, keep=args.store), _say))
        return ExitStatus.OK
    if args.stability is not None:
        pairs = runs.pairs_of(args.pair)
        _say(f"minimising {args.stability} starts of every goal")
        chosen = questions(pairs, args.layer, args.function)
        found = runs.measure_stability(pairs, chosen, args.stability, replace(plan, keep=args.store))
        print_json("lemma", found)
        return ExitStatus.OK
    return _ask(args, plan)


def _ask(args: Args, plan: LemmaPlan) -> int:
    """Search, read stored clusters, or prove, for each pair; print each result."""
    from fuzz.campaign import lemma_run as runs
    from fuzz.campaign.lemma_campaign import Campaign
    from harness.lemma.answers import ANSWER_PAIRS
    from harness.lemma.clusters import verify
    from harness.lemma.coq import export

    results: list[dict[str, Any]] = []
    failed, unlisted = False, False
    pairs = ANSWER_PAIRS if args.answer and not args.pair else runs.pairs_of(args.pair)
    asked = runs.questions_of(pairs, args.layer, args.function, logs=not args.no_logs)
    for number_, (pair, chosen) in enumerate(asked):
        if args.prove:
            results.append(runs.prove_pair(pair, chosen, keep=args.store, progress=_quiet if args.json else _print))
            continue
        if args.answer:
            results.append(runs.answer_pair(pair, chosen, keep=args.store, progress=_quiet if args.json else _print))
            continue
        if args.stored:
            campaign, clusters = Campaign(), runs.stored_clusters(pair, chosen, needed="all" not in args.pair)
        else:
            campaign, clusters = runs.find_differences(pair, chosen, plan, _say)
        wrong = {c.key: text for c in clusters if (text := verify(c)) is not None}
        results.append(runs.report_of(pair, campaign, clusters))
        if not args.json:
            print(runs.clusters_text(results[-1], clusters))
        if args.expect_stored:
            trial = runs.compare_with_stored(results[-1], clusters, chosen, replace(plan, keep=args.store))
            results[-1]["missed"] = list(trial.missed)
            failed |= bool(trial.missed)
            unlisted |= bool(trial.unlisted)
            _say(trial.text())
        for text in wrong.values():
            _say(f"{':'.join(pair)}: a stored cluster does not verify: {text}")
        failed |= bool(wrong)
        if args.coq:
            with args.coq.open("a" if number_ else "w") as out:
                out.write(export(clusters))
    if args.json:
        print_json("lemma", runs.combine_reports(results))
    if failed:
        return ExitStatus.FAILED
    return ExitStatus.DIVERGENCE if unlisted else ExitStatus.OK


def _print(line: str) -> None:
    print(line, flush=True)


def _quiet(line: str) -> None:
    """Ignore a line of progress."""
