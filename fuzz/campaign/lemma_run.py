# SPDX-License-Identifier: Apache-2.0
"""Compare two levels of the model: search, stored clusters, proofs, mutants, stability, pages."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fuzz.campaign.lemma_campaign import Campaign, run_campaign
from fuzz.paths import CORPUS
from harness.errors import InputError
from harness.jsonfile import reading
from harness.lemma.answers import Answer, answer, store_answers
from harness.lemma.campaign_recall import Recall, compare_recall, store_trial
from harness.lemma.case import STORED
from harness.lemma.change_detection import DETECTORS, kind_of, load_goals, store_goals
from harness.lemma.changes import CHANGED_PAIRS, prove_changed, store_changed
from harness.lemma.clusters import Cluster, find_clusters, load, merge, store, store_path
from harness.lemma.compare_levels import MAIN_PAIRS, PAIRS, Pair, Question, questions
from harness.lemma.docs_page import render
from harness.lemma.levels_page import render_levels
from harness.lemma.mutants import UNIT_TESTS, Result, Trial, mutants, sample, summary, try_mutant
from harness.lemma.path_states import collect_path_states, store_paths
from harness.lemma.prove import Proof, prove
from harness.lemma.row_findings import store_outcomes
from harness.lemma.stability import measure
from harness.model import FUNCTION, LEVEL_NAMES
from harness.vm.config import PROJECT

LEMMAS = CORPUS / "lemmas"
MUTANT_CASES = 100
"""Random states for each question."""
MODEL_TESTS = PROJECT / "tests" / "unit" / "harness" / "model"
PATH_TRIES = 4000
"""Random states of each function."""
STABILITY_TRIES = 1000
"""Random cases for each question."""
PAGE, LEVELS_PAGE = PROJECT / "docs" / "lemmas.md", PROJECT / "docs" / "lemma-levels.md"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LemmaPlan:
    """How to search: ``seconds`` for each pair with ``jobs`` workers; ``seed`` is that of the random numbers.

    With ``stored``, the stored clusters are used instead of a search.  With ``keep``, the results are stored.
    """

    seconds: float
    jobs: int
    seed: int
    stored: bool = False
    keep: bool = False


def pairs_of(names: Sequence[str]) -> tuple[Pair, ...]:
    """Return the pairs of these names, the main pairs without a name.  InputError: a name is no pair of levels."""
    if "all" in names:
        return PAIRS
    pairs: list[Pair] = []
    for name in names:
        left, _, right = name.partition(":")
        if left == right or left not in LEVEL_NAMES or right not in LEVEL_NAMES:
            raise InputError("--pair", None, f"{name!r} is not LEFT:RIGHT of two out of {', '.join(LEVEL_NAMES)}")
        pairs.append((left, right))
    return tuple(pairs) or MAIN_PAIRS


def stored_clusters(pair: Pair, chosen: tuple[Question, ...], *, needed: bool) -> tuple[Cluster, ...]:
    """Return the stored clusters of a pair.  InputError: there are none, and they are ``needed``."""
    path = store_path(LEMMAS, pair)
    if not path.exists() and needed:
        raise InputError("--stored", None, f"nothing is stored of {':'.join(pair)}: there is no {path}")
    return tuple(c for c in load(path) if c.question in chosen) if path.exists() else ()


def find_differences(
    pair: Pair, chosen: tuple[Question, ...], plan: LemmaPlan, progress: Progress
) -> tuple[Campaign, tuple[Cluster, ...]]:
    """Search for states in which the levels of a pair differ; return a minimal state for each kind of difference."""
    name = ":".join(pair)
    progress(f"{name}: {plan.seconds:.0f} s, {plan.jobs} workers")
    with tempfile.TemporaryDirectory(prefix="shadowfuzz-lemma-") as directory:
        campaign = run_campaign(chosen, plan.seconds, plan.jobs, plan.seed, Path(directory))
    progress(f"{name}: minimising {len(campaign.finds)} cases")
    clusters = find_clusters(((q, goal, case) for (q, goal, _), case in campaign.finds.items()), plan.jobs)
    if plan.keep:
        path = store_path(LEMMAS, pair)
        store(LEMMAS, pair, merge((*(load(path) if path.exists() else ()), *clusters)))
        kinds = {(q.function, kind_of(goal, branches)) for q, goal, branches in campaign.finds}
        store_goals(LEMMAS, pair, load_goals(LEMMAS, pair) | kinds)
        store_outcomes(LEMMAS, pair)
    return campaign, clusters


def report_of(pair: Pair, campaign: Campaign, clusters: tuple[Cluster, ...]) -> dict[str, Any]:
    """Return the result of a search as plain data."""
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


def compare_with_stored(
    report: dict[str, Any], clusters: tuple[Cluster, ...], chosen: tuple[Question, ...], plan: LemmaPlan
) -> Recall:
    """Return the stored clusters of a report's pair that a search missed; with ``plan.keep``, store them, too."""
    left, _, right = report["pair"].partition(":")
    trial = compare_recall(LEMMAS, (left, right), plan.seed, report, clusters, chosen)
    if plan.keep:
        store_trial(LEMMAS, trial)
    return trial


def combine_reports(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one object for all pairs: shares are means over all comparisons, the rate is the lowest one."""
    for name in ("proofs", "answers"):
        if results and name in results[0]:
            return {name: [row for result in results for row in result[name]]}
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


def clusters_text(report: dict[str, Any], clusters: tuple[Cluster, ...]) -> str:
    """Return the result of a search as text."""
    lines = [
        f"{report['pair']}: {report['comparisons']} comparisons, {report['comparisons_per_s']}/s and worker, "
        f"{report['defined_share']:.1%} defined on the left, {len(clusters)} clusters"
    ]
    for c in clusters:
        what = f"undefined on the right: {c.undefined}" if c.undefined else f"differ: {', '.join(c.fields)}"
        start = ", ".join(f"{name} = {value:#x}" for name, value in c.case) or "the default state"
        lines.append(f"  {c.question.layer}.{c.question.function}: {what}\n    in   {start}")
        rights = dict(c.right)
        lines += [f"    out  {name}: {value} | {rights[name]}" for name, value in c.left[:8]]
    return "\n".join(lines)


# ---- instead of a search


def write_pages() -> tuple[Path, Path]:
    """Write the two documents of what is stored; return their paths."""
    PAGE.write_text(render(LEMMAS))
    LEVELS_PAGE.write_text(render_levels(LEMMAS))
    return PAGE, LEVELS_PAGE


def write_paths(seed: int, progress: Progress) -> int:
    """Collect and store one state for each path of each level; return how many."""
    progress(f"trying {PATH_TRIES} random states of each function")
    rows = collect_path_states(PATH_TRIES, seed)
    store_paths(LEMMAS / "paths.json", rows)
    return len(rows)


def try_mutants(count: int, plan: LemmaPlan, progress: Progress) -> dict[str, Any]:
    """Ask every detector about mutants of the model (0: all), and the prover about those that change no answer."""
    if not MODEL_TESTS.is_dir():
        raise InputError("--mutants", None, f"needs the tests of the model, and there is no {MODEL_TESTS}")
    chosen = mutants() if count == 0 else sample(count, plan.seed)
    trial = Trial(LEMMAS, MUTANT_CASES, plan.seed, (UNIT_TESTS, *DETECTORS), MODEL_TESTS, prove=True)
    results: list[Result] = []
    with ThreadPoolExecutor(plan.jobs) as pool:
        for result in pool.map(partial(try_mutant, trial=trial), chosen):
            results.append(result)
            by = ", ".join(name for name, how in result.by if how is not None) or "nothing"
            tail = "" if result.proof is None else f"; prover: {result.proof[0] or 'equivalent'}"
            progress(f"{len(results)} of {len(chosen)}: {result.mutant.name}: noticed by {by}{tail}")
    return _kept({"all": len(mutants()), "seed": plan.seed, **summary(tuple(results))}, "mutants.json", plan)


def measure_stability(
    pairs: tuple[Pair, ...], chosen: tuple[Question, ...], starts: int, plan: LemmaPlan
) -> dict[str, Any]:
    """Return how often minimisation ends at the same minimal case, from several starts of each goal."""
    found = measure(chosen, starts, STABILITY_TRIES, plan.seed)
    report = asdict(found) | {"share": round(found.share, 4), "starts": starts}
    report["pairs"] = [":".join(pair) for pair in pairs]
    return _kept(report, "stability.json", plan)


def _kept(report: dict[str, Any], name: str, plan: LemmaPlan) -> dict[str, Any]:
    if plan.keep:
        (LEMMAS / name).write_text(json.dumps(report, indent=1) + "\n")
    return report


def prove_pair(pair: Pair, chosen: tuple[Question, ...], *, keep: bool, progress: Progress) -> dict[str, Any]:
    """Run the levels of a pair symbolically; return the proofs as plain data.

    ``progress`` gets each verdict when it is reached.  With ``keep``, counterexamples become stored clusters.
    """
    path = store_path(LEMMAS, pair)
    stored = load(path) if path.exists() else ()
    proofs: list[Proof] = []
    for question in chosen:
        known = tuple(c for c in stored if c.question == question)
        proof = prove(question, known)
        if keep and proof.new:
            # Store further counterexamples as clusters; the rest is proved equal.
            stored = merge((*stored, *proof.new.values()))
            store(LEMMAS, pair, stored)
            mine = [c for c in stored if c.question == question]
            proof.known, proof.by_proof = len(mine), len({c.key for c in mine} - {c.key for c in known})
            proof.new.clear()
        proofs.append(proof)
        progress(f"{':'.join(pair)} {question.layer}.{question.function}: {proof.verdict()}")
    if keep:
        _store_proofs(LEMMAS / "proofs" / path.name, proofs)
    return {"proofs": [p.to_json() for p in proofs]}


def answer_pair(pair: Pair, chosen: tuple[Question, ...], *, keep: bool, progress: Progress) -> dict[str, Any]:
    """Answer each question of a pair: its causes and the repaired statement; return the answers as plain data.

    With ``keep``, each is stored when it is reached.
    """
    path = store_path(LEMMAS, pair)
    stored = load(path) if path.exists() else ()
    rows: list[dict[str, Any]] = []
    for question in chosen:
        found = answer(question, [c for c in stored if c.question.function == question.function])
        if keep:
            store_answers(LEMMAS, pair, (found,))
        rows.append(found.to_json())
        progress(answer_text(found))
    return {"answers": rows}


def prove_changes(*, keep: bool, progress: Progress) -> list[dict[str, Any]]:
    """Prove each claim with the proposed changes applied and without hypotheses; return one row per claim."""
    results = []
    for question in questions(CHANGED_PAIRS):
        results.append(prove_changed(question))
        progress(f"{':'.join(question.pair)} {question.function}: {'proved' if results[-1].proved else results[-1]}")
    if keep:
        store_changed(LEMMAS, results)
    return [{"function": r.question.function, "proved": r.proved, "open": r.open} for r in results]


def answer_text(found: Answer) -> str:
    """Return an answer as text."""
    q = found.question
    head = "true" if found.proved and not found.causes else f"false, {len(found.causes)} causes"
    if not found.causes and not found.proved:
        head = "not decided"
    repaired = "proved" if found.proved else "NOT proved"
    tail = f"; outside them {repaired}" if found.causes else ""
    logs = "" if q.logs else ", lock logs left out"
    lines = [f"{':'.join(q.pair)} {q.layer}.{q.function}{logs}: {head}{tail} ({found.paths} paths)"]
    lines += [f"  {c.name} ({c.verdict}): {c.region}" for c in found.causes]
    lines += [f"  outside: {dict(case)}" for case in found.outside]
    return "\n".join([*lines, *(f"  open: {reason}" for reason in found.open)])


def _store_proofs(file: Path, proofs: Sequence[Proof]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    old: dict[str, Any] = {}
    if file.exists():
        with reading(file, STORED) as rows:
            old = {row["function"]: row for row in rows}
    old |= {p.question.function: p.to_json() for p in proofs}
    order = {name: i for i, name in enumerate(FUNCTION)}
    lines = [json.dumps(old[name]) for name in sorted(old, key=order.__getitem__)]
    file.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def questions_of(
    pairs: Sequence[Pair], layer: str | None, function: str | None, *, logs: bool
) -> list[tuple[Pair, tuple[Question, ...]]]:
    """Return the questions of each pair.  InputError: the function is not in the layer."""
    asked = [(pair, questions((pair,), layer, function, logs)) for pair in pairs]
    if not all(chosen for _, chosen in asked):
        raise InputError("--function", None, f"{function} is not in layer {layer}")
    return asked
