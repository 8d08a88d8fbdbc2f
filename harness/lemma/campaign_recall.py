# SPDX-License-Identifier: Apache-2.0
"""Compare the clusters that a run from an empty corpus finds with those that are listed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.jsonfile import reading
from harness.lemma.case import STORED
from harness.lemma.clusters import Cluster, load, store_path
from harness.lemma.compare_levels import Pair, Question
from harness.lemma.row_findings import changed_rows


@dataclass(frozen=True, slots=True)
class Recall:
    """One run: its question, its size, how many clusters are listed, and which of them it missed.

    ``unlisted``: what it found and the list does not have, a cluster or a row whose outcome is not the stored one.
    """

    pair: str
    seed: int
    seconds: float
    workers: int
    comparisons: int
    listed: int
    missed: tuple[str, ...]
    unlisted: tuple[str, ...]

    def text(self) -> str:
        """Return the outcome in a few lines."""
        head = (
            f"{self.pair} seed {self.seed}: {self.listed - len(self.missed)} of {self.listed} listed clusters found, "
            f"{len(self.unlisted)} that are not listed"
        )
        return "\n".join([head, *(f"  missed {t}" for t in self.missed), *(f"  not listed {t}" for t in self.unlisted)])


def compare_recall(
    directory: Path,
    pair: Pair,
    seed: int,
    report: Mapping[str, Any],
    found: Iterable[Cluster],
    chosen: tuple[Question, ...],
) -> Recall:
    """Compare what a run found with what is stored for its questions."""
    path = store_path(directory, pair)
    stored = {c.key: c for c in load(path) if c.question in chosen} if path.exists() else {}
    got = {c.key: c for c in found}
    return Recall(
        ":".join(pair),
        seed,
        report["seconds"],
        report["workers"],
        report["comparisons"],
        len(stored),
        tuple(_text(c) for key, c in stored.items() if key not in got),
        (
            *(_text(c) for key, c in got.items() if key not in stored),
            *(text for question in chosen for text in changed_rows(directory, question)),
        ),
    )


def _text(c: Cluster) -> str:
    start = ", ".join(f"{name} = {value:#x}" for name, value in c.case) or "the plain state"
    return f"{c.question.function}: {start}"


def trials_path(directory: Path, pair: str) -> Path:
    """Return the file of a pair's trials."""
    return directory / "trials" / f"{pair.replace(':', '-')}.json"


def load_trials(directory: Path, pair: str) -> list[dict[str, Any]]:
    """Return the stored trials of a pair, by seed.  InputError: the file is something else."""
    path = trials_path(directory, pair)
    if not path.exists():
        return []
    with reading(path, STORED) as rows:
        return [row for row in rows if row["seed"] >= 0]


def store_trial(directory: Path, trial: Recall) -> None:
    """Write a trial; it replaces the last one with the same seed."""
    rows = {row["seed"]: row for row in load_trials(directory, trial.pair)}
    rows[trial.seed] = asdict(trial)
    path = trials_path(directory, trial.pair)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(json.dumps(rows[seed]) for seed in sorted(rows)) + "\n]\n")
