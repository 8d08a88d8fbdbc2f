# SPDX-License-Identifier: Apache-2.0
"""Traces as text and as JSON: what is written is read back, and whatever else is read is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import protocol
from harness.arch.registers import NAMES
from harness.errors import InputError
from harness.trace.events import ENTRY, EXIT, HOST, USER, Host, Switch, Trace
from harness.trace.tracefile import format_trace, load_trace, parse_trace, trace_from_json, trace_to_json
from tests.support.paths import GOLDEN
from tests.support.reports import recorded

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
