# SPDX-License-Identifier: Apache-2.0
"""List, as rows, the exits that each step of a scenario can meet, and why some are not reached or not compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from harness.arch.exits import EXCEPTION_CLASSES, EXIT_CODES
from harness.coverage.exercised_steps import FORGE, NO_EXIT, OTHER_CLASS, OTHER_CODE, StepAtExit
from harness.scenario.steps import STEP_KINDS, StepKind

GUEST_EXITS: tuple[str, ...] = ("WFX", "HVC64", "SMC64", "SYS64", "IABT_LOW", "DABT_LOW")
"""Classes of exits at which a host step may take place: those that guest steps cause."""


STEPPED = "SOFTSTP_LOW"
DEBUG_EXITS: tuple[str, ...] = (STEPPED, "BREAKPT_LOW", "WATCHPT_LOW", "BRK64")
"""Classes of the exits of a guest that userspace debugs."""


@dataclass(frozen=True, slots=True)
class ReachableExit:
    """Steps (patterns of keywords) meet these classes."""

    steps: str
    classes: tuple[str, ...]
    why: str
    source: str


MEETS: tuple[ReachableExit, ...] = (
    ReachableExit(
        "hvc", ("HVC64", STEPPED, NO_EXIT), "a call; UNDEFINED at EL0, some are answered at EL2", "Arm ARM C6.2 HVC"
    ),
    ReachableExit(
        "smc", ("SMC64", STEPPED, NO_EXIT), "trapped by HCR_EL2.TSC; at EL0 it is UNDEFINED", "Arm ARM C6.2 SMC"
    ),
    ReachableExit(
        "wf[ie]", ("WFX", NO_EXIT), "trapped by HCR_EL2.TWI and TWE, unless KVM lets it run", "Arm ARM D17.2.48"
    ),
    ReachableExit("m[rs][rs]", ("SYS64", STEPPED, NO_EXIT), "trapped or not, by register", "Arm ARM D17.2.48, HCR_EL2"),
    ReachableExit("ld*", ("DABT_LOW", "WATCHPT_LOW", STEPPED, NO_EXIT), "a fault at stage 2, or data", "Arm ARM D8.2"),
    ReachableExit("st*", ("DABT_LOW", "WATCHPT_LOW", STEPPED, NO_EXIT), "a fault at stage 2, or data", "Arm ARM D8.2"),
    ReachableExit("br", ("IABT_LOW", STEPPED, NO_EXIT), "where it goes there is a slot or none", "Arm ARM C6.2 BR"),
    ReachableExit("eret", ("IABT_LOW", STEPPED, NO_EXIT), "where it goes there is a slot or none", "Arm ARM C6.2 ERET"),
    ReachableExit(
        "brk", (NO_EXIT, "BRK64"), "the guest's own exception, or userspace's, which debugs it", "KVM API 4.87"
    ),
    ReachableExit("udf", (STEPPED, NO_EXIT), "an exception inside the guest", "Arm ARM C6.2 UDF"),
    ReachableExit("mov*", (STEPPED, "BREAKPT_LOW", NO_EXIT), "moves registers", "Arm ARM C6.2 MOV"),
    ReachableExit(
        "fmov*",
        (NO_EXIT,),
        "EL2 gives the registers to the guest without the host",
        "arch/arm64/kvm/hyp/include/hyp/switch.h",
    ),
    ReachableExit("complete", ("DABT_LOW",), "data for a pending MMIO read", "KVM API 5, KVM_EXIT_MMIO"),
    ReachableExit("abort", ("DABT_LOW",), "takes the place of a pending access", "KVM API 4.32"),
    ReachableExit("set", (*GUEST_EXITS, *DEBUG_EXITS), "the host may write registers at any exit", "KVM API 4.68"),
    ReachableExit("reset", (*GUEST_EXITS, *DEBUG_EXITS), "the host may reset at any exit", "KVM API 4.82"),
    ReachableExit("finish", (*GUEST_EXITS, *DEBUG_EXITS), "KVM_RUN may return at once", "KVM API 5, immediate_exit"),
    ReachableExit("serror", (*GUEST_EXITS, *DEBUG_EXITS), "an SError may be pended at any exit", "KVM API 4.32"),
    ReachableExit(
        "debug", (*GUEST_EXITS, *DEBUG_EXITS), "userspace may debug a guest from any exit on", "KVM API 4.87"
    ),
    ReachableExit("breakpoint", ("HVC64", "BREAKPT_LOW"), "a breakpoint may be set at any exit", "KVM API 4.87"),
    ReachableExit("watchpoint", ("HVC64", "WATCHPT_LOW"), "a watchpoint may be set at any exit", "KVM API 4.87"),
    ReachableExit("irq_line", GUEST_EXITS, "a line may change at any exit", "KVM API 4.25"),
    ReachableExit(
        "gic_line", ("HVC64", "DABT_LOW", "SYS64"), "an input of the GIC may change at any exit", "KVM API 4.25"
    ),
    ReachableExit("mp_state", GUEST_EXITS, "a vCPU may be stopped at any exit", "KVM API 4.39"),
    ReachableExit("write", ("HVC64", "DABT_LOW", "IABT_LOW"), "the host may write RAM at any exit", "KVM API 4.35"),
    ReachableExit("*slot", ("HVC64", "DABT_LOW"), "memory slots may change at any exit", "KVM API 4.35"),
    ReachableExit(
        "vcpu",
        ("HVC64", "DABT_LOW", "SYS64"),
        "another vCPU may go on at any exit",
        "docs/spec/differential.md section 5",
    ),
    ReachableExit(
        FORGE,
        (*EXIT_CODES.values(), *(c.name for c in EXCEPTION_CLASSES), OTHER_CLASS, OTHER_CODE),
        "an exit may be made to look like any other",
        "docs/spec/differential.md section 5",
    ),
)
"""A step without a row must be reached, by whatever exit it meets.  ``TRAP`` is the code of all exception classes.

In addition every guest step may meet an interrupt of the host (IRQ) and the first fetch of its page (IABT_LOW).
"""


@dataclass(frozen=True, slots=True)
class UnreachedReason:
    """Why a place (patterns of step, class and target) is not reached; ``todo``: it is possible."""

    steps: str
    classes: str
    targets: str
    why: str
    source: str
    todo: bool = False


NOT_REACHED: tuple[UnreachedReason, ...] = (
    UnreachedReason(
        "wfe", "WFX", "*", "WFE never waits, and so never traps, in QEMU 7.2", "QEMU target/arm/translate-a64.c, YIELD"
    ),
    UnreachedReason(
        "stxr", "DABT_LOW", "*", "without the monitor it stores nothing: no access is made", "Arm ARM B2.9.1"
    ),
    UnreachedReason(
        "stxr", "WATCHPT_LOW", "*", "without the monitor it stores nothing: no access is made", "Arm ARM B2.9.1"
    ),
)
NOT_SAID = "no reason is written down: a seed should reach it"


def classes_of(step: StepKind) -> tuple[str, ...]:
    """Return the classes that a step can meet by its row, none if it has no row."""
    for row in MEETS:
        if fnmatchcase(step.keyword, row.steps):
            # SERROR is both an exit code and an exception class.
            return tuple(dict.fromkeys(name for name in row.classes if name != "TRAP"))
    return ()


def possible() -> Iterator[StepAtExit]:
    """Yield every place that can be reached by some row."""
    for kind in STEP_KINDS:
        yield from (StepAtExit(kind.keyword, name) for name in classes_of(kind))


def unreached_reason(place: StepAtExit, target: str) -> UnreachedReason | None:
    """Return why a place is not reached on a target, None if no row says so."""
    for row in NOT_REACHED:
        if all(map(fnmatchcase, (*place, target), (row.steps, row.classes, row.targets))):
            return row
    return None
