# SPDX-License-Identifier: Apache-2.0
"""Show what a corpus reached in KVM and in the model: as text, as plain data, as one HTML page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.coverage.kvm_code import (
    Decision,
    DecisionReach,
    FileReach,
    FunctionReach,
    HandlerReach,
    Matrix,
    decision_text,
)
from harness.coverage.kvm_handlers import Reason
from harness.report.html_markup import Content, Markup, details, document, el, put, table
from harness.vm.kernels.kvm_functions import EL1, EL2, GENERIC

PARTS = (EL1, EL2, GENERIC)


@dataclass(frozen=True, slots=True)
class ReachReport:
    """The content of a coverage report.

    ``subject`` has target, kernel and level; ``files`` is empty without debug information.
    """

    subject: Mapping[str, str]
    scenarios: int
    lost: Mapping[str, str]
    invalid: int
    edges: int
    functions: tuple[FunctionReach, ...]
    handlers: tuple[HandlerReach, ...]
    decisions: tuple[DecisionReach, ...]
    matrix: Matrix
    files: tuple[FileReach, ...] = ()

    def reached(self, part: str) -> tuple[FunctionReach, ...]:
        """Return the executed functions of a part, those with the most instructions first."""
        rows = [row for row in self.functions if row.function.part == part and row.blocks]
        return tuple(sorted(rows, key=lambda row: (-row.instructions, row.function.begin)))

    def of(self, part: str) -> tuple[FunctionReach, ...]:
        """Return all functions of a part."""
        return tuple(row for row in self.functions if row.function.part == part)

    @property
    def taken(self) -> tuple[Decision, ...]:
        """The decisions that at least one scenario took."""
        return tuple(row.decision for row in self.decisions if row.scenarios)


def to_json(report: ReachReport) -> dict[str, object]:
    """Return a report as plain data."""
    names = {row.function.begin: row.function.name for row in report.functions}
    return {
        **report.subject,
        "scenarios": report.scenarios,
        "lost": dict(report.lost),
        "invalid_files": report.invalid,
        "edges": report.edges,
        "parts": {part: _sums(report, part) for part in PARTS},
        "functions": [
            {
                "name": row.function.name,
                "part": row.function.part,
                "blocks": row.blocks,
                "instructions": row.instructions,
                "instructions_of": row.of,
                "scenarios": row.scenarios,
            }
            for row in report.functions
        ],
        "handlers": [
            {
                "name": row.function,
                "classes": row.handler.classes,
                "scenarios": row.scenarios,
                "forged": row.forged,
                **_why(row.why),
            }
            for row in report.handlers
        ],
        "decisions": [
            {"name": decision_text(row.decision), "scenarios": row.scenarios, **_why(row.why)}
            for row in report.decisions
        ],
        "files": [{"file": row.file, "lines": sorted(row.reached), "lines_of": len(row.of)} for row in report.files],
        "matrix": [
            {"function": names[begin], "decisions": {decision_text(d): n for d, n in sorted(row.items())}}
            for begin, row in sorted(report.matrix.items())
        ],
    }


def _why(why: Reason | None) -> dict[str, object]:
    return {} if why is None else {"why": why.why, "source": why.source, "todo": why.todo}


def _sums(report: ReachReport, part: str) -> dict[str, int]:
    rows = report.of(part)
    return {
        "functions": sum(row.blocks > 0 for row in rows),
        "functions_of": len(rows),
        "instructions": sum(row.instructions for row in rows),
        "instructions_of": sum(row.of for row in rows),
    }


def text(report: ReachReport, *, every_function: bool = False) -> str:
    """Return a report as text; ``every_function``: with a line for each reached function."""
    lines = [
        ", ".join(f"{name} {value}" for name, value in report.subject.items()),
        f"{report.scenarios} scenarios, {report.edges} edges of KVM's code"
        + (f"; files that are not scenarios: {report.invalid}" if report.invalid else ""),
        *(f"machine lost at {name}: {why}" for name, why in report.lost.items()),
        "",
        "part                  functions reached   instructions reached",
    ]
    for part in PARTS:
        s = _sums(report, part)
        functions, instructions = f"{s['functions']} of {s['functions_of']}", s["instructions"]
        lines.append(f"{part:20}  {functions:18}  {instructions} of {s['instructions_of']}")
    if every_function:
        for part in PARTS:
            lines += ["", f"{part}: instructions reached, of all, scenarios, function"]
            lines += [
                f"{row.instructions:6} {row.of:6} {row.scenarios:5}  {row.function.name}"
                for row in report.reached(part)
            ]
    if report.files:
        lines += ["", "source files: lines reached, of all that have code"]
        lines += [f"{len(row.reached):6} {len(row.of):6}  {row.file}" for row in report.files if row.reached]
    entered = [row for row in report.handlers if row.scenarios]
    lines += ["", f"exit handlers: {len(entered)} of {len(report.handlers)} entered; number of scenarios, handler"]
    lines += [f"{row.scenarios:6}  {row.function}  ({row.handler.classes}){_forged(row)}" for row in entered]
    handlers = ((f"{row.function} ({row.handler.classes})", row.why) for row in report.handlers)
    lines += _never_lines("never by a guest's own exit", handlers)
    lines += ["", f"decisions of the model: {len(report.taken)} of {len(report.decisions)} taken"]
    lines += _never_lines("never", ((decision_text(row.decision), row.why) for row in report.decisions))
    return "\n".join(lines)


def _forged(row: HandlerReach) -> str:
    return ", by forged exits only" if 0 < row.forged == row.scenarios else ""


def _never_lines(never: str, rows: Iterable[tuple[str, Reason | None]]) -> Iterator[str]:
    """Yield the items that were never reached, a block for each reason; open tasks first."""
    groups: dict[tuple[bool, str, str], list[str]] = {}
    for name, why in rows:
        if why is not None:
            groups.setdefault((not why.todo, why.why, why.source), []).append(name)
    for (said, why_not, source), names in sorted(groups.items()):
        yield f"  {never}, {'because' if said else 'TO DO'}: {why_not}{f' [{source}]' if source else ''}"
        yield from textwrap.wrap(", ".join(names), 110, initial_indent="        ", subsequent_indent="        ")


def page(report: ReachReport) -> str:
    """Return a report as a self-contained HTML file."""
    subject = ", ".join(f"{name} {value}" for name, value in report.subject.items())
    body = el(
        "main",
        el("header", el("h1", "shadowfuzz: coverage of KVM and of the model by the corpus"), el("p", subject)),
        _overview(report),
        _handlers(report.handlers),
        _decisions(report.decisions),
        _matrix(report),
        *([_files(report.files)] if report.files else []),
        *(_functions(report, part) for part in PARTS),
    )
    return document("shadowfuzz: coverage of KVM", body)


def _overview(report: ReachReport) -> Markup:
    rows: list[tuple[Content, ...]] = []
    for part in PARTS:
        s = _sums(report, part)
        rows.append((part, s["functions"], s["functions_of"], s["instructions"], s["instructions_of"]))
    heads = ("part", "functions reached", "of", "instructions reached", "of")
    sentence = f"{report.scenarios} scenarios, {report.edges} edges between blocks of KVM's code."
    lost = [el("p", f"machine lost at {name}: {why}", class_="crash") for name, why in report.lost.items()]
    return el("section", el("h2", "Overview"), el("p", sentence), *lost, table(heads, rows, "Reached, by part of KVM"))


def _never(why: Reason | None) -> Markup:
    if why is None:
        return put("")
    source = el("span", f" [{why.source}]", class_="dim") if why.source else put("")
    return put(el("span", "to do: ", class_="never") if why.todo else put(""), why.why, source)


def _handlers(rows: Sequence[HandlerReach]) -> Markup:
    cells = [
        (row.function, row.handler.classes, f"{row.scenarios or 'never'}{_forged(row)}", _never(row.why))
        for row in rows
    ]
    heads = ("handler", "exception classes", "scenarios", "why never by a guest's own exit")
    shown = table(heads, cells, "KVM's exit handlers", "stack")
    return el("section", el("h2", "Exit handlers"), shown)


def _decisions(rows: Sequence[DecisionReach]) -> Markup:
    cells = [(decision_text(row.decision), row.scenarios or "never", _never(row.why)) for row in rows]
    shown = table(("decision", "scenarios", "why never"), cells, "Decisions that the model can take", "stack")
    return el("section", el("h2", "Decisions of the model"), shown)


def _matrix(report: ReachReport) -> Markup:
    """Return the table of functions by decisions; functions that every scenario reaches are left out, with a note."""
    columns = report.taken
    some = {row.function.begin: row for row in report.functions if 0 < row.scenarios < report.scenarios}
    rows = list(_matrix_rows(report.matrix, some, columns))
    keys = [el("li", f"{n}: {decision_text(d)}") for n, d in enumerate(columns, 1)]
    caption = "Scenarios that reached a function and took a decision"
    heads = ("function", *(str(n) for n in range(1, len(columns) + 1)))
    everywhere = sum(row.scenarios == report.scenarios > 0 for row in report.functions)
    sentence = f"{everywhere} functions that every scenario reaches are left out. Columns are decisions, by number:"
    listed = details("The decisions", el("ul", *keys))
    return el(
        "section", el("h2", "Decisions by functions"), el("p", sentence), listed, table(heads, rows, caption, "reg")
    )


def _matrix_rows(
    matrix: Matrix, some: Mapping[int, FunctionReach], columns: Sequence[Decision]
) -> Iterator[tuple[Content, ...]]:
    for begin, row in some.items():
        counts = matrix.get(begin, {})
        yield (row.function.name, *(counts.get(decision, 0) or "" for decision in columns))


def _files(rows: Sequence[FileReach]) -> Markup:
    cells = [(row.file, len(row.reached), len(row.of), spans(row.reached)) for row in rows if row.reached]
    heads = ("file", "lines reached", "of", "which")
    return el("section", el("h2", "Source files"), table(heads, cells, "Lines that have code, by file", "facts"))


def spans(numbers: Iterable[int]) -> str:
    """Format numbers; consecutive ones as ``3-5``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def _functions(report: ReachReport, part: str) -> Markup:
    cells: Iterable[tuple[Content, ...]] = [
        (row.function.name, row.instructions, row.of, row.blocks, row.scenarios) for row in report.reached(part)
    ]
    heads = ("function", "instructions reached", "of", "blocks", "scenarios")
    never = ", ".join(row.function.name for row in report.of(part) if not row.blocks)
    return el(
        "section",
        el("h2", f"Functions of {part}"),
        table(heads, cells, f"Reached functions of {part}"),
        details("Functions that were never reached", el("p", never)),
    )
