# SPDX-License-Identifier: Apache-2.0
"""FP and SIMD registers: what the guest's code, a reset and nothing else may do to them."""

from __future__ import annotations

import struct
from collections.abc import Collection

from harness.arch.a64 import encode
from harness.arch.cpu_models import cpu_model
from harness.guest.context import GuestContext
from harness.guest.predict_run import predict_run
from harness.layout import CODE
from harness.relations.divergence import Divergence, Unchecked
from harness.relations.fp_simd import ZERO, compare_vectors, value
from harness.trace.decode import decode
from harness.trace.events import VECTORS_SIZE, Event, Trace, Vectors
from harness.trace.rounds import cut_runs
from harness.trace.tracefile import format_trace, parse_trace
from tests.support.traces import LAYOUT, but, entry, esr, host_reset, record, state, trap, user

AT = CODE.base
CPU = cpu_model("cortex-a72")
S = state(cpacr_el1=3 << 20, x1=0x1234)
WORDS = {AT: encode("fmov_to", "v3", "x1"), AT + 4: encode("wfi")}
TRAPPED = trap(but(S, pc=AT + 4), esr("WFX"))


def memory(**written: int) -> bytes:
    data = bytearray(VECTORS_SIZE)
    for name, number in written.items():
        at = 16 * int(name[1:])
        data[at : at + 16] = number.to_bytes(16, "little")
    return bytes(data)


def found(
    events: tuple[Event, ...], *vectors: Vectors, restarts: Collection[int] = ()
) -> list[tuple[str, int | str, int | str]]:
    trace = Trace(events, "ok", 0, False, vectors)
    runs = {run.event: predict_run(run, GuestContext(WORDS, CPU)) for run in cut_runs(events)}
    differences = (d for d in compare_vectors(trace, runs, restarts) if isinstance(d, Divergence))
    return [(d.name, d.expected, d.observed) for d in differences]


RUN = (entry(S), TRAPPED, user(S, 10))


def test_the_guest_writes_a_vector_register() -> None:
    assert found(RUN, Vectors(2, 0, memory(v3=0x1234))) == []
    assert found(RUN, Vectors(2, 0, ZERO)) == [("switch.v3", 0x1234, 0)], "lost"
    assert found(RUN, Vectors(2, 0, memory(v3=0x1234, v9=1 << 100))) == [("switch.v9", 0, 1 << 100)]


def test_a_reset_clears_them() -> None:
    events = (*RUN, host_reset(), entry(but(S, pc=AT + 4)), TRAPPED, user(S, 10))
    assert found(events, Vectors(2, 0, memory(v3=0x1234)), Vectors(6, 0, ZERO)) == []
    assert found(events, Vectors(2, 0, memory(v3=0x1234))) == [("switch.v3", 0, 0x1234)], "kept"


def test_a_vcpu_that_another_starts_anew_has_none_of_them() -> None:
    events = (*RUN, entry(but(S, pc=AT + 4)), TRAPPED, user(S, 10))
    written = Vectors(2, 0, memory(v3=0x1234))
    assert found(events, written, Vectors(5, 0, ZERO)) == [("switch.v3", 0x1234, 0)]
    assert found(events, written, Vectors(5, 0, ZERO), restarts={1}) == []
    assert found(events, written, restarts={1}) == [("switch.v3", 0, 0x1234)], "kept"


def test_where_nothing_proves_that_a_vcpu_was_reset_they_are_unchecked() -> None:
    """Either outcome of the CPU_ON is possible; what is seen there is where the comparison goes on."""
    events = (*RUN, entry(but(S, pc=AT + 4)), TRAPPED, user(S, 10), entry(but(S, pc=AT + 4)), TRAPPED, user(S, 10))
    runs = {run.event: predict_run(run, GuestContext(WORDS, CPU)) for run in cut_runs(events)}
    for kept in (ZERO, memory(v3=0x1234)):
        shown = (Vectors(2, 0, memory(v3=0x1234)), Vectors(5, 0, kept), Vectors(8, 0, memory(v3=1)))
        result = list(compare_vectors(Trace(events, "ok", 0, False, shown), runs, unproven={1: "who knows"}))
        assert result[0] == Unchecked("switch", "vector registers: who knows", 5)
        assert [(d.name, d.expected) for d in result[1:] if isinstance(d, Divergence)] == [
            ("switch.v3", value(kept, 3))
        ]


def test_they_come_from_the_record_and_survive_a_file() -> None:
    layout = LAYOUT.__class__(LAYOUT.size + VECTORS_SIZE, LAYOUT.slots, LAYOUT.size)
    area = bytearray(b"".join(record(event, layout) for event in RUN))
    data = struct.pack("<66Q", *range(66))
    area[-VECTORS_SIZE:] = data
    found = decode(area, layout)
    (vectors,) = found.vectors
    assert vectors == Vectors(2, 0, data)
    assert value(vectors.data, 1) == 3 << 64 | 2
    trace = Trace(found.events, "ok", 0, False, (vectors,))
    assert parse_trace(format_trace(trace)) == trace
    assert not decode(area, LAYOUT.__class__(layout.size, LAYOUT.slots)).vectors, "where they are is unknown"
