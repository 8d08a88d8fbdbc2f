# SPDX-License-Identifier: Apache-2.0
"""Format a matrix as text: one character per cell, a legend, and the releases that show each finding."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from fuzz.triage.matrix import CANNOT, CLEAN, DIVERGES, LOST, Cell
from harness.findings.regressions import Regression
from harness.vm.debian.versions import linux_version, version_key

SYMBOLS: Mapping[str, str] = {CLEAN: ".", LOST: "!", CANNOT: "-"}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
PACKAGED = "as packaged"

INTRODUCTION: tuple[str, ...] = (
    "Every scenario of the corpus on Debian's arm64 cloud kernels, as the archive offers them",
    "(`shadowfuzz kernels list`). One character per kernel, in version order; `.`: nothing unexplained. Stable series",
    "are maintained in parallel, so that a later column need not be a later kernel.",
    "",
    "If the headers of a kernel are no longer in the archive, its recording module is built with those of a neighbour.",
    "The layout of KVM's structures is then read from the kernel's own BTF, and no relation is left out.",
)


def split(target: str) -> tuple[str, str]:
    """Return the configuration and the kernel version of a target's name; without a version it is its own package."""
    config, _, version = target.partition("@")
    return config, version


def order(targets: Iterable[str]) -> list[str]:
    """Return targets sorted by configuration, then by version, with build directories last."""
    return sorted(set(targets), key=lambda t: (split(t)[0], "/" in split(t)[1], version_key(split(t)[1])))


class Table:
    """The cells of scenarios on targets, formatted as text."""

    def __init__(self, cells: Mapping[tuple[str, str], Cell], targets: Iterable[str], scenarios: Sequence[str]) -> None:
        self.targets = order(targets)
        self.scenarios = list(scenarios)
        self._cells = cells
        sets = dict.fromkeys(
            cell.findings
            for scenario in self.scenarios
            for target in self.targets
            if (cell := cells.get((target, scenario))) is not None and cell.verdict == DIVERGES
        )
        self.legend = {names: LETTERS[i] if i < len(LETTERS) else "*" for i, names in enumerate(sets)}

    def cell(self, target: str, scenario: str) -> Cell | None:
        """Return a cell, None if it was not run."""
        return self._cells.get((target, scenario))

    def symbol(self, target: str, scenario: str) -> str:
        """Return the character of a cell; a space if it was not run."""
        cell = self._cells.get((target, scenario))
        if cell is None:
            return " "
        return self.legend[cell.findings] if cell.verdict == DIVERGES else SYMBOLS[cell.verdict]

    def configs(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each configuration with its targets."""
        for config, group in groupby(self.targets, key=lambda target: split(target)[0]):
            yield config, list(group)

    def lines(self) -> Iterator[str]:
        """Yield the table's lines: a block per configuration, with scenarios that are clean everywhere in one line."""
        for config, targets in self.configs():
            groups = [(name, list(group)) for name, group in groupby(targets, key=series)]
            rows = {scenario: self._row(scenario, groups) for scenario in self.scenarios}
            clean = [scenario for scenario, row in rows.items() if not row.strip(". ")]
            width = max((len(s) for s in rows if s not in clean), default=20)
            heads = [f"{name:<{len(group)}}" for name, group in groups]
            yield f"{config}: {len(targets)} kernels"
            yield "  " + "; ".join(f"{name}: {span(group)}" for name, group in groups)
            if len(rows) > len(clean):
                yield f"  {'':{width}}  {' '.join(heads)}".rstrip()
            for scenario, row in rows.items():
                if scenario not in clean:
                    yield f"  {scenario:{width}}  {row}".rstrip()
            if clean:
                yield f"  {len(clean)} more scenarios are clean on all of them"
        yield from self.legend_lines()

    def _row(self, scenario: str, series: Iterable[tuple[str, list[str]]]) -> str:
        parts = ("".join(self.symbol(t, scenario) for t in group).ljust(len(name)) for name, group in series)
        return " ".join(parts).rstrip()

    def legend_lines(self) -> Iterator[str]:
        """Yield the meaning of each character, and why targets cannot run."""
        if self.targets:
            yield ". clean   ! lost   - cannot run   (blank: not run)"
        for names, letter in self.legend.items():
            yield f"{letter} {', '.join(names)}"
        whys: dict[str, list[str]] = {}
        for target in self.targets:
            for scenario in self.scenarios:
                cell = self._cells.get((target, scenario))
                if cell is not None and cell.why:
                    where = target if cell.verdict == CANNOT else f"{target} {scenario}"
                    whys.setdefault(f"{SYMBOLS[cell.verdict]} {cell.why}", []).append(where)
        for why, places in whys.items():
            named = list(dict.fromkeys(places))
            yield f"{why} ({', '.join(named[:4])}{f' and {len(named) - 4} more' if len(named) > 4 else ''})"

    def history(self) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
        """Yield (configuration, finding, [(first, last kernel of a range that shows it)]).

        A kernel that could not run, or that ran none of the scenarios, neither ends nor begins a range.
        """
        names = sorted({name for found in self.legend for name in found})
        for config, _ in self.configs():
            for name in names:
                found = self.stretches(config, self.scenarios, {name})
                if found:
                    yield config, name, found

    def stretches(self, config: str, scenarios: Iterable[str], names: Collection[str]) -> list[tuple[str, str]]:
        """Return the ranges of kernels in which any of the scenarios shows any of the names."""
        targets = next((targets for name, targets in self.configs() if name == config), [])
        carriers = [s for s in scenarios if any(self._shows(t, s, names) for t in targets)]
        found: list[tuple[str, str]] = []
        going = False
        for target in targets:
            ran = [s for s in carriers if self.symbol(target, s) not in " -!"]
            if not ran:
                continue
            shows = any(self._shows(target, s, names) for s in ran)
            version = split(target)[1] or PACKAGED
            if shows and going:
                found[-1] = (found[-1][0], version)
            elif shows:
                found.append((version, version))
            going = shows
        return found

    def _shows(self, target: str, scenario: str, names: Collection[str]) -> bool:
        return not set(names).isdisjoint(self._found(target, scenario))

    def _found(self, target: str, scenario: str) -> tuple[str, ...]:
        cell = self._cells.get((target, scenario))
        return () if cell is None else cell.findings


def series(target: str) -> str:
    """Return the stable series of a target's kernel, such as 6.12."""
    version = split(target)[1]
    if "/" in version:
        return "tree"
    return ".".join(map(str, linux_version(version))) if version else "packaged"


def span(group: Sequence[str]) -> str:
    """Return the first and the last kernel of targets as text."""
    first, last = (split(target)[1] or PACKAGED for target in (group[0], group[-1]))
    return first if first == last else f"{first} to {last} ({len(group)})"


def spans(stretches: Sequence[tuple[str, str]]) -> str:
    """Return ranges of kernels as text."""
    return ", ".join(a if a == b else f"{a} to {b}" for a, b in stretches)


def finding_lines(table: Table, findings: Iterable[Regression]) -> Iterator[str]:
    """Yield Markdown rows: each finding, and the kernels of each configuration that show it."""
    for finding in findings:
        for config, targets in table.configs():
            found = spans(table.stretches(config, finding.scenarios, finding.divergences)) or "none"
            yield f"| `{finding.id}` | {config}, {len(targets)} kernels | {found} |"


def markdown(table: Table, command: str, findings: Sequence[Regression] = ()) -> str:
    """Return the page docs/kernels.md."""
    lines = ["# Every kernel release", "", f"Generated by `{command}`; do not edit.", "", *INTRODUCTION, ""]
    lines += ["```text", *table.lines(), "```", ""]
    if findings:
        lines += ["## Which kernels show each finding of corpus/regressions", ""]
        lines += ["Every change in the table between two kernels is one of these findings.", ""]
        lines += [f"- `{finding.id}`: {finding.summary} {finding.why}" for finding in findings]
        lines += ["", "| finding | configuration | kernels that show it |", "|---|---|---|"]
        lines += [*finding_lines(table, findings), ""]
    lines += ["## Kernels with each divergence", "", "| configuration | divergence | kernels that show it |"]
    lines.append("|---|---|---|")
    for config, name, stretches in table.history():
        lines.append(f"| {config} | `{name}` | {spans(stretches)} |")
    return "\n".join(lines) + "\n"
