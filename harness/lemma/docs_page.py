# SPDX-License-Identifier: Apache-2.0
"""Write the page ``docs/lemmas.md`` from the stored verdicts and clusters; a test keeps it current."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from harness.jsonfile import reading
from harness.lemma.answer_page import field_name, render_answers
from harness.lemma.campaign_recall import load_trials
from harness.lemma.case import STORED
from harness.lemma.causes_kernel import cause_of
from harness.lemma.clusters import Cluster, load, store_path
from harness.lemma.compare_levels import MAIN_PAIRS
from harness.lemma.equivalence import DOMAIN
from harness.lemma.equivalent_mutants import REASONS
from harness.lemma.mutants import ANSWERS

HEAD = """\
# The lemmas: what holds, and where not

Generated; do not edit. Made from `corpus/lemmas` by `shadowfuzz lemma --page`. What is stored there comes from
`shadowfuzz lemma --answer --store` (causes and proofs) and `shadowfuzz lemma --seconds 60 --store` (search). Tests run
both sides of every counterexample on its stored state again, prove statements again, and keep this page current.
[What each level does](lemma-levels.md) has each level by itself, path by path.

The levels: `spec` is the closed form that the layer above relies on, `low` the specification put together from the
primitives', `body` the code as the proof sees it, `kernel` what the deployed C does. Where the left side of a pair is
undefined it claims nothing; where it is defined and the right side is not, or differs, that state refutes the claim.
"""
KINDS = """\
## Every kind of state that was found

The rows below are the search's: one for each set of branches of both sides and of fields, by the cause that its state
belongs to. `right:` has the branches that only the right side takes.
"""
TITLES = {
    ("low", "body"): "`low` to `body`, kind by kind",
    ("spec", "low"): "`spec` to `low`, kind by kind",
    ("spec", "kernel"): "`spec` to `kernel`, kind by kind",
}
MAX_FIELDS = 8


def render(directory: Path) -> str:
    """Return the page, from the clusters and proofs stored in ``directory``."""
    parts = [HEAD, render_answers(directory), KINDS]
    for pair in MAIN_PAIRS:
        path = store_path(directory, pair)
        clusters = load(path) if path.exists() else ()
        parts.append(f"## {TITLES[pair]}\n")
        for function, group in groupby(clusters, key=lambda c: c.question.function):
            parts.append(_function(function, list(group)))
    parts += [_scope(directory), _trials(directory), _stability(directory), _mutants(directory)]
    return "\n".join(parts)


def _function(function: str, clusters: list[Cluster]) -> str:
    lines = [f"### `{clusters[0].question.layer}.{function}`, {':'.join(clusters[0].question.pair)}\n"]
    by_cause: dict[str, list[Cluster]] = {}
    for c in clusters:
        by_cause.setdefault(cause_of(c).name, []).append(c)
    for name, group in by_cause.items():
        lines += [
            f"**{name}**: {len(group)} kind{'s' if len(group) != 1 else ''} of state",
            "",
            "| start state | branch | left | right |",
            "|---|---|---|---|",
        ]
        lines += [_row(c) for c in group]
        lines.append("")
    return "\n".join(lines)


def _short(label: str) -> str:
    arm, _, name = label.rpartition("not ")
    return ("not " if arm or label.startswith("not ") else "") + name.partition(".")[2]


def _row(c: Cluster) -> str:
    start = ", ".join(f"`{name}` = {value:#x}" for name, value in c.case) or "the plain state"
    branch = ", ".join(f"`{_short(label)}`" for label in c.branch) or "none"
    only_right = [f"`{_short(label)}`" for label in c.right_branch if label not in c.branch]
    branch += f"; right: {', '.join(only_right)}" if only_right else ""
    if c.undefined is not None:
        return f"| {start} | {branch} | defined | undefined: {c.undefined} |"
    shown, more = c.fields[:MAX_FIELDS], len(c.fields) - MAX_FIELDS
    left, right = dict(c.left), dict(c.right)
    tail = f"<br>and {more} more fields" if more > 0 else ""
    outs = ["<br>".join(f"{field_name(f)} {side[f]}" for f in shown) + tail for side in (left, right)]
    return f"| {start} | {branch} | {outs[0]} | {outs[1]} |"


def _trials(directory: Path) -> str:
    """Return the section on runs from an empty corpus: which clusters they found."""
    rows = [row for pair in MAIN_PAIRS for row in load_trials(directory, ":".join(pair))]
    lines = ["## Does a run find them?", ""]
    if not rows:
        return "\n".join([*lines, "Not measured yet (`shadowfuzz lemma --expect-stored --store`).", ""])
    lines += [
        "Runs from an empty corpus, made by `shadowfuzz lemma --pair P --seed S --expect-stored --store`. The seconds "
        "are those of the search; minimising comes after it, up to a minute more for spec:kernel. "
        "A cluster that a run found and the page does not list "
        "is shown under `not listed`: the list is not complete in that kind.",
        "",
        "| pair | seed | seconds | workers | comparisons | found of listed | missed | not listed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lost, more = ("; ".join(f"`{text}`" for text in r[name]) or "none" for name in ("missed", "unlisted"))
        lines.append(
            f"| {r['pair']} | {r['seed']} | {r['seconds']:.0f} | {r['workers']} | {r['comparisons']} | "
            f"{r['listed'] - len(r['missed'])} of {r['listed']} | {lost} | {more} |"
        )
    return "\n".join([*lines, ""])


def _stability(directory: Path) -> str:
    """Return the section on minimisation: how often it ends at the same case."""
    lines = ["## Are the counterexamples the least ones?", ""]
    path = directory / "stability.json"
    if not path.exists():
        return "\n".join([*lines, "Not measured yet (`shadowfuzz lemma --stability 8 --store`).", ""])
    with reading(path, STORED) as report:
        lines.append(
            f"`shadowfuzz lemma --stability {report['starts']} --store` minimised {report['total']} random starts of "
            f"{report['goals']} kinds ({', '.join(report['pairs'])}); {report['same']} of them "
            f"(**{report['share']:.1%}**) ended at the same least case as the best of their kind."
        )
        lines += [f"- not always: `{text}`" for text in report["strays"]]
    return "\n".join([*lines, ""])


HOW_NOTICED = {
    "unit tests": "the tests of the model in `tests/unit/harness/model`",
    "stored paths": "the rows of [what each level does](lemma-levels.md), run again",
    "stored clusters": "the least counterexamples above, run again",
    "hypotheses": "the hypotheses above, on the generator's rows and drawn states: outside them both sides agree, "
    "inside a weakest one they differ",
    "verdicts": "the statements `low:body` and `spec:low` above, proved again under their hypotheses",
    "campaign": "a search alone: what its rows show, with the values, and kinds of difference that no cluster has",
}


def _mutants(directory: Path) -> str:
    """Return the section on the last mutation test: the mutants that each detector noticed by itself."""
    lines = ["## Would a changed level be noticed?", ""]
    path = directory / "mutants.json"
    if not path.exists():
        return "\n".join([*lines, "Not measured yet (`shadowfuzz lemma --mutants 0 --store`).", ""])
    with reading(path, STORED) as report:
        equivalent = dict(report["equivalent"])
        counted = report["mutants"] - len(equivalent)
        lines += [
            f"One run, `shadowfuzz lemma --mutants {report['mutants']} --seed {report['seed']} --store` (0: all), "
            f"changed one row of the model at a time, in {report['mutants']} of {report['all']} possible ways: a "
            "number plus one, another comparison or operator, a statement left out, two names of a table swapped. "
            f"{len(equivalent)} of them are equivalent, which the prover shows; the other {counted} count. "
            f"A verdict, a hypothesis, a cluster or what a search finds changed with **{report['answers']} of "
            f"{counted}** ({report['answers'] / counted:.1%}); one of these or a row of "
            f"[what each level does](lemma-levels.md) with **{report['page']} of {counted}** "
            f"({report['page'] / counted:.1%}); something noticed {report['killed']}. Each detector by itself:",
            "",
            "| detector | what it is | noticed | share |",
            "|---|---|---|---|",
        ]
        for name, (noticed, total) in report["detectors"].items():
            lines.append(f"| {name} | {HOW_NOTICED[name]} | {noticed} of {total} | {noticed / total:.1%} |")
        lines += ["", *_not_on_page(report["rows"], equivalent), *_equivalent(equivalent)]
    return "\n".join([*lines, ""])


def _not_on_page(rows: Sequence[tuple[str, Sequence[str], str | None]], equivalent: Mapping[str, int]) -> list[str]:
    """Return the changes that count and change no answer, with what notices them."""
    left = [(name, by, why) for name, by, why in rows if name not in equivalent and {*by}.isdisjoint(ANSWERS)]
    if not left:
        return ["No change that counts leaves every verdict, hypothesis and cluster as it is.", ""]
    return [
        "These change no verdict, hypothesis or cluster:",
        "",
        "| change | noticed by | the prover: what differs |",
        "|---|---|---|",
        *(f"| `{name}` | {', '.join(by) or '**nothing**'} | {why or ''} |" for name, by, why in left),
        "",
    ]


def _equivalent(equivalent: Mapping[str, int]) -> list[str]:
    """Return the changes that the prover shows to be equivalent, each with the reason for it."""
    lines = [
        "These are equivalent: the prover runs every function of a level that uses the changed row, before and after, "
        f"in both directions, and nothing can differ ({DOMAIN}).",
        "",
        "| change | reason | why |",
        "|---|---|---|",
    ]
    for name in equivalent:
        row = REASONS.get(name)
        reason = f"{row.kind} | {row.why}" if row else "**not reviewed** |"
        lines.append(f"| `{name}` | {reason} |")
    return lines


def _scope(directory: Path) -> str:
    scopes: set[str] = set()
    for path in sorted((directory / "proofs").glob("*.json")):
        with reading(path, STORED) as rows:
            scopes |= {row["scope"] for row in rows}
    scopes |= {
        "the register loop by induction over its rounds, where more than two marked registers matter: `low:body` and "
        "`spec:low` with the changes made, and `body:kernel`"
    }
    text = "\n".join(f"- {scope}." for scope in sorted(scopes))
    return f"## What a proof on this page covers\n\n{text}\n"
