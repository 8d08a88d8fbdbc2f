# SPDX-License-Identifier: Apache-2.0
"""What a kernel with an erratum does where the contract says otherwise: rules at named points of relation ``host.*``.

An erratum is a kept finding of a stock kernel (``corpus/regressions/expected.toml``) that has a rule here.  With a rule
switched on, :func:`harness.relations.host.expected_entry_state` predicts what such a kernel does, so that what follows
from it is predicted, too.  A kept finding without a row here explains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

SIGN_EXTENDED = "esr-el1-sign-extended"
NO_VIRTUAL_ADDRESS = "abort-beyond-ipa-space-has-no-virtual-address"
NO_WALK_ABORT = "walk-abort-is-no-walk-abort"
LOSES_SIGN = "mmio-load-loses-sign"
RESET_COMPLETES = "reset-completes-pending-mmio"
RESET_KEEPS_BANKED = "reset-keeps-banked-registers"
RESET_KEEPS_SERROR = "reset-keeps-pending-serror"
CPU_ON_KEEPS_SERROR = "cpu-on-keeps-pending-serror"
ABORTED_COMPLETES = "aborted-access-completes"

_GPRS = frozenset(f"x{i}" for i in range(31))
_RESET = frozenset({"RESET"})
_ABORTS = frozenset({"DABT_LOW", "IABT_LOW"})
_DATA_ABORTS = frozenset({"DABT_LOW", "forged:DABT_LOW"})


class Rule(NamedTuple):
    """Where a rule applies, and what the kernel does there.

    The erratum may cause a divergence ``host.<register>/<class>``, with any of ``registers`` and of ``classes`` (None:
    of all).
    """

    registers: frozenset[str]
    classes: frozenset[str] | None
    point: str
    does: str


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        SIGN_EXTENDED: Rule(
            frozenset({"esr_el1"}),
            None,
            "an abort is injected (abort_state, external_abort)",
            "ESR_EL1 bits 63:32 are copies of bit 31",
        ),
        NO_VIRTUAL_ADDRESS: Rule(
            frozenset({"far_el1"}),
            _ABORTS,
            "an abort for an address beyond the VM's physical address space is injected",
            "FAR_EL1 is the guest physical address",
        ),
        NO_WALK_ABORT: Rule(
            frozenset({"esr_el1"}),
            _ABORTS,
            "an abort for a stage-1 walk outside every memory slot is injected",
            "ESR_EL1.FSC is 0x10",
        ),
        LOSES_SIGN: Rule(
            _GPRS,
            _DATA_ABORTS | _RESET,
            "a load that trapped as MMIO is completed",
            "the data is zero-extended, whatever ESR_EL2.SSE says",
        ),
        RESET_COMPLETES: Rule(
            _GPRS | {"pc", "pstate"},
            _RESET,
            "KVM_ARM_VCPU_INIT while an MMIO access is pending",
            "the next KVM_RUN completes the access in the reset state",
        ),
        RESET_KEEPS_BANKED: Rule(
            frozenset({"sp_el1", "elr_el1", "spsr_el1"}),
            _RESET,
            "a reset",
            "SP_EL1, ELR_EL1 and SPSR_EL1 keep their values",
        ),
        RESET_KEEPS_SERROR: Rule(frozenset({"hcr_el2"}), _RESET, "KVM_ARM_VCPU_INIT", "HCR_EL2.VSE keeps its value"),
        CPU_ON_KEEPS_SERROR: Rule(
            frozenset({"hcr_el2"}), _RESET, "a reset by PSCI CPU_ON", "HCR_EL2.VSE keeps its value"
        ),
        ABORTED_COMPLETES: Rule(
            _GPRS | {"pc"},
            _DATA_ABORTS | _RESET,
            "an external abort in place of an MMIO access, then KVM_RUN with immediate_exit",
            "the access is completed after the exception is entered",
        ),
    }
)
"""By the id of the kept finding."""
NONE: frozenset[str] = frozenset()


class TargetErrata(NamedTuple):
    """The kept findings of one target: ``rules`` are those that have one, ``gic`` those with one about the GIC.

    ``unruled`` are the divergences ``host.<register>/<class>`` (``*``: any class) of the others: whether such a one has
    another cause cannot be said.
    """

    rules: frozenset[str] = NONE
    unruled: frozenset[tuple[str, str]] = frozenset()
    gic: frozenset[str] = NONE

    def is_undecided(self, register: str, exit_class: str) -> bool:
        """Whether a kept finding without a rule shows such a divergence."""
        return bool({(register, exit_class), (register, "*")} & self.unruled)


NO_ERRATA = TargetErrata()


def may_cause(errata: frozenset[str], register: str, exit_class: str) -> bool:
    """Whether one of the errata may be the cause of a divergence ``host.<register>`` at an exit of a class."""
    rules = (RULES[name] for name in errata)
    return any(register in r.registers and (r.classes is None or exit_class in r.classes) for r in rules)
