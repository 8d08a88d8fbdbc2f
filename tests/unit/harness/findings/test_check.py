# SPDX-License-Identifier: Apache-2.0
"""A whole trace: what is counted and what is judged."""

from __future__ import annotations

import pytest

from harness import protocol
from harness.arch.cpu_models import cpu_model
from harness.arch.exceptions import State
from harness.arch.registers import NAMES
from harness.findings.check import OF_ROUNDS, check
from harness.findings.checked import CheckResult, Comparison
from harness.layout import PAIR
from harness.scenario.scenario import parse
from harness.trace.events import Event, Trace
from harness.trace.psci import OVERWRITTEN
from tests.support.rounds import AT, CATALOGUES, WINDOW, after_reset, page
from tests.support.traces import (
    ESR_TRAP_MRS,
    INTR_EXIT,
    MMIO_EXIT,
    SKIP,
    but,
    entry,
    host_set,
    irq,
    load_esr,
    trap,
    user,
)

CPU = cpu_model("cortex-a72")
SCENARIO = parse(
    f"shadowfuzz-scenario 1\nabout A load, then a call.\nreg x1 {WINDOW:#x}\nldr x3, [x1]\ncomplete 0x55\nhvc 0x0\n",
    "here",
)

START = after_reset(pc=AT, vbar_el1=0x4001_0000, x1=WINDOW)
LOADED = but(START, x3=0x55)
CALLED = but(LOADED, pc=AT + 8)
ANSWERED = but(CALLED, x0=(1 << 64) - 1, x1=0, x2=0, x3=0)
LAST = AT + 8


def events(loaded: State = LOADED, called: State = CALLED, answered: State = ANSWERED) -> tuple[Event, ...]:
    """The scenario's trace on a KVM without fault; an interrupt comes in between."""
    return (
        *(host_set("vbar_el1", 0x4001_0000), host_set("x1", WINDOW), host_set("pc", AT)),
        entry(START),
        irq(START),
        entry(START),
        trap(START, load_esr(3), **page(WINDOW)),
        user(START, MMIO_EXIT, mmio_addr=WINDOW, mmio_len=8),
        entry(loaded, SKIP, mmio_data=0x55),
        trap(called, 0x5A00_0000),
        user(answered, INTR_EXIT),
        entry(answered),
        trap(answered, ESR_TRAP_MRS),
        user(but(answered, pc=LAST + 4), INTR_EXIT),
    )


def checked(*trace: Event, level: str = "spec", status: str = "ok", dropped: int = 0) -> CheckResult:
    return check(SCENARIO, Trace(trace, status, dropped, False), level, CPU, CATALOGUES[level])


@pytest.mark.parametrize("level", CATALOGUES)
def test_a_good_trace(level: str) -> None:
    result = checked(*events(), level=level)
    # docs/spec/model.md section 4: the deployed prep_hvc marks x0 for some functions only, and this is none of them.
    assert _names(result) <= ({"save.dirty.x0", "restore.x0"} if level == "kernel" else set())
    assert dict(result.exits) == {"IRQ": 1, "DABT_LOW": 1, "HVC64": 1, "SYS64": 1}
    assert (result.relations["save"], result.relations["switch"], result.relations["host"]) == (4, 4, 4)
    assert result.relations["restore"] == 4 - sum(result.unchecked.values())
    assert not result.undefined
    assert (result.status, result.dropped) == ("ok", 0)
    assert [name for name, _ in result.paths] == ["FIRST", "IRQ", "DABT_LOW", "HVC64"]


def test_where_the_model_panics_the_contract_stands_in() -> None:
    """A trapped system register is no exit of the proof's (docs/spec/model.md section 5)."""
    again = (*events()[:-1], entry(but(ANSWERED, pc=LAST + 4)))
    assert dict(checked(*events()).unchecked) == {}
    result = checked(*again)
    assert dict(result.unchecked) == {} and result.gaps == ()
    assert dict(result.stood_in) == {"restore: the model panicked, host compares the same registers": 1}
    assert (result.relations["save"], result.relations["restore"]) == (5, 4)
    assert result.complete_share == 1


def test_a_panic_where_the_contract_has_no_rule_leaves_restore_unchecked() -> None:
    forged = trap(ANSWERED, 0xF200_0000, marks=protocol.FORGE["esr"])
    at = len(events()) - 2
    result = checked(*events()[:at], forged, entry(ANSWERED))
    assert result.unchecked["restore: the model panicked"] == 1 and result.stood_in == {}
    gaps = {(gap.what, gap.why) for gap in result.gaps if gap.event == at}
    assert {("restore", "the model panicked"), ("host", "no rule for exit class BRK64")} <= gaps
    assert 0 < result.complete_share < 1
    assert result.attempted["restore"] == result.relations["restore"] + 1
    assert (result.incomplete["restore"], result.incomplete["host"]) == (1, 1)


def test_what_the_model_leaves_undefined_is_counted_and_not_judged() -> None:
    """prep_abort relies on is_gfn of HPFAR_EL2 / 16 (docs/spec/model.md section 4)."""
    result = checked(entry(START), trap(START, load_esr(3), far=0, hpfar=1 << 63), entry(START))
    assert sum(result.undefined.values()) == 1
    assert (result.relations["save"], result.relations["restore"]) == (1, 1)


def test_status_and_losses_are_passed_on() -> None:
    result = checked(*events(), status="runaway", dropped=3)
    assert (result.status, result.dropped) == ("runaway", 3)


def test_an_empty_trace() -> None:
    result = checked()
    assert (dict(result.exits), dict(result.relations), result.judged, result.paths) == ({}, {}, (), ())


def _names(result: CheckResult) -> set[str]:
    return {divergence.name for divergence in result.unexplained}


def test_wrong_data_arrives() -> None:
    """KVM loads 0x54 where 0x55 is required; later comparisons start from what was observed."""
    wrong = but(LOADED, x3=0x54)
    assert _names(checked(*events(loaded=wrong, called=but(CALLED, x3=0x54)))) == {"host.x3"}


def test_a_register_lost_on_the_way_to_the_guest_or_back() -> None:
    lost = but(CALLED, x20=1)
    result = checked(*events(called=lost, answered=but(ANSWERED, x20=1)))
    assert _names(result) == {"switch.x20"}
    assert any("relation switch" in why for why in result.unchecked), "whether the host sees it is unknown"
    (found,) = (d for d in result.unexplained if d.relation == "switch")
    assert (found.expected, found.observed, found.exit_class) == (0, 1, "HVC64")


def test_a_register_lost_in_the_host() -> None:
    result = checked(*events(answered=but(ANSWERED, x20=1)))
    assert _names(result) == {"save.dirty.x20", "restore.x20", "host.x20"}


@pytest.mark.parametrize("register", [name for name in NAMES if name not in ("pc", "x0", "x3")])
def test_any_register_changed_in_the_host_is_found(register: str) -> None:
    value = ANSWERED[NAMES.index(register)] ^ 1 << 40
    result = checked(*events(answered=but(ANSWERED, **{register: value})))
    assert f"host.{register}" in _names(result)
    assert {name.rpartition(".")[2] for name in _names(result)} <= {register, "spsr_0"}


def test_nothing_explains_switch_and_host() -> None:
    """The catalogue is of the model's abstractions: relations without a model have none."""
    result = checked(*events(answered=but(ANSWERED, x0=0)))
    assert [(j.divergence.name, j.known) for j in result.judged if j.divergence.relation in ("switch", "host")] == [
        ("host.x0", None)
    ]


def test_a_turn_of_which_nothing_proves_whether_the_vcpu_was_reset_is_unchecked() -> None:
    """CPU_ON may have started it; neither outcome may show a divergence, and no relation of a round says anything."""
    first, second = (context << protocol.FLAGS_VCPU_SHIFT for context in (PAIR, PAIR + 1))
    asks = but(START, x0=0xC400_0003, x1=1, x2=AT + 0x4000, x3=7)
    sleeps = (entry(START, marks=second), trap(START, 0x5A00_0000, marks=second))
    calls = (entry(asks, marks=first), trap(asks, 0x5A00_0000, marks=first))
    hides = (host_set("x0", 5)._replace(context=PAIR), entry(but(asks, x0=5, x1=0, x2=0, x3=0), marks=first))
    shows = (entry(but(asks, x0=0, x1=0, x2=0, x3=0), marks=first),)
    woken = entry(but(START, x9=0xBAD), marks=second)
    what = f"{', '.join(OF_ROUNDS)}: {OVERWRITTEN}"
    seen: list[Comparison] = []
    trace = Trace((*sleeps, *calls, *hides, woken), "ok", 0, False)
    result = check(SCENARIO, trace, "spec", CPU, CATALOGUES["spec"], seen.append)
    assert result.unchecked[what] == 1
    assert not [one for one in result.judged if one.divergence.event == 1 and one.divergence.relation != "switch"]
    skipped = {one.relation for one in seen if one.event == 1 and one.left_out == OVERWRITTEN}
    assert skipped == set(OF_ROUNDS) >= {"save", "restore", "reveal", "isolate", "host"}
    proven = check(SCENARIO, Trace((*sleeps, *calls, *shows, woken), "ok", 0, False), "spec", CPU, CATALOGUES["spec"])
    assert what not in proven.unchecked
    assert {d.divergence.name for d in proven.judged if d.divergence.event == 1} >= {"host.pc", "host.x9"}
