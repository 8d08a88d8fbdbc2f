# SPDX-License-Identifier: Apache-2.0
"""What one VM writes to a register that KVM does not switch, another must not read."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest

from harness import protocol
from harness.arch.a64 import encode
from harness.arch.cpu_models import cpu_model
from harness.arch.sysregs import BY_NAME, KEEPERS
from harness.gic.departures import NONE, SHARED_INTERFACE
from harness.guest.context import GuestContext
from harness.guest.memory import Memory
from harness.guest.predict_run import PredictedRun, predict_run
from harness.layout import CODE, CONTEXTS, GIC_MACHINE, NISV_MACHINE
from harness.relations.divergence import Divergence
from harness.relations.isolate_unswitched import compare_unswitched_registers, reads_any
from harness.scenario.code_layout import Code
from harness.trace.events import ENTRY, EXIT, Event, Lists, Switch, Trace
from harness.trace.rounds import GuestRun
from tests.support.traces import but, entry, esr, host_reset, state, trap, user

NO_VMCR: Mapping[int, int] = MappingProxyType({})
AT, A72 = CODE.base, cpu_model("cortex-a72")
PMR, HVC = BY_NAME["icc_pmr_el1"].encoding, encode("hvc", 0)
READ, WRITE, MOVE = encode("mrs", "x9", PMR), encode("msr", PMR, "x10"), encode("mov", "x9", "x3")
STORE = encode("str", "x3", "x1")
VCPU, SAME_VM = (next(i for i, c in enumerate(CONTEXTS) if (c.machine, c.vcpu) == (1, n)) for n in (0, 1))
OTHER, WITH_GIC = (next(i for i, c in enumerate(CONTEXTS) if c.machine == m) for m in (NISV_MACHINE, GIC_MACHINE))


def ran(context: int, value: int = 0, end: int = AT + 4, **before: int) -> tuple[Switch, Switch]:
    """A run from AT to the HVC at ``end``, which leaves ``value`` in x9."""
    came, marks = state(**before), context << 8
    return entry(came, marks=marks), trap(but(came, x9=value, pc=end + 4), esr("HVC64"), marks=marks)


def found(
    code: tuple[int, ...],
    *parts: tuple[Event, ...],
    departures: frozenset[str] = NONE,
    vmcr: Mapping[int, int] = NO_VMCR,
) -> list[tuple[str, object, object]]:
    """What is found in a trace of such runs, all of one code; ``vmcr``: what a VM with a GIC leaves, by event."""
    events = tuple(event for part in parts for event in part)
    words = Code({AT + 4 * i: word for i, word in enumerate((*code, HVC))})
    followed: dict[int, PredictedRun] = {}
    for index, event in enumerate(events):
        if isinstance(event, Switch) and event.kind == EXIT:
            before = events[index - 1]
            assert isinstance(before, Switch) and before.kind == ENTRY
            followed[index] = predict_run(GuestRun(index, before, event), GuestContext(words, A72, Memory()))
    lists = tuple(
        Lists(event, tuple(value if word.name == "ich_vmcr_el2" else 0 for word in protocol.LIST_WORDS))
        for event, value in vmcr.items()
    )
    divergences = compare_unswitched_registers(Trace(events, "ok", 0, False, lists=lists), followed, words, departures)
    return [
        (d.name, d.expected, d.observed) if isinstance(d, Divergence) else (d.what, d.event, "") for d in divergences
    ]


def told(found_here: list[tuple[str, object, object]]) -> list[tuple[str, object, object]]:
    """The divergences alone."""
    return [one for one in found_here if one[2] != ""]


SHARES = frozenset({SHARED_INTERFACE})


def test_what_another_vm_left_is_there_where_the_interface_is_shared() -> None:
    """The value of a write is that of the register that it is from, which no instruction before has changed."""
    both = (READ, WRITE)
    here = ran(VCPU, 0x50, AT + 8, x10=0xA8)
    assert told(found(both, here, ran(OTHER, 0xA8, AT + 8, x10=0x58), ran(VCPU, 0x58, AT + 8), departures=SHARES)) == []
    assert told(found(both, here, ran(OTHER, 0xA9, AT + 8), departures=SHARES)) == [("isolate.icc_pmr_el1", 0xA8, 0xA9)]
    moved = (encode("mov", "x10", "x3"), WRITE, READ)
    assert told(found(moved, ran(VCPU, 0x33, AT + 12), departures=SHARES)) == [], "it is unknown what"
    again = ran(VCPU, 0x50), ran(OTHER, 0x51), ran(VCPU, 0x51)
    assert told(found((READ,), *again, departures=SHARES)) == [("isolate.icc_pmr_el1", 0x50, 0x51)]


def test_what_a_vm_with_a_gic_left_is_there_where_the_interface_is_shared() -> None:
    gic = (*ran(WITH_GIC), user(state(), 10, marks=WITH_GIC << 8))
    parts = ran(VCPU, 0x50), gic, ran(VCPU, 0x58)
    assert told(found((READ,), *parts, departures=SHARES, vmcr={4: 0x58 << 24})) == []
    assert told(found((READ,), *parts, departures=SHARES, vmcr={4: 0x50 << 24})) == [
        ("isolate.icc_pmr_el1", 0x50, 0x58)
    ]
    assert found((READ,), *parts, departures=SHARES)[-1] == ("isolate.icc_pmr_el1", 6, ""), "not recorded"


def test_other_registers_are_compared_as_ever() -> None:
    own = encode("mrs", "x9", BY_NAME["s3_0_c15_c2_0"].encoding)
    parts = ran(VCPU), ran(OTHER), ran(VCPU, 1)
    assert found((own,), *parts, departures=SHARES) == found((own,), *parts) == [("isolate.s3_0_c15_c2_0", 0, 1)]


CHANGED = [("isolate.icc_pmr_el1", 0, 0xA0)]


@pytest.mark.parametrize("other", [OTHER, WITH_GIC])
def test_what_another_vm_wrote_is_found(other: int) -> None:
    assert found((READ,), ran(VCPU), ran(other), ran(VCPU, 0xA0)) == CHANGED
    assert found((READ,), ran(VCPU, 0xA0), ran(other), ran(VCPU, 0xA0)) == []


def test_a_vm_may_change_its_own() -> None:
    """Another vCPU of it, or the guest itself; what a vCPU with a GIC reads is its GIC's."""
    assert found((READ,), ran(VCPU), ran(VCPU, 0xA0)) == []
    assert found((READ,), ran(VCPU), ran(SAME_VM), ran(VCPU, 0xA0)) == []
    assert found((READ,), ran(WITH_GIC), ran(OTHER), ran(WITH_GIC, 0xA0)) == []
    both = (READ, WRITE)
    after = ran(VCPU, 0xA0, AT + 8)
    assert found(both, ran(VCPU, 0, AT + 8), ran(OTHER, 0, AT + 8), after) == []


def test_a_reset_and_what_nobody_could_follow_forget() -> None:
    reset = (host_reset()._replace(context=VCPU),)
    assert found((READ,), ran(VCPU), ran(OTHER), reset, ran(VCPU, 0xA0)) == []
    lost = ran(VCPU, 0, AT + 4, pc=AT + 0x100)
    assert found((READ,), ran(VCPU), ran(OTHER), lost, ran(VCPU, 0xA0)) == []
    assert found((READ, STORE), ran(VCPU, 0, AT + 8), ran(OTHER, 0, AT + 8), ran(VCPU, 0xA0, AT + 8)) == []


def test_only_what_was_read_last_counts() -> None:
    end = AT + 8
    assert found((READ, MOVE), ran(VCPU, 0, end), ran(OTHER, 0, end), ran(VCPU, 0xA0, end)) == []
    write_then_read = ran(VCPU, 0, end), ran(OTHER, 0, end), ran(VCPU, 0xA0, end)
    assert found((WRITE, READ), *write_then_read) == [], "each run wrote before it read"
    still = ran(VCPU, 0xA0), ran(OTHER), ran(VCPU, 0xA0)
    assert found((READ,), ran(VCPU), ran(OTHER), *still) == CHANGED, "reported once"


def test_which_registers() -> None:
    assert {"icc_pmr_el1", "s3_0_c15_c2_0"} <= KEEPERS
    assert KEEPERS.isdisjoint({"icc_iar1_el1", "icc_hppir1_el1", "icc_rpr_el1", "cntvct_el0", "tpidr_el1"})
    assert reads_any(Code({AT: READ})) and not reads_any(Code({AT: WRITE, AT + 4: HVC}))
