# SPDX-License-Identifier: Apache-2.0
"""Measure what a corpus exercises on targets, write the counts to a file, and read them again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz.corpus.exercise import ExerciseWork, measure_all
from fuzz.corpus.files import read_corpus
from harness.jsonfile import reading
from harness.report.contract_page import Exercised, contract_text
from harness.report.step_coverage import Reach, text

FORMAT = 1


def counts_text(document: Mapping[str, Any]) -> str:
    """Return the text that ``--keep`` writes: a line for each step at an exit, so that changes are small diffs."""
    separator, parts = ",\n", []
    for target, one in document["targets"].items():
        head = json.dumps({name: value for name, value in one.items() if name not in ("places", "rules")})[:-1]
        places = ",\n".join(json.dumps(row) for row in one["places"])
        rules = ",\n".join(f"{json.dumps(rule)}: {json.dumps(row)}" for rule, row in one["rules"].items())
        parts.append(f'{json.dumps(target)}: {head}, "rules": {{\n{rules}\n}}, "places": [\n{places}\n]}}')
    return f'{{"format": {FORMAT}, "targets": {{\n{separator.join(parts)}\n}}}}\n'


def read_counts(path: Path) -> dict[str, Any]:
    """Read a file that ``--keep`` wrote.  InputError: it cannot be read, or is something else."""
    with reading(path, "what `shadowfuzz corpus reach --keep` writes") as document:
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}, expected {FORMAT}")
        if not all(isinstance(one["lost"], int) for one in document["targets"].values()):
            raise ValueError("lost: expected a whole number")
        text(Reach.from_json(document))
        contract_text(Exercised.from_json(document))
        kept: dict[str, Any] = {"format": FORMAT, "targets": {**document["targets"]}}
    return kept


@dataclass(frozen=True, slots=True)
class ExercisePlan:
    """What to run: scenarios of files and directories, and ``mutants`` mutants of them by a seed, on each target."""

    paths: tuple[Path, ...]
    targets: tuple[str, ...]
    level: str
    mutants: int
    seed: int


def measure_targets(plan: ExercisePlan, progress: Callable[[str], None]) -> dict[str, Any]:
    """Run all scenarios on every target, and return the counts.

    InputError, SetupError: a file, a name or the set-up is wrong.  TargetError: machines were lost repeatedly.
    """
    corpus = read_corpus(plan.paths)
    scenarios = tuple((f"{path.parent.name}/{path.name}", scenario) for path, scenario in corpus.scenarios)
    progress(f"{len(scenarios)} scenarios and {plan.mutants} mutants on {', '.join(plan.targets)}")
    found: dict[str, Any] = {}
    started = time.monotonic()

    def done(target: str, counts: dict[str, Any]) -> None:
        found[target] = counts
        progress(f"{target}: {counts['exits']} exits, {time.monotonic() - started:.0f} s")

    measure_all([ExerciseWork(target, plan.level, scenarios, plan.mutants, plan.seed) for target in plan.targets], done)
    return {"format": FORMAT, "targets": found}
