# SPDX-License-Identifier: Apache-2.0
"""Predict what a kernel with an erratum does where it departs from the contract: rules at named points.

An erratum is a kept finding of a stock kernel (``corpus/regressions/expected.toml``) that has a rule here.  With rules
switched on, a relation predicts the behaviour of such a kernel and its consequences:
:func:`harness.relations.host.expected_entry_states`, :mod:`harness.relations.guest_debug`,
:mod:`harness.relations.memory_slots`, :mod:`harness.guest.el2_errata`.  A kept finding without a row here explains
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from harness.guest.el2_errata import (
    DROPS_LINES,
    DROPS_SERROR,
    NO_DEBUG,
    PVM_DROPS_LINES,
    PVM_REJECTS,
    SERROR_AGAIN,
)

SIGN_EXTENDED: Final = "esr-el1-sign-extended"
NO_VIRTUAL_ADDRESS: Final = "abort-beyond-ipa-space-has-no-virtual-address"
NO_WALK_ABORT: Final = "walk-abort-is-no-walk-abort"
SMALL_TABLE: Final = "small-table-walk-abort-never-comes"
PVM_WALK: Final = "protected-vm-walk-abort-never-comes"
LOSES_SIGN: Final = "mmio-load-loses-sign"
RESET_COMPLETES: Final = "reset-completes-pending-mmio"
RESET_KEEPS_BANKED: Final = "reset-keeps-banked-registers"
RESET_KEEPS_SERROR: Final = "reset-keeps-pending-serror"
RESET_KEEPS_ABORT: Final = "reset-keeps-pending-abort"
CPU_ON_KEEPS_SERROR: Final = "cpu-on-keeps-pending-serror"
ABORTED_COMPLETES: Final = "aborted-access-completes"
SERROR_UNDOES: Final = "serror-undoes-access"
IGNORES_SIZE: Final = "protected-mode-ignores-address-size"
STEP_OUTLIVES: Final = "step-pending-outlives-stepping"

SHARED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "esr-el1-sign-extended-above-40-bits": SIGN_EXTENDED,
        "protected-vm-walk-abort-of-a-fetch-never-comes": PVM_WALK,
    }
)
"""Kept findings that show another finding's rule at another place, with the id of that finding."""

_GPRS: Final = frozenset(f"host.x{i}" for i in range(31))
_STATE: Final = frozenset({"host.pc", "host.pstate"})
_EXCEPTION: Final = _STATE | {f"host.{name}_el1" for name in ("elr", "esr", "far", "spsr")}
_OF_A_STOP: Final = (
    *(f"x{i}" for i in range(31)),
    "pc",
    "pstate",
    "esr_el2",
    "far_el2",
    "spsr_el1",
    "elr_el1",
    "esr_el1",
)
"""Divergences of a run that does not end where userspace's debugging must stop it."""
_RESET: Final = frozenset({"RESET"})
_FIRST_OR_RESET: Final = _RESET | {"FIRST"}
_ABORTS: Final = frozenset({"DABT_LOW", "IABT_LOW"})
_DATA_ABORTS: Final = frozenset({"DABT_LOW", "forged:DABT_LOW"})


class Rule(NamedTuple):
    """Where a rule applies, and what the kernel does there.

    The erratum may cause a divergence with any name of ``shows`` at any exit class of ``classes`` (None: at all).
    ``outcome`` is the outcome of the round under the rule, as in ``save.class``; empty: as the contract requires.
    """

    shows: frozenset[str]
    classes: frozenset[str] | None
    point: str
    does: str
    outcome: str = ""


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        SIGN_EXTENDED: Rule(
            frozenset({"host.esr_el1"}),
            None,
            "an abort is injected (abort_state, external_abort)",
            "ESR_EL1 bits 63:32 are copies of bit 31",
        ),
        NO_VIRTUAL_ADDRESS: Rule(
            frozenset({"host.far_el1"}),
            _ABORTS,
            "an abort for an address beyond the VM's physical address space is injected",
            "FAR_EL1 is the guest physical address",
        ),
        NO_WALK_ABORT: Rule(
            frozenset({"host.esr_el1"}),
            _ABORTS,
            "an abort for a stage-1 walk outside every memory slot is injected",
            "ESR_EL1.FSC is 0x10",
        ),
        SMALL_TABLE: Rule(
            _EXCEPTION,
            _ABORTS,
            "an abort for a stage-1 walk in a first table that begins inside a granule is due",
            "nothing is injected: the guest goes on as it was, and walks again",
            "resume",
        ),
        PVM_WALK: Rule(
            _EXCEPTION,
            _ABORTS,
            "an abort for a stage-1 walk of a protected VM that read one of its tables is due",
            "nothing is injected: the guest goes on as it was, and walks again",
            "resume",
        ),
        LOSES_SIGN: Rule(
            _GPRS,
            _DATA_ABORTS | _RESET,
            "a load that trapped as MMIO is completed",
            "the data is zero-extended, whatever ESR_EL2.SSE says",
        ),
        RESET_COMPLETES: Rule(
            _GPRS | _STATE,
            _RESET,
            "KVM_ARM_VCPU_INIT while an MMIO access is pending",
            "the next KVM_RUN completes the access in the reset state",
        ),
        RESET_KEEPS_BANKED: Rule(
            frozenset({"host.sp_el1", "host.elr_el1", "host.spsr_el1"}),
            _FIRST_OR_RESET,
            "a reset",
            "SP_EL1, ELR_EL1 and SPSR_EL1 keep their values",
        ),
        RESET_KEEPS_SERROR: Rule(
            frozenset({"host.hcr_el2"}), _FIRST_OR_RESET, "KVM_ARM_VCPU_INIT", "HCR_EL2.VSE keeps its value"
        ),
        RESET_KEEPS_ABORT: Rule(
            _EXCEPTION,
            _FIRST_OR_RESET,
            "KVM_ARM_VCPU_INIT while an external abort is pending",
            "the next KVM_RUN enters the exception in the reset state; ESR_EL1 and FAR_EL1 are those of the reset",
        ),
        CPU_ON_KEEPS_SERROR: Rule(
            frozenset({"host.hcr_el2"}), _FIRST_OR_RESET, "a reset by PSCI CPU_ON", "HCR_EL2.VSE keeps its value"
        ),
        ABORTED_COMPLETES: Rule(
            _GPRS | {"host.pc"},
            _DATA_ABORTS | _RESET,
            "an external abort in place of an MMIO access, then KVM_RUN with immediate_exit",
            "the exception is entered, and the next KVM_RUN completes the access",
        ),
        SERROR_UNDOES: Rule(
            _GPRS | {"host.elr_el1"},
            _DATA_ABORTS | _RESET,
            "an SError that is not masked, while an MMIO access is pending",
            "the access is not completed, as for an external abort",
        ),
        IGNORES_SIZE: Rule(
            frozenset({"host.slot", "save.class", "save.pc"}),
            None,
            "KVM_SET_USER_MEMORY_REGION, and an access, beyond the VM's physical address space in protected mode",
            "that is as large as the CPU's",
        ),
        STEP_OUTLIVES: Rule(
            frozenset({"host.step_begins"}),
            None,
            "userspace steps a vCPU again, whose last step had left its exception pending, without ending debugging",
            "that exception is pending still: no step begins",
        ),
        DROPS_LINES: Rule(
            frozenset({"flush.hcr_el2", "switch.hcr_el2", "switch.pc"}),
            None,
            "protected mode: EL2 loads a vCPU",
            "HCR_EL2.VI and VF are clear, at the exit in the host's copy, too",
        ),
        DROPS_SERROR: Rule(
            frozenset({"flush.hcr_el2", "switch.hcr_el2", "switch.pc"}),
            None,
            "protected mode: EL2 loads a vCPU",
            "HCR_EL2.VSE is clear, at the exit in the host's copy, too",
        ),
        SERROR_AGAIN: Rule(
            frozenset({"sync.hcr_el2", "switch.hcr_el2"}),
            None,
            "protected mode: the host gets a vCPU back",
            "HCR_EL2.VSE in the host's copy is as it was at the entry",
        ),
        PVM_DROPS_LINES: Rule(
            frozenset({"flush.hcr_el2", "switch.hcr_el2", "switch.pc"}),
            None,
            "EL2 loads a protected VM's vCPU",
            "HCR_EL2.VI and VF are clear; in the host's copy they stay",
        ),
        NO_DEBUG: Rule(
            frozenset({*(f"switch.{name}" for name in _OF_A_STOP), "host.step_begins"}),
            None,
            "protected mode: EL2 runs a vCPU that userspace debugs by steps, breakpoints or watchpoints",
            "none of them happens; a BRK still goes to userspace",
        ),
        PVM_REJECTS: Rule(
            frozenset(
                {
                    "switch.ignored.mdscr_el1",
                    *(f"switch.undefined.{name}_el1" for name in ("actlr", "dbgbvr1", "dbgwvr3", "mdccint", "mdrar")),
                    *(f"switch.undefined.{name}" for name in ("dc_isw", "dc_csw", "dc_cisw", "mdccsr_el0")),
                }
            ),
            None,
            "a protected VM accesses a register that traps and is not in pvm_sys_reg_descs, or MDSCR_EL1",
            "EL2 gives it an undefined-instruction exception; of MDSCR_EL1 reads are 0 and writes ignored",
        ),
    }
)
"""By the id of the kept finding."""
NONE: Final[frozenset[str]] = frozenset()


def rule_of(finding: str) -> Rule | None:
    """Return the rule of a kept finding, None if it has none."""
    return RULES.get(SHARED.get(finding, finding))


_ANY_GPR: Final = re.compile(r"(?<=\.)x\d+$")


class TargetErrata(NamedTuple):
    """The kept findings of one target: ``rules`` are those that have one, ``gic`` those with one about the GIC.

    ``unruled`` are the divergences (name with ``xN`` for any general-purpose register, exit class or ``*``) of the
    others: whether such a divergence has another cause is undetermined.  ``elsewhere`` are the rules of kept findings
    that are recorded for other targets or releases only.
    """

    rules: frozenset[str] = NONE
    unruled: frozenset[tuple[str, str]] = frozenset()
    elsewhere: frozenset[str] = NONE
    gic: frozenset[str] = NONE

    def is_undecided(self, name: str, exit_class: str) -> bool:
        """Whether a kept finding without a rule shows such a divergence."""
        name = _ANY_GPR.sub("xN", name)
        return bool({(name, exit_class), (name, "*")} & self.unruled)


NO_ERRATA: Final = TargetErrata()


@lru_cache(maxsize=1 << 12)
def claimants(name: str, exit_class: str) -> frozenset[str]:
    """Return all errata that may be the cause of a divergence of that name (``host.pc``) at an exit of a class."""
    rules = RULES.items()
    return frozenset(
        each for each, rule in rules if name in rule.shows and (rule.classes is None or exit_class in rule.classes)
    )


def may_cause(errata: frozenset[str], name: str, exit_class: str) -> bool:
    """Whether one of the errata may be the cause of a divergence of that name (``host.pc``) at an exit of a class."""
    return not errata.isdisjoint(claimants(name, exit_class))
