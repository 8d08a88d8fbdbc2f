# SPDX-License-Identifier: Apache-2.0
"""Render reports as text: pure, from 80 columns up, with optional colour."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from harness.arch.registers import MASK64
from harness.findings.checked import ExplainedDivergence, signature
from harness.findings.finding import cause_of, signature_text
from harness.relations.divergence import Divergence, is_new
from harness.relations.gic_list_registers import describe
from harness.report.esr import Syndrome
from harness.report.replay_result import Cluster, Lost, Ran, TargetResult, clusters, known_counts
from harness.report.sites import Row, Site
from harness.trace.rounds import KvmAction
from harness.vm.alarms import Alarm, once_each

MIN_WIDTH = 80
LABEL = 11
_CODES: Mapping[str, str] = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "dim": "2"}
_BIDI = (0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
ESCAPES: Mapping[int, str] = {
    **{i: f"\\x{i:02x}" for i in (*range(32), *range(127, 160))},
    **{i: f"\\u{i:04x}" for i in (*_BIDI, *range(0xD800, 0xE000))},
}
"""Characters that untrusted text (a target's console, a file's name) must not send to a terminal: control characters,
bidirectional formatting (Unicode Bidirectional Algorithm, UAX #9), lone surrogates."""


@dataclass(frozen=True, slots=True)
class Style:
    """The maximum width of a line in characters, and whether to use colour."""

    width: int = 100
    colour: bool = False

    def paint(self, name: str, text: str) -> str:
        """Return ``text`` in a colour of :data:`_CODES`."""
        return f"\x1b[{_CODES[name]}m{text}\x1b[0m" if self.colour and text else text


def printable(text: str) -> str:
    """Return ``text`` with control characters made visible."""
    return text.translate(ESCAPES)


def many(count: int, one: str, several: str = "", number: Callable[[int], str] = str) -> str:
    """Return a count with its noun: ``1 exit``, ``2 exits``; ``several`` is an irregular plural."""
    return f"{number(count)} {one if count == 1 else several or f'{one}s'}"


def times(count: int, number: Callable[[int], str] = str) -> str:
    """Format a frequency: ``once``, ``2 times``."""
    return "once" if count == 1 else f"{number(count)} times"


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


def both_shown(found: Divergence) -> str:
    """Return expected and observed value as text; a list register is decoded."""
    texts = [
        f"{shown(value)} ({describe(value)})"
        if value and isinstance(value, int) and found.register == "gic_list"
        else shown(value)
        for value in (found.expected, found.observed)
    ]
    return f"expected {texts[0]}, observed {texts[1]}"


_NUMBERS = ("steps", "exits", "known", "unexplained", "unchecked")
_NAME = 40


def header_line(style: Style) -> str:
    """Return the heads of the columns of :func:`status_line`."""
    return style.paint("dim", f"{'scenario':{_NAME}} {' '.join(_NUMBERS)}")


def status_line(ran: Ran, style: Style) -> str:
    """Return the line of one run: its counts, its divergences, and its status if it failed."""
    job = ran.job
    label = printable(job.label) + (f" #{job.repeat}" if job.repeat > 1 else "")
    label = label if len(label) <= _NAME else "..." + label[3 - _NAME :]
    values = (len(job.scenario.steps), ran.exits, ran.known, ran.unexplained, sum(ran.not_compared.values()))
    numbers = " ".join(f"{value:{len(head)}}" for value, head in zip(values, _NUMBERS, strict=True))
    line = f"{label:{_NAME}} {numbers}"
    line = style.paint("red", line) if ran.unexplained or ran.unmet or ran.alarms else line
    notes = [] if ran.checked.status == "ok" else [f"the agent ended the scenario early: {ran.checked.status}"]
    notes += [f"{ran.checked.dropped} records were dropped (area full)"] if ran.checked.dropped else []
    return "\n".join([line, *(style.paint("yellow", f"    {note}") for note in notes)])


def alarm_lines(alarms: Iterable[Alarm], style: Style) -> Iterator[str]:
    """Yield a kernel's alarms: each once, with its count and its full output."""
    for alarm, count in once_each(alarms).values():
        often = f" ({count} times)" if count > 1 else ""
        yield from _field("alarm", f"{alarm.sentence}{often}", style, "red")
        yield from (f"    | {printable(line)}" for line in alarm.splat.split("\n"))


def asserted_lines(ran: Ran, style: Style) -> Iterator[str]:
    """Yield KVM's assertions about forged exits, one line for each: they are expected, and not findings."""
    for one in ran.asserted:
        yield from _field("asserted", f"{one.name}: expected; {one.alarm.words}", style)


def left_out_lines(ran: Ran, style: Style) -> Iterator[str]:
    """Yield each comparison that was not made: place, relation, reason, and what it needs."""
    for one in ran.left_out:
        yield from _field("left out", f"{one.place}: {one.what}: {one.why}; needs: {one.needs}", style)


def expected_lines(ran: Ran, style: Style) -> Iterator[str]:
    """Yield each expected value that was not observed, and each that was not compared."""
    for one in ran.expected:
        name, value = one.expect.name, f"{one.expect.value:#x}"
        if one.failed:
            where = f"after step {one.expect.before - 1}" if one.expect.before else "at first"
            text = f"{name} {value} {where}, observed {one.observed:#x} (event {one.event})"
            yield from _field("expected", text, style, "red")
        elif one.observed is None:
            yield from _field("expected", f"{name} {value}, not compared: {one.why}", style, "yellow")


def failed_lines(ran: Ran, style: Style) -> Iterator[str]:
    """Yield each failed host step."""
    for one in ran.failed:
        yield from _field("failed", f"step {one.step}: {printable(one.text)}: {one.error}", style, "yellow")


def sites(ran: Ran, level: str, style: Style, *, known: bool = False) -> Iterator[str]:
    """Yield a run's divergent sites: in full, or in one line if the same difference was already shown.

    ``known``: include those that the catalogue explains.
    """
    again: dict[tuple[object, ...], list[Site]] = {}
    for where in ran.sites:
        if _wanted(where.judged, known):
            again.setdefault(_shape(where, known), []).append(where)
    for first, *others in again.values():
        yield from _site(first, level, style, known)
        if others:
            yield from _field("again at", ", ".join(f"{o.where} (event {o.event})" for o in others), style)


def _wanted(judged: Iterable[ExplainedDivergence], known: bool) -> tuple[ExplainedDivergence, ...]:
    return tuple(j for j in judged if known or j.known is None)


def _shape(where: Site, known: bool) -> tuple[object, ...]:
    """Return the key of sites with the same difference: relations, registers, bits, explanations."""
    said = {(signature(j.divergence), j.known.id if j.known else "") for j in _wanted(where.judged, known)}
    bits = {(row.register, row.bits) for row in where.rows if _wanted(row.judged, known)}
    return where.exit_class, frozenset(said), frozenset(bits)


def _site(where: Site, level: str, style: Style, known: bool) -> Iterator[str]:
    place = where.place
    if place is None:
        title = "before the first entry"
    elif place.step is None:
        title = f"{place.address:#x}: {place.instruction}"
    else:
        title = f"step {place.step}: {place.text}"
    kind = "round" if where.action else "guest run"
    yield style.paint("bold", f"  {title}") + style.paint("dim", f"   ({kind}, event {where.event})")
    if place is not None:
        if place.step is not None:
            yield from _field("trap at", f"{place.address:#x}  {place.instruction}", style)
        elif place.text:
            yield from _field("agent", place.text, style)
    if place is not None:
        yield from _field("exit", exit_text(where.exit_class, where.syndrome), style)
    if where.action is not None:
        yield from _field("KVM", outcome_text(where.action), style)
    if where.pending:
        yield from _field("pending", f"{', '.join(where.pending)} (KVM applies it at the entry)", style)
    for is_set, sentences in groupby(where.host, key=lambda sentence: sentence.startswith("set ")):
        for text in ["; ".join(sentences)] if is_set else sentences:
            yield from _field("host", text, style)
    if where.prediction is not None:
        yield from _field(f"model {level}", f"{where.prediction.helper}; {decisions(where.prediction.path)}", style)
    for judged in _wanted(where.sentences, known):
        found = judged.divergence
        text = f"{found.name}: {both_shown(found)}" + (f" ({found.basis})" if found.basis else "")
        yield from _field("divergence", text + _tag(judged), style, "yellow" if judged.known else "red")
    rows = tuple(row for row in where.rows if _wanted(row.judged, known))
    if rows:
        yield from _table(where.columns, rows, style, known)
    yield from _reasons(where.judged if known else (), style)


_OUTCOMES: Mapping[str, str] = {
    "inject": "injected an exception",
    "asked": "injected the exception that userspace requested",
    "resume": "resumed the guest",
    "kill": "killed the run",
    "none": "did nothing",
}


def outcome_text(action: KvmAction) -> str:
    """Describe KVM's handling of an exit."""
    outcome = action.outcome.removeprefix("user:")
    text = _OUTCOMES.get(outcome, f"returned to userspace, {outcome}")
    return f"{text}, advanced PC" if action.skip else text


def decisions(path: tuple[tuple[str, bool], ...]) -> str:
    """Return the model's decisions, function by function; ``!`` marks false; those of a loop are summarised."""
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


def _tag(judged: ExplainedDivergence) -> str:
    return "" if judged.known is None else f" [{judged.known.id}]"


def _reasons(judged: Iterable[ExplainedDivergence], style: Style) -> Iterator[str]:
    entries = {j.known.id: j.known for j in judged if j.known is not None}
    for entry in entries.values():
        yield from _field("known", f"[{entry.id}] {entry.verdict}: {entry.why} ({entry.source})", style)


def _field(label: str, text: str, style: Style, colour: str = "") -> Iterator[str]:
    indent = 4 + LABEL + 1
    lines = textwrap.wrap(printable(text), style.width - indent) or [""]
    for number, line in enumerate(lines):
        yield f"    {'' if number else label:{LABEL}} {style.paint(colour, line) if colour else line}"


def exit_text(exit_class: str, syndrome: Syndrome | None) -> str:
    """Describe the reason of an exit."""
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


def _relations(row: Row, known: bool) -> str:
    wanted = _wanted(row.judged, known)
    return ", ".join(j.divergence.name.removesuffix(f".{row.register}") + _tag(j) for j in wanted)


def _note(row: Row, space: int, known: bool) -> str:
    """Return the relations of a row and the differing bits, as exactly as the space permits."""
    said = _relations(row, known)
    ranges, count = f"{said}: bits {bit_ranges(row.bits)}", f"{said}: {row.bits.bit_count()} bits"
    return next((text for text in (ranges, count) if len(text) <= space), said) if row.bits else said


def _table(columns: tuple[str, ...], rows: tuple[Row, ...], style: Style, known: bool) -> Iterator[str]:
    """Yield two lines for each row: values, then relations and marks; one line for each value on a narrow page."""
    # Before the first entry there is no "before".
    there = [i for i in range(len(columns)) if any(row.values[i] is not None for row in rows)]
    digits = _digits(rows)
    cell = digits + 2
    name = max(len("register"), *(len(row.register) for row in rows))
    marks_at = 4 + name + (len(there) - 1) * (cell + 2)
    if marks_at + cell + 2 > style.width:
        yield from _stacked(columns, rows, style, known)
        return
    yield style.paint("dim", f"    {'register':{name}}" + "".join(f"  {columns[i]:>{cell}}" for i in there))
    for row in rows:
        cells = [_hex(row.values[i], digits) for i in there[:-1]]
        cells.append(_painted(row.values[-1], row.bits, digits, style))
        yield f"    {row.register:{name}}" + "".join(f"  {c}" for c in cells)
        note = _note(row, marks_at - 6, known)
        if len(note) > marks_at - 6:
            yield f"      {style.paint('dim', note)}"
            note = ""
        if note or row.bits:
            yield f"      {style.paint('dim', note.ljust(marks_at - 6))}  {_marks(row.bits, digits)}".rstrip()


def _stacked(columns: tuple[str, ...], rows: tuple[Row, ...], style: Style, known: bool) -> Iterator[str]:
    width = max(map(len, columns))
    for row in rows:
        yield f"    {row.register}  {style.paint('dim', _note(row, style.width - 6 - len(row.register), known))}"
        for column, value in zip(columns, row.values, strict=True):
            painted = _hex(value, 16) if column != columns[-1] else _painted(value, row.bits, 16, style)
            yield f"      {column:{width}}  {painted}"
        if row.bits:
            yield f"      {'':{width}}  {_marks(row.bits, 16)}".rstrip()


def lost_line(target: str, lost: Lost, style: Style) -> str:
    """Return the report of a lost target: its job, and the end of its console."""
    doing = "booting" if lost.job is None else f"running {printable(lost.job.label)}"
    lines = [style.paint("red", f"{target}: lost while {doing}: {printable(lost.reason)}")]
    lines += [f"    | {printable(line)}" for line in lost.console_tail.splitlines()]
    return "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def summary(results: tuple[TargetResult, ...], level: str, style: Style, *, known: bool = False) -> str:
    """Return the summary of a replay: a block for each target, unexplained clusters, and the verdict.

    With ``known``, or with several targets, also the number of uses of each entry of the catalogue on each target.
    """
    return "\n".join(_summary(results, level, style, known or len(results) > 1))


def _summary(results: tuple[TargetResult, ...], level: str, style: Style, known: bool) -> Iterator[str]:
    targets = tuple(result.target for result in results)
    for result in results:
        t = result.totals
        spent = f"{many(result.boots, 'boot')}, {result.seconds:.1f} s"
        yield style.paint("bold", f"{result.target}") + f"  Linux {result.kernel}, {spent}"
        lost_here = f"; lost {many(t['lost'], 'time')}" if t["lost"] else ""
        yield from _field("ran", f"{many(t['runs'], 'scenario')}, {many(t['exits'], 'exit')}{lost_here}", style)
        yield from _field("exits", _counts(result.exits_by_class()) or "none", style)
        yield from _field("compared", _counts(result.relations()) or "nothing", style)
        yield from _field("complete", f"{result.complete_share:.1%} of the comparisons without gaps", style)
        if t["failed"]:
            yield from _field("failed", many(t["failed"], "host step"), style)
        yield from _field("divergent", f"{t['known']} known, {t['unexplained']} unexplained", style)
        if causes := result.causes():
            yield from _field("causes", _counts(causes), style)
        for alarm in result.boot_alarms:
            yield from _field("at boot", alarm.sentence, style, "red")
        if t["asserted"]:
            yield from _field("asserted", f"{many(t['asserted'], 'time')} by KVM about forged exits", style)
        for why, count in sorted(result.stood_in().items(), key=lambda item: (-item[1], item[0])):
            yield from _field("stood in", f"{count}x {why}", style)
        for why, count in sorted(result.not_compared().items(), key=lambda item: (-item[1], item[0])):
            yield from _field("unchecked", f"{count}x {why}", style)
    entries = known_counts(results) if known else {}
    if entries:
        yield ""
        yield style.paint("bold", "Known, by entry of the catalogue")
        yield from _counted(targets, [(n, f"{verdict}: {id_}", "") for (id_, verdict), n in entries.items()], style)
    found = clusters(results)
    if found:
        yield ""
        yield style.paint("bold", "Unexplained, by relation, register, exit class and the model's helper")
        yield from _counted(targets, [(c.counts, _cluster(c), f"first in {printable(c.first)}") for c in found], style)
    yield ""
    unexplained, lost = (sum(r.totals[key] for r in results) for key in ("unexplained", "lost"))
    verdict = "nothing unexplained" + (" in what ran" if lost else "")
    if found:
        verdict = f"{many(unexplained, 'unexplained divergence')} in {many(len(found), 'cluster')}"
        known_by = [cause_of(cluster.signature) for cluster in found]
        verdict += ", none of them new" if all(known_by) and not any(map(is_new, known_by)) else ""
    alarms = sum(r.totals["alarms"] for r in results)
    unmet = sum(r.totals["unmet"] for r in results)
    if unmet:
        verdict = f"{many(unmet, 'expected value')} not observed; {verdict}"
    verdict += f"; {many(alarms, 'kernel alarm')}" if alarms else ""
    verdict += f", level {level}" + (f"; a target was lost {many(lost, 'time')}" if lost else "")
    yield style.paint("red" if unexplained or unmet or lost or alarms else "green", verdict)


def _cluster(cluster: Cluster) -> str:
    seen, of = cluster.reproduced
    flaky = "" if seen == of else f" (in {seen} of {of} runs)"
    return signature_text(cluster.signature) + flaky


_Counted = tuple[Mapping[str, int], str, str]


def _counted(targets: tuple[str, ...], lines: Iterable[_Counted], style: Style) -> Iterator[str]:
    """Yield one line for each item: its count on each target, its text, a remark (below if it does not fit)."""
    heads = "  ".join(f"{target:>6}" for target in targets)
    yield style.paint("dim", f"  {heads}")
    for counts, what, remark in lines:
        numbers = "  ".join(f"{counts.get(target, 0):{max(6, len(target))}}" for target in targets)
        line = f"  {numbers}  {what}"
        if not remark or len(line) + 2 + len(remark) <= style.width:
            yield f"{line}  {style.paint('dim', remark)}".rstrip()
        else:
            yield line
            yield f"  {'':{len(heads)}}  {style.paint('dim', remark)}"
