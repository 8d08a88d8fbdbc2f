# SPDX-License-Identifier: Apache-2.0
"""Rounds without a fault of KVM: one row for each, with the divergences that the catalogue explains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from harness.arch.registers import NAMES
from harness.findings.known_divergences import Catalogue
from harness.layout import CODE, DATA
from harness.model.replay import predict
from harness.relations.divergence import Divergence
from harness.relations.host import compare_entry_state
from harness.relations.save_restore import compare_round
from harness.trace.rounds import Round
from harness.vm.config import PROJECT
from tests.support.traces import (
    EXCEPTION,
    MMIO_EXIT,
    SKIP,
    SYSTEM_EVENT_EXIT,
    but,
    entry,
    esr,
    host_reset,
    host_set,
    irq,
    load_esr,
    state,
    trap,
    turn,
    user,
)

KNOWN_DIR = PROJECT / "corpus" / "known"
CATALOGUES: Mapping[str, Catalogue] = {
    level: Catalogue.load(KNOWN_DIR, level) for level in ("spec", "low", "body", "kernel")
}
AT = CODE.base
S = state(sctlr_el1=1 << 23)
WINDOW, HOLE, NOWHERE = 0x900_0000, 0x4010_0000, 0x5000_0000
DATA_VALUE = 0x1122_3344_5566_7788
SIGNED = 0x8600_0010  # instruction abort from EL1, IL, external abort


def page(address: int) -> dict[str, int]:
    """The fault registers of an access."""
    return {"far": address, "hpfar": address >> 12 << 4}


def after_reset(**written: int) -> tuple[int, ...]:
    """Return the registers expected at the first entry of a vCPU, with the host's writes after the reset."""
    unknown = 0x1DE7_EC7E_DBAD_C0DE
    names = (
        *("csselr_el1", "ttbr0_el1", "ttbr1_el1", "esr_el1", "afsr0_el1", "afsr1_el1", "far_el1", "mair_el1"),
        *("tpidr_el0", "tpidrro_el0", "tpidr_el1", "par_el1"),
    )
    zero = but((0,) * len(NAMES), pstate=0x3C5, mpidr_el1=1 << 31, sctlr_el1=0xC5_0078, **dict.fromkeys(names, unknown))
    return but(zero, **written)


@dataclass(frozen=True)
class Good:
    """A round without a fault.  ``known`` maps each divergence of level ``spec`` to the entry that explains it."""

    name: str
    round: Round
    known: Mapping[str, str]


def _results(*names: str) -> dict[str, str]:
    return {f"{what}{name}": "call-results-in-x1-x3" for name in names for what in ("save.dirty.", "restore.")}


_CALL = but(S, pc=AT + 4, x0=0x8400_0000)
_MMIO_READ = {"save.pc": "mmio-read-loses-pc-flag-saved", "restore.pc": "mmio-read-loses-pc-flag"}
_ABOVE = {
    "save.class": "mmio-above-window-class",
    "save.pc": "mmio-above-window-flag",
    "restore.pc": "mmio-above-window-pc",
}
_WRITTEN = "host-writes-registers"
_NOT_AT_ALL = but(S, pc=NOWHERE)
FIRST = turn(host_set("pc", AT), host_set("x7", 7), entry(after_reset(pc=AT, x7=7)))
"""A vCPU's first entry."""
AGAIN = turn(irq(S), host_set("x9", 9), host_reset(), host_set("pc", AT), entry(after_reset(pc=AT)))
"""A reset during the round: earlier writes of the host are lost."""

GOOD: tuple[Good, ...] = (
    Good("irq", turn(irq(S), entry(S)), {}),
    Good("wfi", turn(trap(S, esr("WFX")), entry(S, SKIP)), {}),
    Good(
        "psci",
        turn(trap(_CALL, esr("HVC64")), entry(but(_CALL, x0=0x10001, x1=0, x2=0, x3=0))),
        _results("x1", "x2", "x3"),
    ),
    Good(
        "system_off",
        turn(
            trap(but(_CALL, x0=0x8400_0008), esr("HVC64")),
            user(but(_CALL, x0=-6 & (1 << 64) - 1, x1=0, x2=0, x3=0), SYSTEM_EVENT_EXIT),
            entry(but(_CALL, x0=-6 & (1 << 64) - 1, x1=0, x2=0, x3=0)),
        ),
        _results("x1", "x2", "x3"),
    ),
    Good("touch", turn(trap(S, load_esr(3), **page(DATA.base)), entry(S)), {}),
    Good(
        "mmio_read",
        turn(
            trap(S, load_esr(5), **page(WINDOW)),
            user(S, MMIO_EXIT),
            entry(but(S, x5=DATA_VALUE), SKIP, mmio_data=DATA_VALUE),
        ),
        _MMIO_READ,
    ),
    Good(
        "mmio_write",
        turn(trap(S, load_esr(5, write=True), **page(WINDOW)), user(S, MMIO_EXIT), entry(S, SKIP)),
        {},
    ),
    Good(
        "mmio_read_above",
        turn(
            trap(S, load_esr(5), **page(HOLE)),
            user(S, MMIO_EXIT),
            entry(but(S, x5=DATA_VALUE), SKIP, mmio_data=DATA_VALUE),
        ),
        _ABOVE | {"save.dirty.x5": "mmio-above-window-data", "restore.x5": "mmio-above-window-data"},
    ),
    Good(
        "fetch_outside",
        turn(
            trap(_NOT_AT_ALL, esr("IABT_LOW", 5), **page(NOWHERE)),
            entry(but(_NOT_AT_ALL, esr_el1=SIGNED, far_el1=NOWHERE), EXCEPTION),
        ),
        {"save.class": "abort-injected-class"}
        | {f"restore.{name}": "abort-injected-state" for name in ("esr_el1", "far_el1", "spsr_el1")},
    ),
    Good(
        "id_register",
        turn(trap(S, esr("SYS64", 0x3203ED)), entry(S, SKIP)),
        {"save.class": "system-register-trap-panics"},
    ),
    Good(
        "host_writes",
        turn(irq(S), host_set("x7", 0x77), host_set("sp_el1", 0x88), entry(but(S, x7=0x77, sp_el1=0x88))),
        {"save.dirty.x7": _WRITTEN, "restore.x7": _WRITTEN, "restore.sp_el1": _WRITTEN},
    ),
)


def differences(round_: Round, level: str = "spec") -> dict[str, str | None]:
    """Return every divergence of a round, with the entry that explains it (None: unexplained)."""
    prediction = predict(round_, level)
    explain = CATALOGUES[level].explainer(round_, prediction, {})
    judged: dict[str, str | None] = {}
    for divergence in compare_round(round_, prediction):
        known = explain(divergence)
        judged[divergence.name] = None if known is None else known.id
    judged |= {d.name: None for d in compare_entry_state(round_, {}) if isinstance(d, Divergence)}
    return judged


def with_entry(round_: Round, pending: int | None = None, **values: int) -> Round:
    """Return the same round, but KVM loads other values, or has other work pending."""
    before = round_.entry
    new = before._replace(values=but(before.values, **values), pending=before.pending if pending is None else pending)
    return replace(round_, entry=new)
