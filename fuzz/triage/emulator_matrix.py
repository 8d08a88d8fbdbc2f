# SPDX-License-Identifier: Apache-2.0
"""Format a matrix over emulators as text: other QEMUs and CPU models whose results differ from the target's own."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from textwrap import TextWrapper

from fuzz.triage.matrix import CLEAN, DIVERGES, Cell
from harness.errors import InputError
from harness.vm.config import load_config

WIDTH = 116

INTRODUCTION: tuple[str, ...] = (
    "Every scenario of the corpus on several versions of QEMU and several of its CPU models. Differences between them",
    "come from the CPU or the emulator, not from KVM. A number counts the scenarios whose result differs from that",
    "on the target's own CPU model in the first version of QEMU; `.` is none. `max` has features that the project's",
    "tables do not describe: their effects are not checked there (harness/arch/cpu_models.py).",
    "",
    "`shadowfuzz fuzz --target kvm-nvhe --against 'kvm-nvhe%qemu-10.0'` compares two versions of QEMU directly. It",
    "showed the following differences. No cell shows them, because no known requirement depends on them (7.2, 10.0):",
    "",
    "- registers whose encoding is left to the implementation (`mrs x7, s3_1_c11_c0_2`): UNDEFINED in the guest;",
    "  trapped to KVM, by HCR_EL2.TIDCP",
    "- ID_DFR0_EL1 as KVM emulates it for a guest on a Cortex-A72: 0x10006; 0x6",
    "- the level in ESR_EL2 of some instruction aborts on a stage-1 walk: 1 (0x82000085); 3 (0x82000087)",
)


@dataclass(frozen=True, slots=True)
class ExplainedDifference:
    """Why scenarios have other results on some emulators (patterns of ``CONFIG%QEMU%CPU``), and the source."""

    scenarios: tuple[str, ...]
    targets: tuple[str, ...]
    why: str
    source: str

    def covers(self, target: str, scenario: str) -> bool:
        """Return whether this explains a cell."""
        return scenario in self.scenarios and any(fnmatchcase(target, pattern) for pattern in self.targets)


def read_explained_differences(path: Path) -> tuple[ExplainedDifference, ...]:
    """Return the rows of ``corpus/emulators.toml``.  InputError: it is invalid."""
    try:
        rows = tomllib.loads(path.read_text()).get("difference", [])
        return tuple(
            ExplainedDifference(tuple(r["scenarios"]), tuple(r["targets"]), r["why"], r["source"]) for r in rows
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(str(path), None, f"no list of differences between emulators: {error}") from error


class EmulatorTable:
    """The cells of scenarios on targets named ``CONFIG%QEMU%CPU``, formatted as text."""

    def __init__(
        self,
        cells: Mapping[tuple[str, str], Cell],
        targets: Iterable[str],
        scenarios: Sequence[str],
        explained: Sequence[ExplainedDifference],
    ) -> None:
        self._cells = cells
        self._scenarios = scenarios
        self._explained = explained
        self._groups = {base: list(group) for base, group in groupby(targets, key=lambda t: t.partition("%")[0])}

    def lines(self) -> Iterator[str]:
        """Yield a block for each target: a table of counts, then each difference with its explanation."""
        for base, targets in self._groups.items():
            own = self.own(base)
            found = [self._cells[own, name].verdict for name in self._scenarios if (own, name) in self._cells]
            yield f"{base}: {found.count(CLEAN)} scenarios clean, {found.count(DIVERGES)} diverge on {_where(own)}"
            cpus = list(dict.fromkeys(_cpu(target) for target in targets))
            yield f"  {'':9}  {'  '.join(cpus)}".rstrip()
            for qemu in dict.fromkeys(_qemu(target) for target in targets):
                row = (self._count(f"{base}%{qemu}%{cpu}").rjust(len(cpu)) for cpu in cpus)
                yield f"  {qemu:9}  {'  '.join(row)}".rstrip()
        yield ""
        for target in (target for targets in self._groups.values() for target in targets if self._why_not(target)):
            yield f"{target}: {self._why_not(target)}"
        for text, places in self._differences().items():
            lines = TextWrapper(WIDTH, subsequent_indent="    ", break_on_hyphens=False)
            yield from lines.wrap(text)
            yield from lines.wrap(f"    on {', '.join(places)}")

    def unexplained(self) -> list[tuple[str, str]]:
        """Return (target, scenario) of each cell that differs and that no row explains."""
        return [
            (target, name)
            for target, name, _ in self._differing()
            if not any(e.covers(target, name) for e in self._explained)
        ]

    def own(self, base: str) -> str:
        """Return the target with which the others of a group are compared."""
        targets, cpu = self._groups[base], load_config(base).cpu
        return next((target for target in targets if _cpu(target) == cpu), targets[0])

    def _count(self, target: str) -> str:
        if not any((target, name) in self._cells for name in self._scenarios):
            return "not run"
        if self._why_not(target):
            return "lost"
        return str(sum(place == target for place, _, _ in self._differing()) or ".")

    def _why_not(self, target: str) -> str:
        """Return why a target ran no scenario; empty if it ran one."""
        cells = [self._cells[target, name] for name in self._scenarios if (target, name) in self._cells]
        ran = any(cell.verdict in (CLEAN, DIVERGES) for cell in cells)
        return "" if ran or not cells else cells[0].why

    def _differing(self) -> Iterator[tuple[str, str, str]]:
        """Yield (target, scenario, result) of each cell that differs from that of the group's own target."""
        for base, targets in self._groups.items():
            own = self.own(base)
            for target in targets:
                if self._why_not(target):
                    continue
                for name in self._scenarios:
                    cell, known = self._cells.get((target, name)), self._cells.get((own, name))
                    if (
                        cell is None
                        or known is None
                        or (cell.verdict, cell.findings) == (known.verdict, known.findings)
                    ):
                        continue
                    yield target, name, f"{_outcome_text(cell)} instead of {_outcome_text(known)}"

    def _differences(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {}
        for target, name, what in self._differing():
            row = next((e for e in self._explained if e.covers(target, name)), None)
            why = "NO EXPLANATION" if row is None else f"{row.why} ({row.source})"
            found.setdefault(f"{name}: {what}: {why}", []).append(target)
        return found


def markdown(table: EmulatorTable, command: str) -> str:
    """Return the page docs/emulators.md."""
    lines = ["# Every emulator", "", f"Generated by `{command}`; do not edit.", "", *INTRODUCTION, ""]
    return "\n".join([*lines, "```text", *table.lines(), "```"]) + "\n"


def _outcome_text(cell: Cell) -> str:
    return ", ".join(cell.findings) or cell.why or cell.verdict


def _qemu(target: str) -> str:
    return next((word for word in target.split("%")[1:] if word.startswith("qemu-")), "")


def _cpu(target: str) -> str:
    words = [word for word in target.split("%")[1:] if not word.startswith("qemu-")]
    return words[0] if words else load_config(target.partition("%")[0]).cpu


def _where(target: str) -> str:
    return f"{_qemu(target)}, {_cpu(target)}".removeprefix(", ")
