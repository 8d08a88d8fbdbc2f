# SPDX-License-Identifier: Apache-2.0
"""Format a matrix as one self-contained HTML file: a table per configuration, the legend, and the history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from fuzz.triage.matrix import CANNOT, LOST, VERDICTS
from fuzz.triage.matrix_text import SYMBOLS, Table, series, span, spans
from harness.findings.regressions import Regression
from harness.report.html_markup import Content, Markup, details, document, el, join, put, table
from harness.report.html_style import CSS

CELLS_CSS = """
.cells table{width:auto;min-width:0;border-collapse:separate;border-spacing:0}
.cells th,.cells td{padding:.1rem .2rem;white-space:nowrap}
.cells tbody th{position:sticky;left:0;background:var(--bg);font-weight:400;color:var(--fg)}
.cells td{font:13px/1.3 ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;text-align:center;min-width:1.1em}
.cells .first{border-left:1px solid var(--line);padding-left:.35rem}
.cells .diverges{background:var(--hit);font-weight:700}.cells .lost,.cells .cannot{color:var(--warn)}
@media print{.cells table{font-size:6px}.cells td,.cells th{padding:0}}
@media (max-width:44rem){.cells tbody th{max-width:9rem;overflow:hidden;text-overflow:ellipsis}}
"""
_CLEAN_ROW = frozenset(". ")
_NAV = (("matrix", "Matrix"), ("signs", "Signs"), ("findings", "Findings"), ("history", "History"))
_WORDS = dict(zip(VERDICTS, ("nothing unexplained", "", "the machine was lost", "cannot run here"), strict=True))


def page(matrix: Table, command: str, findings: Sequence[Regression], more: Sequence[str] = ()) -> str:
    """Return the page; ``more`` are lines of text on targets that are not in the tables."""
    nav = el("nav", *(el("a", title, href=f"#{name}") for name, title in _NAV), aria_label="Parts of the page")
    made_by = put(
        "made by ", el("code", command), "; one sign per kernel, in version order; hover over it for the name"
    )
    header = el("header", el("h1", "Which kernel shows what"), el("p", made_by, class_="dim"))
    others = details("Other machines", el("pre", "\n".join(more), tabindex="0")) if more else Markup("")
    tables = join(_config(matrix, config, targets) for config, targets in matrix.configs())
    body = el(
        "main",
        header,
        el("section", el("h2", "Matrix"), tables, others, id="matrix"),
        _signs(matrix),
        _findings(matrix, findings),
        _history(matrix),
    )
    return document("shadowfuzz: every kernel release", nav, body, css=CSS + CELLS_CSS)


def _config(matrix: Table, config: str, targets: Sequence[str]) -> Markup:
    groups = [(name, list(group)) for name, group in groupby(targets, key=series)]
    clean = [s for s in matrix.scenarios if {matrix.symbol(t, s) for t in targets} <= _CLEAN_ROW]
    heads = (el("th", name, scope="colgroup", colspan=str(len(group)), class_="first") for name, group in groups)
    rows = (
        el("tr", el("th", scenario, scope="row"), *_cells(matrix, scenario, groups))
        for scenario in matrix.scenarios
        if scenario not in clean
    )
    caption = f"{config}: {len(targets)} kernels"
    head = el("thead", el("tr", el("th", "scenario", scope="col"), *heads))
    inner = el("table", el("caption", caption), head, el("tbody", join(rows)))
    where = "; ".join(f"{name}: {span(group)}" for name, group in groups)
    return put(
        el("h3", config),
        el("p", where, class_="dim"),
        el("div", inner, class_="wide cells", tabindex="0", role="region", aria_label=caption),
        details(f"{len(clean)} more scenarios are clean on all of them", el("p", ", ".join(clean))) if clean else "",
    )


def _cells(matrix: Table, scenario: str, groups: Sequence[tuple[str, list[str]]]) -> Iterator[Markup]:
    for _, group in groups:
        for target in group:
            cell = matrix.cell(target, scenario)
            classes = " ".join(filter(None, ("first" if target == group[0] else "", cell.verdict if cell else "")))
            said = "not run" if cell is None else cell.why or ", ".join(cell.findings) or _WORDS[cell.verdict]
            yield el("td", matrix.symbol(target, scenario), class_=classes, title=f"{target}: {said}")


def _signs(matrix: Table) -> Markup:
    rows: list[tuple[Content, ...]] = [(sign, _WORDS[verdict]) for verdict, sign in SYMBOLS.items()]
    rows += [(sign, ", ".join(names)) for names, sign in matrix.legend.items()]
    whys = dict.fromkeys(
        (SYMBOLS[cell.verdict], cell.why)
        for target in matrix.targets
        for scenario in matrix.scenarios
        if (cell := matrix.cell(target, scenario)) is not None and cell.verdict in (LOST, CANNOT)
    )
    shown = table(("sign", "means"), [*rows, *whys], "What a sign stands for")
    return el("section", el("h2", "Signs"), shown, id="signs")


def _findings(matrix: Table, findings: Sequence[Regression]) -> Markup:
    rows = (
        (
            el("code", finding.id),
            put(f"{finding.summary} {finding.why}"),
            config,
            spans(matrix.stretches(config, finding.scenarios, finding.divergences)) or "none",
        )
        for finding in findings
        for config, _ in matrix.configs()
    )
    heads = ("finding", "what it is", "configuration", "kernels that show it")
    caption = "Findings of corpus/regressions, and which kernels show them"
    return el("section", el("h2", "Findings"), table(heads, rows, caption, "stack"), id="findings")


def _history(matrix: Table) -> Markup:
    rows = ((config, el("code", name), spans(found)) for config, name, found in matrix.history())
    heads = ("configuration", "divergence", "kernels that show it")
    return el("section", el("h2", "History"), table(heads, rows, "Kernels with each divergence", "stack"), id="history")
