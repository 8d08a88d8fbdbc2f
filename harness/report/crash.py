# SPDX-License-Identifier: Apache-2.0
"""Describe how a target was lost, in texts and tables for all report formats.  Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping

from harness.findings.finding import Tries
from harness.findings.verdict import rate_text
from harness.vm.crash import ENDS, Report, Reproduction

MIB = 1 << 20
LINE = 100
_GENERAL = re.compile(r"x\d+|sp|pc|cpsr|fpsr|fpcr")
_VECTOR = re.compile(r"v\d+")
GROUPS: tuple[str, ...] = ("general registers", "system registers", "vector registers")


def again_text(again: Reproduction | None) -> str:
    """Describe whether a loss is reproducible."""
    if again is None:
        return "not tested: the campaign ended first"
    alone = f"the last scenario alone, in fresh machines: {rate_text(Tries(*again.alone))}"
    if not again.sequence[1]:
        return alone
    many = "the scenario" if again.before == 1 else f"the {again.before} scenarios"
    return f"{alone}; after {many} that ran before it: {rate_text(Tries(*again.sequence))}"


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield the known facts, each with its name."""
    remains = report.remains
    yield "how", f"{ENDS.get(report.kind, report.kind)}{f' in {report.place}' if report.place else ''}"
    yield "message", report.words
    yield "host error", report.reason
    for name, place in remains.places.items():
        if name in remains.registers:
            yield name, f"{remains.registers[name]:#x} {place}"
    if remains.samples:
        total = sum(remains.samples.values())
        yield "PC in", ", ".join(f"{place} ({count} of {total} samples)" for place, count in remains.samples.items())
    if remains.dump is not None:
        size = f"{remains.dump.file_bytes / MIB:.1f} MiB for {remains.dump.ram_bytes // MIB} MiB of RAM"
        yield "memory", f"{remains.dump.path} ({size}, written in {remains.dump.seconds:.1f} s)"
    for missing in remains.missing:
        yield "missing", missing
    yield "reproduced", again_text(report.again)


def registers(report: Report) -> Mapping[str, tuple[tuple[str, str], ...]]:
    """Return names and values of all registers, by group; system registers are sorted.

    Vectors have 128 bits, the others 64 or 32.
    """
    found: dict[str, list[tuple[str, str]]] = {name: [] for name in GROUPS}
    for name, value in report.remains.registers.items():
        vector = _VECTOR.fullmatch(name) is not None
        group = GROUPS[0] if _GENERAL.fullmatch(name) else GROUPS[2 if vector else 1]
        found[group].append((name, f"{value:#0{34 if vector else 18}x}"))
    found[GROUPS[1]].sort()
    return {group: tuple(rows) for group, rows in found.items() if rows}


def register_lines(report: Report) -> Iterator[str]:
    """Yield all registers as lines of text; registers that are 0 only with their names."""
    for group, rows in registers(report).items():
        set_ = [f"{name} {value}" for name, value in rows if int(value, 16)]
        zero = [name for name, value in rows if not int(value, 16)]
        wide = max(map(len, set_), default=0)
        columns = max(1, LINE // (wide + 2))
        yield f"{group}:"
        for first in range(0, len(set_), columns):
            yield "  " + "  ".join(f"{cell:>{wide}}" for cell in set_[first : first + columns])
        if zero:
            yield from textwrap.wrap(f"0: {', '.join(zero)}", LINE, initial_indent="  ", subsequent_indent="     ")


def text(title: str, report: Report, console: str) -> str:
    """Return the facts, registers and console as one text."""
    said = [f"{name + ':':14}{words}" for name, words in facts(report)]
    return "\n".join([title, "", *said, "", *register_lines(report), "", "console:", "", console, ""])
