# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz lemma``: level against level of the model, without any VM."""

from __future__ import annotations

import argparse
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fuzz.campaign.lemma_campaign import Campaign, run_campaign
from fuzz.cli.options import MAX_SEED, Subparsers, add_number, seconds
from fuzz.cli.progress import progress_printer
from fuzz.paths import CORPUS
from harness.errors import InputError
from harness.jsonfile import reading
from harness.lemma.campaign_recall import missing, store_trial
from harness.lemma.case import STORED
from harness.lemma.change_detection import load_goals, store_goals
from harness.lemma.clusters import Cluster, find_clusters, load, merge, store, store_path, verify
from harness.lemma.compare_levels import MAIN_PAIRS, PAIRS, Pair, Question, questions
from harness.lemma.coq import export
from harness.lemma.docs_page import render
from harness.lemma.mutants import Mutant, Result, check, mutants, sample, summary
from harness.lemma.path_states import collect, store_paths
from harness.lemma.prove import Proof, prove
from harness.lemma.stability import measure
from harness.model import FUNCTION, LAYERS, LEVEL_NAMES
from harness.vm.config import PROJECT

_say = progress_printer("lemma")

LEMMAS = CORPUS / "lemmas"
MUTANT_CASES = (30, 300)  # for each question; the second for those that survive the first
PATH_TRIES = 4000  # random states of each function
STABILITY_TRIES = 1000  # random cases for each question
PAGE = PROJECT / "docs" / "lemmas.md"


_HELP = """\
Run the functions of two levels of the model on the same states and oracles, and tell where they differ: a campaign
that looks for such states, then a least one for each kind of difference (a cluster).  No VM is needed.
"""
EPILOG = """\
examples:
  shadowfuzz lemma --seconds 60
      the pairs low:body, spec:low and spec:kernel, a minute each
  shadowfuzz lemma --pair low:body --function prep_abort --seconds 5 --json
      one function of one pair, as one JSON object
  shadowfuzz lemma --stored --coq stored.v
      the clusters that are kept in corpus/lemmas: run again, and as Coq text
  shadowfuzz lemma --pair low:body --prove
      all states at once: each function is proved equal, refuted, or left open, with the reason

docs/lemmas.md says what was found, and how this was tested (--expect-stored, --mutants, --stability).

exit status: 0 done (levels that differ are what is looked for), 1 a kept cluster does not come back, or the campaign
missed one that it was to find, 2 bad usage or input, 3 a worker failed
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
        "--expect-stored", action="store_true", help="say which stored clusters the run missed, and fail if it did"
    )
    instead = parser.add_argument_group("instead of a campaign")
    instead.add_argument("--stored", action="store_true", help="take the stored clusters")
    instead.add_argument("--prove", action="store_true", help="run the levels symbolically")
    add_number(instead, "--mutants", None, "check N mutants of the model (0: all)", 0)
    add_number(instead, "--stability", None, "minimise N starts of every goal")
    instead.add_argument("--paths", action="store_true", help="collect and write one state a path of each level")
    instead.add_argument("--page", action="store_true", help="write docs/lemmas.md from what is stored")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand: 0 done, 1 a stored cluster is wrong or was missed; raises ``InputError`` if asked badly."""
    if args.page:
        PAGE.write_text(render(LEMMAS))
        _say(f"wrote {PAGE}")
        return 0
    if args.paths:
        _say(f"trying {PATH_TRIES} random states of each function")
        rows = collect(PATH_TRIES, args.seed)
        store_paths(LEMMAS / "paths.json", rows)
        _say(f"wrote {len(rows)} states")
        return 0
    if args.mutants is not None:
        return _mutants(args)
    if args.stability is not None:
        return _stability(args)
    asked = [(pair, questions((pair,), args.layer, args.function, not args.no_logs)) for pair in _pairs(args.pair)]
    if not all(qs for _, qs in asked):
        raise InputError("--function", None, f"{args.function} is not in layer {args.layer}")
    results: list[dict[str, Any]] = []
    status = 0
    for pair, chosen in asked:
        if args.prove:
            results.append(_prove(pair, chosen, args))
            continue
        campaign, clusters = _clusters(pair, chosen, args)
        wrong = {c.key: text for c in clusters if (text := verify(c)) is not None}
        status |= bool(wrong)
        results.append(_report(pair, campaign, clusters))
        if not args.json:
            _print_clusters(results[-1], clusters)
        if args.expect_stored:
            trial = missing(LEMMAS, pair, args.seed, results[-1], clusters, chosen)
            results[-1]["missed"] = list(trial.missed)
            status |= bool(trial.missed)
            _say(trial.text())
            if args.store:
                store_trial(LEMMAS, trial)
        for text in wrong.values():
            _say(f"{':'.join(pair)}: a stored cluster does not verify: {text}")
        if args.coq:
            with args.coq.open("w" if pair == asked[0][0] else "a") as out:
                out.write(export(clusters))
    if args.json:
        print(json.dumps(_join(results, args.prove), indent=1))
    return status


def _pairs(names: list[str]) -> tuple[Pair, ...]:
    if "all" in names:
        return PAIRS
    pairs: list[Pair] = []
    for name in names:
        left, _, right = name.partition(":")
        if left == right or left not in LEVEL_NAMES or right not in LEVEL_NAMES:
            raise InputError("--pair", None, f"{name!r} is not LEFT:RIGHT of two out of {', '.join(LEVEL_NAMES)}")
        pairs.append((left, right))
    return tuple(pairs) or MAIN_PAIRS


def _clusters(
    pair: Pair, chosen: tuple[Question, ...], args: argparse.Namespace
) -> tuple[Campaign, tuple[Cluster, ...]]:
    if args.stored:
        path = store_path(LEMMAS, pair)
        if not path.exists() and "all" not in args.pair:
            raise InputError("--stored", None, f"nothing is stored of {':'.join(pair)}: there is no {path}")
        return Campaign(), tuple(c for c in load(path) if c.question in chosen) if path.exists() else ()
    _say(f"{':'.join(pair)}: {args.seconds:.0f} s, {args.jobs} workers")
    with tempfile.TemporaryDirectory(prefix="shadowfuzz-lemma-") as directory:
        campaign = run_campaign(chosen, args.seconds, args.jobs, args.seed, Path(directory))
    _say(f"{':'.join(pair)}: minimising {len(campaign.finds)} cases")
    clusters = find_clusters(((q, goal, case) for (q, goal, _), case in campaign.finds.items()), args.jobs)
    if args.store and not args.expect_stored:
        path = store_path(LEMMAS, pair)
        store(LEMMAS, pair, merge((*(load(path) if path.exists() else ()), *clusters)))
        known = load_goals(LEMMAS, pair) | {(question.function, goal) for question, goal, _ in campaign.finds}
        store_goals(LEMMAS, pair, known)
    return campaign, clusters


def _report(pair: Pair, campaign: Campaign, clusters: tuple[Cluster, ...]) -> dict[str, Any]:
    return {
        "pair": ":".join(pair),
        "comparisons": campaign.statistics.comparisons,
        "comparisons_per_s": round(campaign.comparisons_per_s),
        "comparisons_per_cpu_s": round(campaign.comparisons_per_cpu_s),
        "workers": campaign.workers,
        "seconds": campaign.seconds,
        "defined_share": round(campaign.statistics.defined_share, 4),
        "inconclusive": campaign.statistics.inconclusive,
        "clusters": [c.to_json() for c in clusters],
    }


def _join(results: list[dict[str, Any]], proofs: bool) -> dict[str, Any]:
    """One object for all pairs: a campaign's numbers are the means over its comparisons, and the lowest rate."""
    if proofs:
        return {"proofs": [row for result in results for row in result["proofs"]]}
    total = sum(r["comparisons"] for r in results)
    share = sum(r["defined_share"] * r["comparisons"] for r in results) / total if total else 0.0
    return {
        "comparisons": total,
        "comparisons_per_s": min(r["comparisons_per_s"] for r in results),
        "comparisons_per_cpu_s": min(r["comparisons_per_cpu_s"] for r in results),
        "defined_share": round(share, 4),
        "clusters": [c for r in results for c in r["clusters"]],
        "pairs": [{k: v for k, v in r.items() if k != "clusters"} for r in results],
    }


def _print_clusters(report: dict[str, Any], clusters: tuple[Cluster, ...]) -> None:
    print(
        f"{report['pair']}: {report['comparisons']} comparisons, {report['comparisons_per_s']}/s and worker, "
        f"{report['defined_share']:.1%} defined on the left, {len(clusters)} clusters"
    )
    for c in clusters:
        what = f"undefined on the right: {c.undefined}" if c.undefined else f"differ: {', '.join(c.fields)}"
        start = ", ".join(f"{name} = {value:#x}" for name, value in c.case) or "the default state"
        print(f"  {c.question.layer}.{c.question.function}: {what}\n    in   {start}")
        rights = dict(c.right)
        for name, value in c.left[:8]:
            print(f"    out  {name}: {value} | {rights[name]}")


def _mutants(args: argparse.Namespace) -> int:
    """Print the kill rate and the survivors; a mutant has to be noticed within a minute."""
    chosen = mutants() if args.mutants == 0 else sample(args.mutants, args.seed)
    results: list[Result] = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for result in pool.map(_check_mutant, chosen):
            results.append(result)
            if not len(results) % 20:
                _say(f"{len(results)} of {len(chosen)} mutants")
    report = {"all": len(mutants()), **summary(tuple(results))}
    if args.store:
        (LEMMAS / "mutants.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 0


def _stability(args: argparse.Namespace) -> int:
    """Print how often minimisation ends at the same least case."""
    _say(f"minimising {args.stability} starts of every goal")
    found = measure(questions(_pairs(args.pair), args.layer, args.function), args.stability, STABILITY_TRIES, args.seed)
    report = asdict(found) | {"share": round(found.share, 4), "starts": args.stability}
    report["pairs"] = [":".join(pair) for pair in _pairs(args.pair)]
    if args.store:
        (LEMMAS / "stability.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 0


def _check_mutant(mutant: Mutant) -> Result:
    quick = check(mutant, LEMMAS, MUTANT_CASES[0], 1)
    return quick if quick.how is not None else check(mutant, LEMMAS, MUTANT_CASES[1], 2)


def _prove(pair: Pair, chosen: tuple[Question, ...], args: argparse.Namespace) -> dict[str, Any]:
    path = store_path(LEMMAS, pair)
    stored = load(path) if path.exists() else ()
    proofs: list[Proof] = []
    for question in chosen:
        known = tuple(c for c in stored if c.question == question)
        proof = prove(question, known)
        if args.store and proof.new:
            # the next counterexamples: they become listed clusters, and what is left is what the run showed equal
            stored = merge((*stored, *proof.new.values()))
            store(LEMMAS, pair, stored)
            mine = [c for c in stored if c.question == question]
            proof.known, proof.by_proof = len(mine), len({c.key for c in mine} - {c.key for c in known})
            proof.new.clear()
        proofs.append(proof)
        if not args.json:
            print(f"{':'.join(pair)} {question.layer}.{question.function}: {proof.verdict()}", flush=True)
    if args.store:
        file = LEMMAS / "proofs" / path.name
        file.parent.mkdir(parents=True, exist_ok=True)
        old: dict[str, Any] = {}
        if file.exists():
            with reading(file, STORED) as rows:
                old = {row["function"]: row for row in rows}
        old |= {p.question.function: p.to_json() for p in proofs}
        order = {name: i for i, name in enumerate(FUNCTION)}
        lines = [json.dumps(old[name]) for name in sorted(old, key=order.__getitem__)]
        file.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    return {"proofs": [p.to_json() for p in proofs]}
