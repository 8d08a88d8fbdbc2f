# SPDX-License-Identifier: Apache-2.0
"""Apply errata of EL2 to a run of the guest: interrupts that it drops, registers that it rejects, debugging.

In protected mode the hypervisor runs its own copy of each vCPU.  The rules here are errata of that copy; the others are
in :mod:`harness.relations.errata`, which also says which finding each belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.arch import a64, exceptions, sysregs
from harness.guest.debugger import Debugger
from harness.guest.el2_refusals import IGNORED, NONE, UNDEFINED

DROPS_LINES = "protected-mode-drops-interrupt-lines"
DROPS_SERROR = "protected-mode-drops-serror"
SERROR_AGAIN = "protected-mode-serror-comes-again"
PVM_DROPS_LINES = "protected-vm-drops-interrupt-lines"
PVM_REJECTS = "protected-vm-undefined-registers"
NO_DEBUG = "protected-mode-does-not-debug"

_LINES = exceptions.HCR_VI | exceptions.HCR_VF
_REJECTED: Mapping[str, str] = {
    # Registers of every EL1 that trap in a protected VM and have no row in pvm_sys_reg_descs, or one of RAZ_WI
    # (arch/arm64/kvm/hyp/nvhe/sys_regs.c of 7.3.4).
    **dict.fromkeys(("actlr_el1", "mdccint_el1", "mdccsr_el0", "mdrar_el1", "dbgbvr1_el1", "dbgwvr3_el1"), UNDEFINED),
    **dict.fromkeys(("dc_isw", "dc_csw", "dc_cisw"), UNDEFINED),
    "mdscr_el1": IGNORED,
}


def loaded(hcr: int, protected: bool, errata: frozenset[str]) -> int:
    """Return the virtual interrupts that EL2 loads at an entry; ``hcr`` are those in the host's HCR_EL2.

    Source: flush_hyp_vcpu and PKVM_HCR_EL2_HOST_PVM in arch/arm64/kvm/hyp/nvhe of 7.3.4.
    """
    if not errata or not hcr & exceptions.HCR_VIRTUAL:
        return hcr
    if DROPS_LINES in errata or (protected and PVM_DROPS_LINES in errata):
        hcr &= ~_LINES
    return hcr & ~exceptions.HCR_VSE if DROPS_SERROR in errata else hcr


def returned(left: int, hcr: int, protected: bool, errata: frozenset[str]) -> int:
    """Return the virtual interrupts in the host's HCR_EL2 after an exit.

    ``left`` are those that are still pending in the HCR_EL2 with which the guest ran, ``hcr`` those that the host had
    set.  Source: sync_hyp_vcpu in arch/arm64/kvm/hyp/nvhe/hyp-main.c of 7.3.4, which gives nothing back.
    """
    if not errata or not hcr & exceptions.HCR_VIRTUAL:
        return left
    if protected and PVM_DROPS_LINES in errata:
        left |= hcr & _LINES
    return left | hcr & exceptions.HCR_VSE if SERROR_AGAIN in errata else left


def debugged(debugger: Debugger | None, errata: frozenset[str]) -> Debugger | None:
    """Return the part of userspace's debugging that takes effect while the guest runs.

    Without it MDSCR_EL1 of EL2's copy has neither SS nor MDE: BRK alone goes to userspace, by MDCR_EL2.TDE.
    Source: flush_hyp_vcpu in arch/arm64/kvm/hyp/nvhe/hyp-main.c of 6.16 copies no external_mdscr_el1.
    """
    if debugger is None or NO_DEBUG not in errata:
        return debugger
    return Debugger(takes_brk=debugger.takes_brk)


def rejected(words: Iterable[int], errata: frozenset[str]) -> Mapping[int, str]:
    """Return those instructions of a protected VM's code that EL2 rejects, and how."""
    if PVM_REJECTS not in errata:
        return NONE
    accesses = [word for word in words if a64.mnemonic(word) in ("mrs", "msr")]
    rows = ((word, sysregs.BY_ENCODING.get(a64.system_register(word))) for word in accesses)
    return {word: _REJECTED[row.name] for word, row in rows if row is not None and row.name in _REJECTED}
