# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz lemma``: level against level of the model, without any VM."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fuzz.campaign.lemma_campaign import Campaign
from fuzz.campaign.lemma_run import (
    LemmaPlan,
    answer_pair,
    clusters_text,
    compare_with_stored,
    find_differences,
    joined,
    measure_stability,
    pairs_of,
    prove_changes,
    prove_pair,
    questions_of,
    report_of,
    stored_clusters,
    try_mutants,
    write_page,
    write_paths,
)
from fuzz.cli.options import MAX_SEED, Subparsers, add_number, seconds
from fuzz.cli.progress import progress_printer
from harness.lemma.answers import ANSWER_PAIRS
from harness.lemma.clusters import verify
from harness.lemma.compare_levels import questions
from harness.lemma.coq import export
from harness.model import FUNCTION, LAYERS, LEVEL_NAMES

_say = progress_printer("lemma")

OK = 0

_HELP = """\
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

exit status: 0 done (differences are the expected result), 1 a kept cluster is not reproduced, or the campaign missed
a required one or found one that is not stored, 2 bad usage or input, 3 a worker failed
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``lemma``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "lemma",
        help="fuzz the model's levels against each other, or prove them equal",
        description=_HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    levels = ", ".join(LEVEL_NAMES)
    parser.add_argument(
        "--pair", action="append", default=[], metavar="LEFT:RIGHT", help=f"two of {levels}; repeatable, or 'all'"
    )
    parser.add_argument("--layer", choices=LAYERS, help="only the functions of this layer")
    parser.add_argument(
        "--function", choices=tuple(FUNCTION), metavar="NAME", help=f"only this one of {', '.join(FUNCTION)}"
    )
    parser.add_argument("--seconds", type=seconds, default=60.0, metavar="N", help="for each pair (default: 60)")
    add_number(parser, "--jobs", 2, "worker processes", most=64)
    add_number(parser, "--seed", 1, "of the random numbers", 0, MAX_SEED)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--no-logs", action="store_true", help="lock logs do not count as a difference")
    parser.add_argument("--coq", type=Path, metavar="FILE", help="write the counterexamples as Coq text")
    parser.add_argument("--store", action="store_true", help="write what was found to corpus/lemmas, too")
    parser.add_argument(
        "--expect-stored",
        action="store_true",
        help="list stored clusters that the run missed and found ones that are not stored; fail if there are any",
    )
    instead = parser.add_argument_group("instead of a campaign")
    instead.add_argument("--stored", action="store_true", help="run the stored clusters")
    instead.add_argument("--prove", action="store_true", help="run the levels symbolically")
    instead.add_argument(
        "--answer", action="store_true", help="say why each claim is false, and prove it under the weakest hypothesis"
    )
    instead.add_argument(
        "--changes", action="store_true", help="prove each claim with the proposed changes made, without a hypothesis"
    )
    add_number(instead, "--mutants", None, "check N mutants of the model (0: all)", 0)
    add_number(instead, "--stability", None, "minimise N starts of every goal")
    instead.add_argument("--paths", action="store_true", help="collect and write one state a path of each level")
    instead.add_argument("--page", action="store_true", help="write docs/lemmas.md from what is stored")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand: 0 done, 1 a stored cluster is wrong or was missed; raises ``InputError`` if asked badly."""
    keep = args.store and not args.expect_stored
    plan = LemmaPlan(args.seconds, args.jobs, args.seed, args.stored, keep)
    if args.page:
        _say(f"wrote {write_page()}")
        return OK
    if args.changes:
        print(json.dumps(prove_changes(keep=args.store, progress=_say), indent=1))
        return OK
    if args.paths:
        _say(f"wrote {write_paths(args.seed, _say)} states")
        return OK
    if args.mutants is not None:
        print(json.dumps(try_mutants(args.mutants, replace(plan, keep=args.store), _say), indent=1))
        return OK
    if args.stability is not None:
        pairs = pairs_of(args.pair)
        _say(f"minimising {args.stability} starts of every goal")
        chosen = questions(pairs, args.layer, args.function)
        print(json.dumps(measure_stability(pairs, chosen, args.stability, replace(plan, keep=args.store)), indent=1))
        return OK
    return _ask(args, plan)


def _ask(args: argparse.Namespace, plan: LemmaPlan) -> int:
    """Search, take what is stored, or prove, pair by pair; print each as it comes."""
    results: list[dict[str, Any]] = []
    status = OK
    pairs = ANSWER_PAIRS if args.answer and not args.pair else pairs_of(args.pair)
    asked = questions_of(pairs, args.layer, args.function, logs=not args.no_logs)
    for number, (pair, chosen) in enumerate(asked):
        if args.prove:
            results.append(prove_pair(pair, chosen, keep=args.store, progress=_quiet if args.json else _print))
            continue
        if args.answer:
            results.append(answer_pair(pair, chosen, keep=args.store, progress=_quiet if args.json else _print))
            continue
        if args.stored:
            campaign, clusters = Campaign(), stored_clusters(pair, chosen, needed="all" not in args.pair)
        else:
            campaign, clusters = find_differences(pair, chosen, plan, _say)
        wrong = {c.key: text for c in clusters if (text := verify(c)) is not None}
        results.append(report_of(pair, campaign, clusters))
        if not args.json:
            print(clusters_text(results[-1], clusters))
        if args.expect_stored:
            trial = compare_with_stored(results[-1], clusters, chosen, replace(plan, keep=args.store))
            results[-1]["missed"] = list(trial.missed)
            status |= bool(trial.missed or trial.unlisted)
            _say(trial.text())
        for text in wrong.values():
            _say(f"{':'.join(pair)}: a stored cluster does not verify: {text}")
        status |= bool(wrong)
        if args.coq:
            with args.coq.open("a" if number else "w") as out:
                out.write(export(clusters))
    if args.json:
        print(json.dumps(joined(results), indent=1))
    return status


def _print(line: str) -> None:
    print(line, flush=True)


def _quiet(line: str) -> None:
    """Print nothing."""
