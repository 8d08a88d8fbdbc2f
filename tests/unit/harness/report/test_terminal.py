# SPDX-License-Identifier: Apache-2.0
"""Reports against golden files, from a recorded trace.

``UPDATE_GOLDEN=1 pytest tests/unit/harness/report/test_terminal.py`` writes them anew; read the diff before a commit.
The trace is ``shadowfuzz replay tests/golden/mixture.scn --json --trace``, its ``trace`` put through ``format_trace``.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import protocol
from harness.arch.cpu_models import cpu_model
from harness.arch.registers import INDEX, NAMES
from harness.errors import InputError
from harness.findings.check import check
from harness.findings.known_divergences import Catalogue
from harness.report import terminal
from harness.report.esr import ISS_FIELDS, decode, fault_name
from harness.report.replay_json import document
from harness.report.replay_result import Job, Lost, Ran, TargetResult, clusters, exit_status
from harness.report.sites import host_sentence, sites, user_sentence
from harness.report.terminal import Style
from harness.report.trace_text import trace_lines
from harness.scenario.scenario import load
from harness.trace.events import ENTRY, EXIT, HOST, USER, Host, Switch, Trace
from harness.trace.tracefile import format_trace, load_trace, parse_trace, trace_from_json, trace_to_json
from tests.support.paths import GOLDEN

LEVEL = "spec"


@cache
def recorded() -> Trace:
    return load_trace(GOLDEN / "mixture.trace.json")


def run(trace: Trace, name: str = "mixture.scn", repeat: int = 1) -> Ran:
    scenario = load(GOLDEN / "mixture.scn")
    checked = check(scenario, trace, LEVEL, cpu_model("cortex-a72"), Catalogue.load(GOLDEN / "known", LEVEL))
    job = Job(f"some/where/{name}", name, scenario, repeat)
    return Ran(job, trace, checked, sites(scenario, trace, LEVEL, checked.judged))


def tampered() -> Trace:
    """The recorded trace with a register that the world switch lost, a lost record and an agent that gave up."""
    trace = recorded()
    at = max(i for i, e in enumerate(trace.events) if e.kind == EXIT and i < 20)
    event = trace.events[at]
    assert isinstance(event, Switch)
    values = list(event.values)
    values[INDEX["x19"]] ^= 0xFF00_0000_0000_0001
    changed = event._replace(values=tuple(values))
    events = (*trace.events[:at], changed, *trace.events[at + 1 :])
    return replace(trace, events=events, dropped=2, status="stuck")


def results() -> tuple[TargetResult, ...]:
    """Two targets, one of which was lost twice."""
    good = TargetResult("kvm-nvhe", "6.1.0-x", 1, 1.25, (run(recorded()), run(recorded(), repeat=2)), ())
    job = run(recorded()).job
    lost = (
        Lost(job, "QEMU ended with status 1", "[    1.0] Kernel panic\n\x1b[2J---[ end"),
        Lost(None, "the agent was not ready within 60 s", ""),
    )
    bad = TargetResult("kvm-vhe", "6.1.0-x", 3, 61.5, (run(tampered()), run(recorded(), repeat=2)), lost)
    return good, bad


def text_report(style: Style, known: bool) -> str:
    lines: list[str] = []
    for ran in (run(recorded()), run(tampered(), "tampered.scn", 2)):
        lines += [terminal.header_line(style), terminal.status_line(ran, style)]
        lines += terminal.sites(ran, LEVEL, style, known=known)
    lines += [terminal.lost_line("kvm-vhe", lost, style) for lost in results()[1].lost]
    lines += ["", terminal.summary(results(), LEVEL, style, known=known), ""]
    return "\n".join(lines)


def compare_with(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text)
    assert text == path.read_text(), f"{name} differs; UPDATE_GOLDEN=1 writes it anew"


@pytest.mark.parametrize(
    ("name", "width", "known"),
    [("report.100.txt", 100, False), ("report.80.txt", 80, False), ("report.known.txt", 100, True)],
)
def test_the_text_report(name: str, width: int, known: bool) -> None:
    text = text_report(Style(width), known)
    compare_with(name, text)
    too_long = [line for line in text.splitlines() if len(line) > width]
    assert not too_long
    assert "\x1b" not in text


def test_the_trace_view() -> None:
    compare_with("report.trace.txt", "\n".join([*trace_lines(recorded()), ""]))


def test_the_json_report() -> None:
    ran = run(tampered())
    ran = replace(ran, sites=ran.sites[2:4])  # one of each kind is enough to read
    data = document((TargetResult("kvm-nvhe", "6.1.0-x", 1, 1.25, (ran,), results()[1].lost),), LEVEL)
    compare_with("report.json", json.dumps(data, indent=1) + "\n")


def test_json_is_plain_data_and_every_64_bit_value_a_string() -> None:
    data = json.loads(json.dumps(document(results(), LEVEL, traces=True)))

    def numbers(value: Any) -> list[int]:
        if isinstance(value, dict):
            return [n for item in value.values() for n in numbers(item)]
        if isinstance(value, list):
            return [n for item in value for n in numbers(item)]
        return [value] if isinstance(value, int) else []

    assert max(numbers(data)) < 1 << 53
    assert data["exit_status"] == 3
    trace = data["targets"][0]["runs"][0]["trace"]
    assert trace_from_json(trace) == recorded()


def test_json_has_everything_that_the_text_has() -> None:
    text, data = text_report(Style(100), True), json.dumps(document(results(), LEVEL))
    for value in set(re.findall(r"\b0x[0-9a-f]{3,}\b", text)):  # smaller ones are fields: numbers in JSON
        assert f"{int(value, 16):#x}" in data, value


def test_colour_marks_the_differing_digits_and_nothing_else_changes() -> None:
    plain, coloured = text_report(Style(100), True), text_report(Style(100, True), True)
    assert "\x1b[31m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain.replace("\x1b", "")


def test_what_a_switch_lost_is_shown_from_entry_to_exit() -> None:
    site = next(s for s in run(tampered()).sites if s.action is None)
    (row,) = site.rows
    assert site.columns == ("entry", "expected", "observed")
    assert row.register == "x19"
    assert row.bits == 0xFF00_0000_0000_0001
    assert row.values[0] == row.values[1]


def test_exit_status_and_clusters() -> None:
    good, bad = results()
    assert exit_status([good]) == 1
    assert exit_status([good, bad]) == 3
    assert exit_status([]) == 0
    found = {c.signature: c for c in clusters([good, bad])}
    switch = next(c for key, c in found.items() if key[0] == "switch")
    assert dict(switch.counts) == {"kvm-vhe": 1}
    assert switch.reproduced == (1, 2)
    stable = next(c for key, c in found.items() if key[:2] == ("restore", "esr_el1"))
    assert stable.reproduced == (4, 4)


@pytest.mark.parametrize(
    ("bits", "text"),
    [(0, ""), (1, "0"), (1 << 63, "63"), ((1 << 64) - 1, "63:0"), (0xF000_0000_0000_0101, "63:60, 8, 0")],
)
def test_bit_ranges(bits: int, text: str) -> None:
    assert terminal.bit_ranges(bits) == text


@given(st.integers(0, (1 << 64) - 1))
def test_bit_ranges_name_exactly_the_bits(bits: int) -> None:
    back = 0
    for part in filter(None, terminal.bit_ranges(bits).split(", ")):
        high, _, low = part.partition(":")
        for bit in range(int(low or high), int(high) + 1):
            back |= 1 << bit
    assert back == bits


def test_decisions_of_a_loop_are_summed_up() -> None:
    path = (("f.a", True), ("f.b", False), ("g.dirty", False), ("g.dirty", True), ("g.dirty", True))
    assert terminal.decisions(path) == "f: a !b; g: dirty[1,2 of 0..2]"


def test_sentences_of_the_host() -> None:
    op_set = protocol.OPS["set"][0]
    x3 = 0x6030_0000_0010_0006
    assert host_sentence(Host(HOST, 0, op_set, x3, 0x80, 0, True)) == "set x3 = 0x80"
    assert host_sentence(Host(HOST, 0, op_set, 0x99, 1, 22, True)) == "set register 0x99 = 0x1 (failed: EINVAL)"
    assert host_sentence(Host(HOST, 0, 99, 0, 0, 0, False)) == "operation 99 (by the agent)"
    blank = Switch(USER, 0, 6, 0, 0, 0, 0, 0, 0, 0x1000, 0x104, 0xFEED, 0, (0,) * len(NAMES))
    assert user_sentence(blank) == "KVM_RUN returned MMIO: write of 0xfeed, 4 bytes at 0x1000"
    assert user_sentence(blank._replace(code=77)) == "KVM_RUN returned exit reason 77"


def test_syndromes_in_words() -> None:
    blank = Switch(EXIT, 0, 2, 0, 0x93C3_8007, 0x9000, 0x90, 0, 0, 0, 0, 0, 0, (0,) * len(NAMES))
    syndrome = decode(blank)
    assert syndrome is not None
    assert dict(syndrome.fields)["SRT"] == 3
    assert syndrome.note == "read, translation fault, level 3"
    assert syndrome.ipa == 0x9000
    without = decode(blank._replace(esr=0x9200_0047))
    assert without is not None
    assert "SRT" not in dict(without.fields)
    assert without.note == "write, translation fault, level 3"
    assert decode(blank._replace(code=0)) is None
    assert fault_name(0x10) == "synchronous external abort"
    assert fault_name(0x3F) == "fault status 0x3f"
    assert all(field.low + field.width <= 25 for fields in ISS_FIELDS.values() for field in fields)


# Traces as text.

WORDS = st.integers(0, (1 << 64) - 1)
STEPS = st.integers(0, (1 << 32) - 1)
SWITCHES = st.builds(
    Switch,
    st.sampled_from([ENTRY, EXIT, USER]),
    STEPS,
    *([WORDS] * 11),
    st.lists(WORDS | st.just(0), min_size=len(NAMES), max_size=len(NAMES)).map(tuple),
)
HOSTS = st.builds(Host, st.just(HOST), STEPS, WORDS, WORDS, WORDS, WORDS, st.booleans(), st.integers(0, 3))
TRACES = st.builds(
    Trace,
    st.lists(SWITCHES | HOSTS, max_size=6).map(tuple),
    st.sampled_from(sorted(protocol.STATUS)),
    WORDS,
    st.booleans(),
)


@given(TRACES)
def test_a_trace_survives_its_text(trace: Trace) -> None:
    text = format_trace(trace)
    assert parse_trace(text) == trace
    assert parse_trace(text.encode()) == trace
    assert format_trace(parse_trace(text)) == text


def test_the_recorded_trace_is_in_its_canonical_form() -> None:
    path = GOLDEN / "mixture.trace.json"
    assert format_trace(load_trace(path)) == path.read_text()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def broken_documents(draw: st.DrawFn) -> Any:
    """The recorded trace's data with one value, at any depth, replaced, renamed or dropped."""
    data: Any = trace_to_json(replace(recorded(), events=recorded().events[:6]))
    node: Any = data
    while True:
        key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        below = node[key]
        if isinstance(below, dict | list) and below and draw(st.booleans()):
            node = below
            continue
        how = draw(st.integers(0, 2))
        if how == 0:
            node[key] = draw(JSON)
        elif how == 1:
            del node[key]
        elif isinstance(node, dict):
            node[draw(st.text(max_size=5))] = below
        return data


@given(broken_documents())
def test_a_broken_trace_is_an_input_error_or_a_trace(data: Any) -> None:
    try:
        trace = trace_from_json(data, "broken.json")
    except InputError as error:
        assert str(error).startswith("broken.json: ")
        assert "\n" not in str(error)
    else:
        assert trace_from_json(trace_to_json(trace)) == trace


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\xff", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "not JSON"),
        ("[]", "expected an object"),
        ('{"format": "x"}', "is missing"),
        ('{"format": 1, "status": 1, "dropped": 1, "vhe": 1, "events": 1}', "format: expected"),
        (" " * ((16 << 20) + 1), "longer than"),
    ],
)
def test_hostile_texts(text: str | bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_trace(text)


def test_a_trace_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_trace(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        load_trace(tmp_path)
