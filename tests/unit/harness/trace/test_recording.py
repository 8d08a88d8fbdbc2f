# SPDX-License-Identifier: Apache-2.0
"""Recordings: what is written comes back, in any mixture of vCPUs; any other file is one InputError."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import protocol
from harness.arch.registers import NAMES
from harness.errors import AgentProtocolError, InputError
from harness.trace.events import ENTRY, EXIT, USER, Switch
from harness.trace.recording import Api, End, Head, Reader, Recorded, create
from harness.trace.tracefile import load_trace
from tests.support.traces import entry, state, trap

HEAD = Head("kvm-nvhe", "cortex-a72", "6.1.0-1", "ab" * 32, False, "vmm --flag")
U64 = st.one_of(st.integers(0, 3), st.integers(0, (1 << 64) - 1))
SWITCHES = st.builds(
    lambda kind, words, values: Switch._make((kind, 0, *words, (*values, *(0,) * (len(NAMES) - 4)))),
    st.sampled_from([ENTRY, EXIT, USER]),
    st.lists(U64, min_size=len(Switch._fields) - 3, max_size=len(Switch._fields) - 3),
    st.lists(U64, min_size=4, max_size=4),
)
CALLS = st.builds(Api, st.sampled_from(list(protocol.API)), U64, U64, U64, U64, U64)
RECORDS = st.lists(st.builds(Recorded, st.integers(0, 2), st.integers(0, 2), SWITCHES | CALLS), max_size=12)


def write(path: Path, records: Iterable[Recorded]) -> End:
    """Write a recording of a program that exited with 3."""
    with create(path, HEAD) as writer:
        for each in records:
            writer.add(each)
        return writer.end("exited", 3, 0, 0)


def read(path: Path) -> tuple[Head, tuple[Recorded, ...], End | None]:
    """Read a whole recording."""
    reader = Reader(path)
    return reader.head, tuple(reader), reader.end


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RECORDS)
def test_what_is_written_comes_back(tmp_path: Path, records: list[Recorded]) -> None:
    path = tmp_path / "any.trace"
    exits = sum(isinstance(r.event, Switch) and r.event.kind == EXIT for r in records)
    end = write(path, records)
    assert end == End("exited", 3, len(records), exits, 0, 0)
    assert read(path) == (HEAD, tuple(records), end)


def test_only_what_changed_is_written_by_vcpu(tmp_path: Path) -> None:
    first = entry(state())
    call = trap(first.values, 0x5A000000)
    write(tmp_path / "t", [Recorded(1, 0, first), Recorded(1, 1, first), Recorded(1, 0, call)])
    lines = gzip.decompress((tmp_path / "t").read_bytes()).decode().splitlines()
    assert lines[1].removeprefix("N1.0") == lines[2].removeprefix("N1.1")
    assert lines[3] == "E1.0 code=2 esr=5a000000"


def test_the_same_records_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, [Recorded(1, 0, entry(state()))])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_recording_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AgentProtocolError), create(tmp_path / "t", HEAD) as writer:
        writer.add(Recorded(1, 0, entry(state())))
        raise AgentProtocolError("the target")
    assert list(tmp_path.iterdir()) == []


HEAD_LINE = (
    'shadowfuzz-trace 2 {"target": "t", "cpu": "c", "kernel_release": "6", "kernel_sha256": "", "vhe": true, '
    '"program": "p", "registers": "x0 x1 pc"}'
)
END_LINE = 'end {"status": "exited", "code": 0, "records": 1, "exits": 0, "dropped": 0, "waits": 0}'
BAD = (
    # lines, line of the error, what it says
    ([], None, "expected 'shadowfuzz-trace 2'"),
    (["shadowfuzz-trace 1 {}"], 1, "expected 'shadowfuzz-trace 2'"),
    (["shadowfuzz-trace 2 {}"], 1, "expected an object with target"),
    ([HEAD_LINE.replace("true", "1"), END_LINE], 1, "vhe is no bool"),
    ([HEAD_LINE.replace("x0", "zz0"), END_LINE], 1, "register 'zz0', which this version does not know"),
    ([HEAD_LINE], 1, "no end"),
    ([HEAD_LINE, END_LINE], 2, "0 records; the end says exited, 1"),
    ([HEAD_LINE, "N1.0", END_LINE, "N1.0"], 4, "after the end"),
    ([HEAD_LINE, "X1.0", END_LINE], 2, "expected a record of kind"),
    ([HEAD_LINE, "", END_LINE], 2, "expected VM.VCPU"),
    ([HEAD_LINE, "N1", END_LINE], 2, "expected VM.VCPU"),
    ([HEAD_LINE, "N1.0 x99=1", END_LINE], 2, "unknown field 'x99'"),
    ([HEAD_LINE, "N1.0 x1=1ffffffffffffffff", END_LINE], 2, "no hexadecimal number"),
    ([HEAD_LINE, "N1.0 x1=-1", END_LINE], 2, "no hexadecimal number"),
    ([HEAD_LINE, "A1.0 slot 1", END_LINE], 2, "expected one of set_register"),
    ([HEAD_LINE, "A1.0 dance 0 0 0 0 0", END_LINE], 2, "expected one of set_register"),
    ([HEAD_LINE, "N1.0 \N{MULTIPLICATION SIGN}", END_LINE], 2, "expected text"),
    ([HEAD_LINE, "N1.0 " + "x1=1 " * 1000, END_LINE], 2, "more than 4096 bytes in a line"),
)


@pytest.mark.parametrize(("lines", "line", "reason"), BAD)
def test_what_is_no_recording_is_one_error(tmp_path: Path, lines: list[str], line: int | None, reason: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(gzip.compress("".join(f"{text}\n" for text in lines).encode()))
    with pytest.raises(InputError) as raised:
        read(path)
    assert (raised.value.where, raised.value.line) == (str(path), line)
    assert reason in raised.value.reason


def test_a_file_cut_short_anywhere(tmp_path: Path) -> None:
    write(tmp_path / "t", [Recorded(1, 0, entry(state()))])
    whole = (tmp_path / "t").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(InputError):
            read(tmp_path / "cut")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_an_input_error_or_a_recording(tmp_path: Path, data: st.DataObject) -> None:
    write(tmp_path / "t", [Recorded(1, 0, entry(state())), Recorded(1, 0, Api("slot", 0, 0, 0, 4096, 0))])
    text = bytearray(gzip.decompress((tmp_path / "t").read_bytes()))
    for _ in range(3):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "damaged").write_bytes(gzip.compress(bytes(text)))
    try:
        read(tmp_path / "damaged")
    except InputError as error:
        assert "\n" not in str(error)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Reader(tmp_path / "none")


def test_the_reader_of_format_1_names_the_command(tmp_path: Path) -> None:
    write(tmp_path / "t", [])
    with pytest.raises(InputError, match="shadowfuzz recording check"):
        load_trace(tmp_path / "t")
