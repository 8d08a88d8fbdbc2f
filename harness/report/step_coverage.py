# SPDX-License-Identifier: Apache-2.0
"""Show what a corpus exercised on each target, as text and as the page ``docs/reach.md``: rows in, text out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.coverage.exercised_steps import FORGE, NO_EXIT, StepAtExit
from harness.coverage.reachable_exits import NOT_SAID, classes_of, possible, unreached_reason
from harness.relations.registry import ALL
from harness.report.readme_tables import table
from harness.scenario.steps import STEP_KINDS

_ORDER = ("save", "restore", "host", "switch", "reveal", "isolate")
LETTERS: Mapping[str, str] = dict(
    sorted(
        ((relation.name, relation.letter) for relation in ALL if relation.letter),
        key=lambda item: _ORDER.index(item[0]),
    )
)
"""Relations and their letters in a cell; a new relation has its first letter."""
_NAMED = re.compile(r"exit class \S+")
COMMAND = (
    "shadowfuzz corpus reach --all-targets --keep corpus/reach.json --page docs/reach.md --contract docs/contract.md"
)
"""The command that makes this page and ``docs/contract.md``, from one measurement."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A place on one target: its count, the relations that checked it completely, the others with reasons."""

    reached: int
    judged: frozenset[str]
    left_out: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Reach:
    """A measurement: by target, the parameters of the run, and each reached place."""

    runs: Mapping[str, Mapping[str, Any]]
    cells: Mapping[str, Mapping[StepAtExit, Cell]]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Reach:
        """Read the output of ``shadowfuzz corpus reach --json``.  KeyError, TypeError, ValueError: it is malformed."""
        runs, cells = {}, {}
        for target, one in document["targets"].items():
            runs[target] = {name: value for name, value in one.items() if name not in ("places", "rules")}
            cells[target] = {StepAtExit(row["step"], row["exit"]): _cell(row) for row in one["places"]}
        return cls(runs, cells)

    @property
    def targets(self) -> tuple[str, ...]:
        """The measured targets."""
        return tuple(self.runs)

    def steps(self) -> tuple[str, ...]:
        """Every step of a scenario, and the rows of places without a step."""
        known = [kind.keyword for kind in STEP_KINDS]
        others = {place.step for cells in self.cells.values() for place in cells} - set(known)
        return (*known, *sorted(others))

    def missing(self) -> Iterator[tuple[StepAtExit, str, str, str]]:
        """Yield each possible place that was not reached: place, target, reason, source (empty: no reason is known)."""
        for target, cells in self.cells.items():
            reached = {place.step for place in cells}
            for place in possible():
                if place not in cells:
                    why = unreached_reason(place, target)
                    yield place, target, why.why if why else NOT_SAID, why.source if why else ""
            for kind in STEP_KINDS:
                if not classes_of(kind) and kind.keyword not in reached:
                    yield StepAtExit(kind.keyword, "any"), target, NOT_SAID, ""

    def left_out(self) -> Iterator[tuple[StepAtExit, str, str, str]]:
        """Yield each place that a relation never checked completely: place, target, relation, a reason."""
        for target, cells in self.cells.items():
            for place, cell in cells.items():
                for relation, reasons in cell.left_out.items():
                    yield from ((place, target, relation, reason) for reason in reasons)


def _cell(row: Mapping[str, Any]) -> Cell:
    judged = frozenset(name for name, count in row["judged"].items() if count)
    return Cell(row["reached"], judged, {name: tuple(sorted(why)) for name, why in row["left_out"].items()})


def _letters(cell: Cell) -> str:
    names = [name for name in LETTERS if name in cell.judged or name in cell.left_out]
    names += sorted({*cell.judged, *cell.left_out} - set(names))
    return "".join(LETTERS.get(name, name[0]) if name in cell.judged else "-" for name in names)


def _shown(reach: Reach, place: StepAtExit, *, can: bool) -> str:
    """Return a cell of all targets: letters if they agree, else those of most targets, and the deviating ones.

    A place that no row calls possible can occur at any time, and is shown where it occurred.
    """
    by_text: dict[str, list[str]] = {}
    for target in reach.targets:
        cell = reach.cells[target].get(place)
        if cell is not None or can:
            by_text.setdefault("not reached" if cell is None else _letters(cell), []).append(target)
    if not by_text:
        return ""
    most = max(by_text, key=lambda text: len(by_text[text]))
    others = [f"{text} on {', '.join(names)}" for text, names in by_text.items() if text != most]
    return "; ".join([most, *others])


def _order(classes: Iterable[str]) -> list[str]:
    wanted = [NO_EXIT, "WFX", "HVC64", "SMC64", "SYS64", "IABT_LOW", "DABT_LOW"]
    rest = sorted(set(classes) - set(wanted) - {"IRQ"})
    return [*wanted, *rest, "IRQ"]


def matrix(reach: Reach) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return heads and rows of steps by exit classes, without forged exits."""
    can = set(possible())
    places = {p for cells in reach.cells.values() for p in cells} | can
    classes = _order(place.exit_class for place in places if place.step != FORGE)
    rows = []
    for step in reach.steps():
        if step != FORGE:
            shown = (_shown(reach, p, can=p in can) for p in (StepAtExit(step, name) for name in classes))
            rows.append((f"`{step}`", *shown))
    return ("step", *classes), rows


def forged(reach: Reach) -> list[tuple[str, str]]:
    """Return the classes that exits were forged to, each with the relations that checked it."""
    can = [place for place in possible() if place.step == FORGE]
    seen = {place for cells in reach.cells.values() for place in cells if place.step == FORGE}
    names = list(dict.fromkeys(place.exit_class for place in can)) + sorted(p.exit_class for p in seen - set(can))
    return [(name, _shown(reach, StepAtExit(FORGE, name), can=True)) for name in names]


def _grouped(rows: Iterable[tuple[tuple[str, ...], str, str]]) -> list[tuple[tuple[str, ...], str, str]]:
    """Merge rows of one key: places and targets as lists."""
    found: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
    for key, place, target in rows:
        places, targets = found.setdefault(key, ([], []))
        places.extend([place] if place not in places else [])
        targets.extend([target] if target not in targets else [])
    return [(key, ", ".join(places), ", ".join(targets)) for key, (places, targets) in found.items()]


def missing_rows(reach: Reach) -> list[tuple[str, ...]]:
    """Return the possible places that were not reached: places, targets, reason, source."""
    rows = (
        ((why, source), f"{place.step} at {place.exit_class}", target) for place, target, why, source in reach.missing()
    )
    return [(places, _targets(reach, targets), *key) for key, places, targets in _grouped(rows)]


def left_out_rows(reach: Reach) -> list[tuple[str, ...]]:
    """Return the reached places that were never checked completely: relation, places, targets, reason."""
    rows = (
        ((relation, _NAMED.sub("this exit class", why)), f"{p.step} at {p.exit_class}", target)
        for p, target, relation, why in reach.left_out()
    )
    return [(key[0], places, _targets(reach, targets), key[1]) for key, places, targets in _grouped(rows)]


def _targets(reach: Reach, targets: str) -> str:
    return "all" if len(targets.split(", ")) == len(reach.targets) else targets


def summary(reach: Reach) -> str:
    """Return one line for each target: scenarios run, places reached and checked."""
    lines = []
    can = set(possible())
    for target, cells in reach.cells.items():
        run = reach.runs[target]
        whole = sum(not cell.left_out for cell in cells.values())
        lines.append(
            f"{target}: {run['scenarios']} scenarios ({run['mutants']} of them mutants), {run['exits']} exits; "
            f"{len(cells)} places reached, {whole} of them compared by every relation; "
            f"{len(can - set(cells))} of {len(can)} possible ones not reached"
        )
    return "\n".join(lines)


def text(reach: Reach) -> str:
    """Return the measurement as text."""
    lines = [summary(reach), ""]
    heads, rows = matrix(reach)
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows)
    ]
    lines += ["", "forged to", *(f"  {name:12} {shown}" for name, shown in forged(reach))]
    lines += ["", "not reached", *(f"  {'; '.join(filter(None, row))}" for row in missing_rows(reach))]
    lines += ["", "not compared completely", *(f"  {'; '.join(row)}" for row in left_out_rows(reach))]
    return "\n".join(lines)


def page(reach: Reach) -> str:
    """Return the page ``docs/reach.md``."""
    heads, rows = matrix(reach)
    letters = ", ".join(f"`{letter}` {name}" for name, letter in LETTERS.items())
    return "\n".join(
        [
            "# Coverage of the corpus, and the relations that compare it",
            "",
            f"Generated by `{COMMAND}`; do not edit.",
            "",
            "Every step of a scenario by the class of its exit (for a host step: the exit before it), over",
            "seeds, regressions and mutants of them, on each target. A cell names the relations that compared the",
            f"place completely at least once: {letters}. A `-` is a relation that always left something out,",
            "`not reached` an exit that is possible by `harness/coverage/reachable_exits.py` and did not occur, an",
            "empty cell an impossible one. `switch` compares the run up to the exit, for host steps the run after it;",
            "a step that was executed without an exit is compared by `switch` alone. (begin) is a vCPU's first entry,",
            "(elsewhere) an exit from code that belongs to no step, such as the guest's vectors.",
            "",
            summary(reach).replace("\n", "\n\n"),
            "",
            "## Steps by exit classes",
            "",
            table(heads, rows),
            "",
            "## Forged exits, by the class that replaced theirs",
            "",
            table(("class", "compared by"), forged(reach)),
            "",
            "## Not reached, and why",
            "",
            table(("places", "targets", "why", "source"), missing_rows(reach)),
            "",
            "## Reached, and never compared completely",
            "",
            "Measured: the checks report these reasons.",
            "",
            table(("relation", "places", "targets", "why"), left_out_rows(reach)),
            "",
        ]
    )


def without_reason(reach: Reach) -> Sequence[str]:
    """Return the possible places that were not reached and have no reason, as text."""
    return [f"{p.step} at {p.exit_class} on {target}" for p, target, _, source in reach.missing() if not source]
