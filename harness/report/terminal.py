# SPDX-License-Identifier: Apache-2.0
"""Reports as text for people: pure, from 80 columns up, with colour only when asked."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.check import Judged
from harness.compare import Action
from harness.registers import MASK64
from harness.report.result import Cluster, Lost, Ran, TargetResult, clusters
from harness.report.rounds import Row, Site
from harness.report.syndrome import Syndrome

MIN_WIDTH = 80
LABEL = 11
_CODES: Mapping[str, str] = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "dim": "2"}
ESCAPES: Mapping[int, str] = {i: f"\\x{i:02x}" for i in (*range(32), *range(127, 160))}
"""What untrusted text (a target's console, a file's name) may not do to a terminal."""


@dataclass(frozen=True, slots=True)
class Style:
    """How wide a line may be, in characters, and whether there is colour."""

    width: int = 100
    colour: bool = False

    def paint(self, name: str, text: str) -> str:
        """Return ``text`` in a colour of :data:`_CODES`."""
        return f"\x1b[{_CODES[name]}m{text}\x1b[0m" if self.colour and text else text


def printable(text: str) -> str:
    """Return ``text`` with control characters made visible."""
    return text.translate(ESCAPES)


def bit_ranges(bits: int) -> str:
    """Name the bits that are one: ``63:32, 7``."""
    ranges: list[str] = []
    high = 63
    while high >= 0:
        if bits >> high & 1:
            low = high
            while low and bits >> (low - 1) & 1:
                low -= 1
            ranges.append(str(high) if high == low else f"{high}:{low}")
            high = low
        high -= 1
    return ", ".join(ranges)


def shown(value: int | str) -> str:
    """Return a divergence's value as text."""
    return f"{value:#x}" if isinstance(value, int) else value


def status_line(ran: Ran, style: Style) -> str:
    """Return the line of one run: what was done, what was found, and whether it ended well."""
    label = ran.job.label if ran.job.repeat == 1 else f"{ran.job.label} #{ran.job.repeat}"
    not_compared = sum(ran.not_compared.values())
    numbers = (
        f"{len(ran.job.scenario.steps):4} steps {ran.exits:4} exits {ran.known:4} known "
        f"{ran.unexplained:3} unexplained {not_compared:3} unchecked"
    )
    space = style.width - len(numbers) - 2
    label = printable(label)
    label = label if len(label) <= space else "..." + label[3 - space :]
    line = f"{label:{min(space, 40)}}  {numbers}"
    line = style.paint("red", line) if ran.unexplained else line
    notes = [] if ran.checked.status == "ok" else [f"the agent gave up: {ran.checked.status}"]
    notes += [f"{ran.checked.dropped} records found no room"] if ran.checked.dropped else []
    return "\n".join([line, *(style.paint("yellow", f"    {note}") for note in notes)])


def site(where: Site, level: str, style: Style, *, known: bool = False) -> str:
    """Return a divergent place in full; ``known`` divergences only if asked for."""
    return "\n".join(_site(where, level, style, known))


def _wanted(judged: Iterable[Judged], known: bool) -> tuple[Judged, ...]:
    return tuple(j for j in judged if known or j.known is None)


def is_shown(where: Site, *, known: bool) -> bool:
    """Whether a site has anything to show."""
    return bool(_wanted(where.judged, known))


def _site(where: Site, level: str, style: Style, known: bool) -> Iterator[str]:
    place = where.place
    if place is None:
        title = "before the first entry"
    elif place.step is None:
        title = f"at {place.address:#x}, {place.instruction}"
    else:
        title = f"step {place.step}: {place.text}"
    kind = "one turn of the host" if where.action else "one run of the guest"
    yield style.paint("bold", f"  {title}") + style.paint("dim", f"   ({kind}, trace event {where.event})")
    if place is not None and place.step is not None:
        yield from _field("trap at", f"{place.address:#x}  {place.instruction}", style)
    yield from _field("exit", _exit(where.exit_class, where.syndrome), style)
    if where.action is not None:
        yield from _field("KVM", _outcome(where.action), style)
    if where.pending:
        yield from _field("pending", f"{', '.join(where.pending)} (KVM does it on the way in)", style)
    for sentence in where.host:
        yield from _field("host", sentence, style)
    if where.prediction is not None:
        yield from _field(f"model {level}", f"{where.prediction.helper}; {decisions(where.prediction.path)}", style)
    for judged in _wanted(where.sentences, known):
        found = judged.divergence
        text = f"{found.name}: expected {shown(found.expected)}, observed {shown(found.observed)}"
        yield from _field("divergence", style.paint(_colour(judged), text + _tag(judged)), style)
    rows = tuple(row for row in where.rows if _wanted(row.judged, known))
    if rows:
        yield from _table(where.columns, rows, style)
    yield from _reasons(where.judged if known else (), style)


_OUTCOMES: Mapping[str, str] = {
    "inject": "injected an exception",
    "resume": "resumed the guest",
    "kill": "killed the run",
    "none": "did nothing",
}


def _outcome(action: Action) -> str:
    outcome = action.outcome.removeprefix("user:")
    text = _OUTCOMES.get(outcome, f"went to userspace, {outcome}")
    return f"{text}, moved PC on" if action.skip else text


def decisions(path: tuple[tuple[str, bool], ...]) -> str:
    """Return the model's decisions, function by function; ``!`` marks no, a loop's are summed up."""
    functions: dict[str, dict[str, list[bool]]] = {}
    for name, taken in path:
        function, _, label = name.rpartition(".")
        functions.setdefault(function, {}).setdefault(label, []).append(taken)
    return "; ".join(
        f"{function}: {' '.join(_decided(label, taken) for label, taken in labels.items())}"
        for function, labels in functions.items()
    )


def _decided(label: str, taken: list[bool]) -> str:
    if len(taken) == 1:
        return label if taken[0] else f"!{label}"
    yes = ",".join(str(i) for i, each in enumerate(taken) if each)
    return f"{label}[{yes or 'none'} of 0..{len(taken) - 1}]"


def _colour(judged: Judged) -> str:
    return "red" if judged.known is None else "yellow"


def _tag(judged: Judged) -> str:
    return "" if judged.known is None else f" [{judged.known.id}]"


def _reasons(judged: Iterable[Judged], style: Style) -> Iterator[str]:
    entries = {j.known.id: j.known for j in judged if j.known is not None}
    for entry in entries.values():
        yield from _field("known", f"[{entry.id}] {entry.verdict}: {entry.why} ({entry.source})", style)


def _field(label: str, text: str, style: Style) -> Iterator[str]:
    indent = " " * (4 + LABEL + 1)
    first = f"    {label:{LABEL}} "
    yield from textwrap.wrap(text, style.width, initial_indent=first, subsequent_indent=indent) or [first]


def _exit(exit_class: str, syndrome: Syndrome | None) -> str:
    if syndrome is None:
        return exit_class
    words = f"{exit_class}  ESR_EL2 {syndrome.esr:#x}"
    if syndrome.fields:
        words += " " + " ".join(f"{name}={value:#x}" for name, value in syndrome.fields)
    if syndrome.note:
        words += f" ({syndrome.note})"
    if exit_class in ("DABT_LOW", "IABT_LOW"):
        words += f"; FAR_EL2 {syndrome.far:#x}, HPFAR_EL2 {syndrome.hpfar:#x} (page {syndrome.ipa:#x})"
    return words


def _digits(rows: Iterable[Row]) -> int:
    return 8 if all((v or 0) >> 32 == 0 for row in rows for v in row.values) else 16


def _hex(value: int | None, digits: int) -> str:
    return "-".rjust(digits + 2) if value is None else f"{value & MASK64:#0{digits + 2}x}"


def _marks(bits: int, digits: int) -> str:
    return "  " + "".join("^" if bits >> 4 * i & 0xF else " " for i in reversed(range(digits)))


def _painted(value: int | None, bits: int, digits: int, style: Style) -> str:
    text = _hex(value, digits)
    if value is None or not style.colour:
        return text
    marks = _marks(bits, digits)
    return "".join(style.paint("red", c) if mark == "^" else c for c, mark in zip(text, marks, strict=True))


def _relations(row: Row) -> str:
    return " ".join(j.divergence.name.removesuffix(f".{row.register}") + _tag(j) for j in row.judged)


def _table(columns: tuple[str, ...], rows: tuple[Row, ...], style: Style) -> Iterator[str]:
    digits = _digits(rows)
    name = max(len("register"), *(len(row.register) for row in rows))
    cell = digits + 2
    if 4 + name + len(columns) * (cell + 2) > style.width:
        yield from _stacked(columns, rows, style)
        return
    yield style.paint("dim", f"    {'register':{name}}" + "".join(f"  {c:>{cell}}" for c in columns) + "  relation")
    for row in rows:
        cells = [_hex(value, digits) for value in row.values[:-1]]
        cells.append(_painted(row.values[-1], row.bits, digits, style))
        yield f"    {row.register:{name}}" + "".join(f"  {c}" for c in cells) + f"  {_relations(row)}"
        if row.bits:
            before = 4 + name + (len(columns) - 1) * (cell + 2) + 2
            note = f"bits {bit_ranges(row.bits)}"
            note = note if len(note) + 8 <= before else f"{row.bits.bit_count()} bits"
            yield f"{note:>{before - 2}}  {_marks(row.bits, digits)}".rstrip()


def _stacked(columns: tuple[str, ...], rows: tuple[Row, ...], style: Style) -> Iterator[str]:
    """The same table for a narrow page: a line a value."""
    width = max(map(len, columns))
    for row in rows:
        yield f"    {row.register}  {style.paint('dim', _relations(row))}".rstrip()
        for column, value in zip(columns, row.values, strict=True):
            painted = _hex(value, 16) if column != columns[-1] else _painted(value, row.bits, 16, style)
            yield f"      {column:{width}}  {painted}"
        if row.bits:
            note = f"bits {bit_ranges(row.bits)}"
            note = note if len(note) <= style.width - width - 28 else f"{row.bits.bit_count()} bits"
            yield f"      {'':{width}}  {_marks(row.bits, 16)}  {note}"


def lost_line(target: str, lost: Lost, style: Style) -> str:
    """Return the report of a lost target: what it was doing, and the end of its console."""
    doing = "booting" if lost.job is None else f"running {printable(lost.job.label)}"
    lines = [style.paint("red", f"{target}: lost while {doing}: {printable(lost.reason)}")]
    lines += [f"    | {printable(line)}" for line in lost.console_tail.splitlines()]
    return "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def summary(results: tuple[TargetResult, ...], level: str, style: Style) -> str:
    """Return the end of a replay: a block a target, clusters of what is unexplained, and the verdict."""
    return "\n".join(_summary(results, level, style))


def _summary(results: tuple[TargetResult, ...], level: str, style: Style) -> Iterator[str]:
    for result in results:
        t = result.totals
        boots = f"{result.boots} boot" + ("s" if result.boots != 1 else "")
        yield style.paint("bold", f"{result.target}") + f"  Linux {result.kernel}, {boots}, {result.seconds:.1f} s"
        yield from _field("ran", f"{t['runs']} scenarios, {t['exits']} exits; {t['lost']} lost", style)
        yield from _field("exits", _counts(result.exits_by_class()) or "none", style)
        yield from _field("compared", _counts(result.relations()) or "nothing", style)
        yield from _field("divergent", f"{t['known']} known, {t['unexplained']} unexplained", style)
        for why, count in sorted(result.not_compared().items(), key=lambda item: (-item[1], item[0])):
            yield from _field("unchecked", f"{count}x {why}", style)
    found = clusters(results)
    if found:
        yield ""
        yield style.paint("bold", "Unexplained, by relation, register, exit class and the model's helper")
        yield from _clusters(tuple(r.target for r in results), found, style)
    yield ""
    unexplained, lost = (sum(r.totals[key] for r in results) for key in ("unexplained", "lost"))
    verdict = f"{unexplained} unexplained divergences in {len(found)} clusters" if found else "nothing unexplained"
    verdict += f", level {level}" + (f"; a target was lost {lost} times" if lost else "")
    yield style.paint("red" if unexplained or lost else "green", verdict)


def _clusters(targets: tuple[str, ...], found: tuple[Cluster, ...], style: Style) -> Iterator[str]:
    """A line a cluster: how many on each target, what, where first; more lines when that is too wide."""
    names = ["/".join((f"{c.signature[0]}.{c.signature[1]}", *filter(None, c.signature[2:]))) for c in found]
    columns = "  ".join(f"{target:>{max(6, len(target))}}" for target in targets)
    yield style.paint("dim", f"  {columns}  what")
    for cluster, name in zip(found, names, strict=True):
        numbers = "  ".join(f"{cluster.counts.get(target, 0):{max(6, len(target))}}" for target in targets)
        seen, of = cluster.reproduced
        flaky = "" if seen == of else f" (in {seen} of {of} runs)"
        line = f"  {numbers}  {name}{flaky}"
        first = f"first in {printable(cluster.first)}"
        if len(line) + 2 + len(first) <= style.width:
            yield f"{line}  {style.paint('dim', first)}"
        else:
            yield line
            yield f"  {'':{len(columns)}}  {style.paint('dim', first)}"
