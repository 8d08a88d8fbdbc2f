# SPDX-License-Identifier: Apache-2.0
"""Generate the page about release pairs: intended changes, values that are not compared, and runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.findings.compare_releases import NEVER_COMPARED, NEVER_THE_SAME, RELATION
from harness.findings.intended_changes import RULES, Intended
from harness.report.readme_tables import table

RUNS = Path("corpus") / "against"
"""Directory of the kept summaries of runs (``shadowfuzz fuzz --against ... --json``, through :func:`kept`)."""

_KEYS = ("target", "kernel_release", "seconds", "jobs", "seed", "scenarios", "lost_vms")


INTRODUCTION = (
    "`shadowfuzz fuzz --target ONE --against OTHER` runs every scenario on two targets. Each trace is",
    "compared with the model and the architecture as in any campaign; in addition, the two traces are compared with",
    "each other, record by record (relation `against`), without a model. A difference is one of the rows",
    "below, to the bit, or a finding of the pair. `shadowfuzz kernels against ONE OTHER FILE` shows one scenario.",
)


def kept(summary: Mapping[str, Any], intended: Iterable[Intended], note: str) -> Mapping[str, object]:
    """Return the part of a campaign's summary that the page needs; ``note`` describes its findings."""
    ids = {row.id for row in intended}
    return {
        **{key: summary[key] for key in _KEYS},
        "against": list(summary["against"][:2]),
        "records": summary["relations"][RELATION],
        "intended": {id_: n for id_, n in summary["known_by_entry"].items() if id_ in ids},
        "unchecked": {why: n for why, n in summary["unchecked"].items() if why.startswith(f"{RELATION}: ")},
        "findings": [f["what"] for f in summary["findings"] if f["what"].startswith(f"{RELATION}.")],
        "note": note,
    }


def read_runs(directory: Path) -> tuple[Mapping[str, Any], ...]:
    """Return the kept runs, by file name.  InputError: a file is not a run."""
    found = []
    for path in sorted(directory.glob("*.json")):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            found.append({**run, "pair": f"{run['target']} against {run['against'][0]}"})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(str(path), None, f"not a run of two targets: {error}") from error
    return tuple(found)


def page(intended: Sequence[Intended], runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the page."""
    return "\n".join(_lines(intended, runs)) + "\n"


def _lines(intended: Sequence[Intended], runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "# Release against release"
    yield ""
    yield "Generated from corpus/known/releases.toml and corpus/against by"
    yield "`UPDATE_DOCS=1 pytest tests/unit/harness/report/test_release_pairs.py`."
    yield ""
    yield from INTRODUCTION
    yield ""
    yield "## Intended changes"
    yield ""
    heads = ("row", "since", "where", "what", "source")
    yield table(heads, (_row(row) for row in sorted(intended, key=lambda row: row.since))).rstrip()
    yield ""
    yield "The rules of these rows explain:"
    yield ""
    for name in dict.fromkeys(row.explains for row in intended):
        yield f"- `{name}`: {RULES[name][1]}."
    yield ""
    yield "## What is not compared"
    yield ""
    yield "Counted in every run, with the reason. After an intended difference that the guest may read,"
    yield "later differences may follow from it; the comparison of the scenario ends there, which is also counted."
    yield ""
    yield from (f"- `{name}`: {why}." for name, why in {**NEVER_COMPARED, **NEVER_THE_SAME}.items())
    yield "- Counters and timers: they advance with time."
    yield "- The time of a host interrupt, and exits that depend on it: the first use of debug and vector"
    yield "  registers after it, a WFI or WFE while one is pending (QEMU skips it), when a page of RAM is mapped."
    yield "- A forged exit that is another exit in one run than in the other; a guest that runs without exits."
    for run in runs:
        yield ""
        yield from _run(run)


def _row(row: Intended) -> tuple[str, ...]:
    release = ".".join(map(str, row.since if row.since[2] else row.since[:2]))
    places = [f"{'/'.join(sorted(row.events))} {_names(row.registers)}"]
    places += [f"at {_names(row.exits)}"] if row.exits else []
    places += [f"of {_names(row.calls)}"] if row.calls else []
    return f"`{row.id}`", release, " ".join(places), f"{row.why} (rule `{row.explains}`)", row.source


def _names(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed) if len(listed) <= 6 else f"{len(listed)} registers"


def _run(run: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {run['pair']}"
    yield ""
    yield f"Linux {run['kernel_release']} and {run['against'][1]}: {run['seconds']:.0f} s, {run['jobs']} worker,"
    yield f"seed {run['seed']}; {run['scenarios']} scenarios, {run['records']} pairs of records compared,"
    yield f"{run['lost_vms']} machines lost."
    yield ""
    yield table(("intended", "times"), ((f"`{id_}`", str(n)) for id_, n in run["intended"].items())).rstrip()
    yield ""
    whys = ((why.partition(": ")[2], str(n)) for why, n in run["unchecked"].items())
    yield table(("not compared", "times"), whys).rstrip()
    yield ""
    if run["findings"]:
        yield "Clusters that no row explained at the time of the run:"
        yield ""
        yield from (f"- {what}" for what in run["findings"])
        yield ""
    yield run["note"]
