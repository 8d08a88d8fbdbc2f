# SPDX-License-Identifier: Apache-2.0
"""List the causes for which two levels differ, each with the region of the states that show it, as a formula.

The levels are those of docs/spec/model.md sections 3 to 5, 7 and 8; the rows where level kernel takes part are in
:mod:`~harness.lemma.causes_kernel`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from harness.lemma.formula import Formula

SAVE, RESTORE = "save_shadow_kvm_regs", "restore_shadow_kvm_regs"
LOW_BODY, SPEC_LOW = ("low:body",), ("spec:low",)
PARTS = MappingProxyType(
    {
        "state": "",
        "logs": "Only the log of a lock shows it.",
        "revealed": "Only `revealed` shows it, which is the model's own and not in the sources' RData.",
    }
)


@dataclass(frozen=True, slots=True)
class Cause:
    """A reason why a claim is false.

    ``pairs`` and ``functions``: the questions that it belongs to; ``region``: the states that show it; ``text``: what
    happens there; ``change``: the smallest change that removes it; ``part``: a row of :data:`PARTS`, what shows it.
    """

    name: str
    pairs: tuple[str, ...]
    functions: tuple[str, ...]
    region: str
    text: str
    change: str
    part: str = "state"

    @property
    def formula(self) -> Formula:
        """Return the region, parsed."""
        return _parsed(self.region)


@cache
def _parsed(region: str) -> Formula:
    return Formula(region)


_CODE_LEMMAS: tuple[Cause, ...] = (
    Cause(
        "MMIO abort outside MMIO space",
        LOW_BODY,
        ("prep_abort",),
        "not halt and ctxt.hpfar_el2 >= 0x400000",
        "The fault is not in MMIO space. The code has read the host's ESR before it looks at the address, so "
        "`data_log` is one further; the specification returns the state of before the read.",
        "prep_abort_spec0: in the last arm return adt', the state after get_int_esr, not adt.",
    ),
    Cause(
        "load into XZR",
        LOW_BODY,
        ("prep_abort",),
        "not halt and ctxt.hpfar_el2 < 0x400000 and (data[0] >> 16) & 31 == 31 and data[0] & 192 == 0",
        "An MMIO load with Rd = 31. The code shifts a signed 32-bit 1, so that `dirty` is 0xFFFF_FFFF_8000_0000, not "
        "bit 31 alone: the next entry injects an exception and skips an instruction.",
        "prep_abort (C): write 1UL << Rd.",
    ),
    Cause(
        "several registers",
        LOW_BODY,
        ("sync_dirty_to_shadow",),
        "not halt and registers(ctxt.dirty) >= 2",
        "More than one of x0..x30 is marked. Each round of the specification starts again from the state of before the "
        "loop, so that only the last marked register is taken and `data_log` is one further; the code takes each "
        "register, each with its own value.",
        "sync_dirty_to_shadow_loop0: get_int_gpr_spec on adt', the state of the round before, not on adt.",
    ),
    Cause(
        "dirty of 2^64 and more",
        LOW_BODY,
        ("sync_dirty_to_shadow",),
        "not halt and not is_int64(ctxt.dirty)",
        "`dirty` fits no C type. The code is stuck; the specification does not rely on is_int64 of it.",
        "sync_dirty_to_shadow_spec0: rely is_int64 dirty, as sync_dirty_to_shadow_spec does.",
    ),
    Cause(
        "index of the reset values",
        LOW_BODY,
        ("reset_sys_regs",),
        "not halt",
        "The specification writes the reset values to the indices 1..24, which are x1..x24: SYSREGS_START is missing. "
        "The code writes 48..71, system registers, and it asks the host for ACTLR_EL1, so that `data_log` of the "
        "current VM is one further. It compares with the kernel's numbers of MPIDR_EL1 and ACTLR_EL1 (1 and 4), the "
        "specification with the proof's (47 and 50), which its loop never reaches.",
        "reset_sys_regs_loop and reset_sys_regs_loop0: write to index i + SYSREGS_START, the MPIDR value at i = 1 and "
        "ACTLR_EL1 at i = 4, from the oracle of the current VM.",
    ),
    Cause(
        "fault in the first page",
        LOW_BODY,
        (RESTORE,),
        "not halt and ctxt.dirty != INVALID64 and 0 < core[0] < 4096",
        "The fault address that the host hands over is 1..4095. The specification maps a page for the guest "
        "(0 < addr), the code does not (4096 <= addr).",
        "restore_shadow_kvm_regs_spec0 and _spec: 4096 <= addr where they test 0 < addr.",
    ),
    Cause(
        "resumed VM",
        LOW_BODY,
        (RESTORE,),
        "not halt and ctxt.dirty == INVALID64 and info.vm_inc_exe != 0 and is_int(info.vm_inc_exe)",
        "The VM is resumed from an encrypted image (`vm_inc_exe` is not 0). The code leaves its registers as they are, "
        "the specification resets them.",
        "restore_shadow_kvm_regs_spec0 and _spec: ask is_inc_exe_spec first, and reset only where it is 0.",
    ),
    Cause(
        "inc_exe of 2^32 and more",
        LOW_BODY,
        (RESTORE,),
        "not halt and ctxt.dirty == INVALID64 and not is_int(info.vm_inc_exe)",
        "`vm_inc_exe` fits no C type. The code asks for it and is stuck; the specification does not look at it.",
        "The same change: is_inc_exe_spec relies on is_int of it.",
    ),
    Cause(
        "round of is_inc_exe",
        LOW_BODY,
        (RESTORE,),
        "not halt and ctxt.dirty == INVALID64",
        "On a reset the code calls is_inc_exe, which takes and gives back the lock of the VM: the log of that lock is "
        "four events longer than in the specification. Read strictly, the code is even stuck here: the layer `L` of "
        "the lemma has no is_inc_exe.",
        "The same change, and `is_inc_exe` in the layer `L` of the lemma.",
        part="logs",
    ),
)
_REFINEMENT: tuple[Cause, ...] = (
    Cause(
        "MMIO abort in MMIO space",
        SPEC_LOW,
        ("prep_abort",),
        "not halt and ctxt.hpfar_el2 < 0x400000",
        "An MMIO access. The closed form looks at the host's ESR and leaves `data_log` where it was; the layered form "
        "has taken the value.",
        "prep_abort_spec: advance data_log by one, as the code does for every abort.",
    ),
    Cause(
        "MMIO store",
        SPEC_LOW,
        ("prep_abort",),
        "not halt and ctxt.hpfar_el2 < 0x400000 and data[0] & 192 != 0",
        "An MMIO store. The layered form hands register Rd to the host (set_int_gpr); in the closed form only its "
        "precondition is left.",
        "None in the sources: set_int_gpr_spec is the identity of RData.",
        part="revealed",
    ),
    Cause(
        "several registers",
        SPEC_LOW,
        ("sync_dirty_to_shadow",),
        "not halt and registers(ctxt.dirty) >= 2",
        "More than one of x0..x30 is marked. The closed form gives every one of them the first value and advances "
        "`data_log` by their number; the layered form takes the last one only and advances by one.",
        "sync_dirty_to_shadow_loop: dorc at logn', the position after the rounds before, not at logn; and the change "
        "of sync_dirty_to_shadow_loop0.",
    ),
    Cause(
        "no VM",
        SPEC_LOW,
        ("reset_gp_regs",),
        "not is_vm(vmid)",
        "VM 0 (the host) or 16 (the core). The closed form relies on is_vmid, the layered form on is_vm.",
        "reset_gp_regs_spec: rely is_vm vmid.",
    ),
    Cause(
        "vector of a halted core",
        SPEC_LOW,
        ("update_exception_gp_regs",),
        "halt and not is_int64(vector(0))",
        "The core has panicked and the exception vector for PSTATE 0 fits no 64 bits. The layered form relies on "
        "is_int64 of the vector, for get_exception_vector does not look at halt. No VM can see it.",
        "get_exception_vector_spec: 0 if halt d, as every other getter.",
    ),
    Cause(
        "address on a halted core",
        SPEC_LOW,
        ("post_handle_shadow_s2pt_fault",),
        "halt and not is_addr(addr)",
        "The core has panicked and the address is 2^48 or more. The layered form relies on is_addr of it, for "
        "prot_and_map_vm_s2pt does so before it looks at halt. No VM can see it.",
        "post_handle_shadow_s2pt_fault_spec: rely is_addr addr before it looks at halt d.",
    ),
    Cause(
        "no VM",
        SPEC_LOW,
        (SAVE,),
        "not halt and not is_vm(vmid) and ctxt.ec == TRAP and (ctxt.esr_el2 >> 26) & 63 in (1, 18, 22, 32, 36)",
        "VM 0 or 16 exits with WFx, HVC32, HVC64 or an abort. The closed form relies on is_vmid, the layered form "
        "meets is_vm in the helper that it calls.",
        "save_shadow_kvm_regs_spec: rely is_vm vmid.",
    ),
    Cause(
        "no VM",
        SPEC_LOW,
        (RESTORE,),
        "not halt and not is_vm(vmid) and (ctxt.dirty == INVALID64 or ctxt.ec == TRAP or ctxt.dirty & INJECT != 0"
        " or 0 < core[0] < 0x1000000000000)",
        "VM 0 or 16 is reset, comes back from a trap, gets an exception or a page. The closed form relies on is_vmid, "
        "the layered form meets is_vm in the helper that it calls.",
        "restore_shadow_kvm_regs_spec: rely is_vm vmid.",
    ),
    Cause(
        "PC of 2^48 and more",
        SPEC_LOW,
        (RESTORE,),
        "not halt and ctxt.dirty != INVALID64 and ctxt.dirty & SKIP != 0"
        " and not is_addr(vector(ctxt.pstate) if ctxt.dirty & INJECT != 0 else ctxt.pc)",
        "An instruction is skipped and the PC is 2^48 or more, as in every kernel in the upper half of the address "
        "space. The layered form is undefined (rely is_addr pc), so that nothing is proved of the entry of such a "
        "guest; the closed form gives a result.",
        "restore_shadow_kvm_regs_spec0: rely is_int64 pc where it relies on is_addr pc; and _spec too: PC plus 4 "
        "modulo 2^64, as in the code.",
    ),
    Cause(
        "exception and skip",
        SPEC_LOW,
        (RESTORE,),
        "not halt and ctxt.dirty != INVALID64 and ctxt.dirty & SKIP != 0 and ctxt.dirty & INJECT != 0"
        " and not (ctxt.pstate == 965 and ctxt.spsr_0 == 965 and ctxt.esr_el1 == 0)",
        "An exception is injected and an instruction skipped in one entry. The closed form builds pstate, spsr_0 and "
        "esr_el1 of the skip from the state of before the injection: the guest is at its exception vector with its old "
        "PSTATE and without SPSR. The layered form keeps the injection.",
        "restore_shadow_kvm_regs_spec: in the arm of the skip build cstates''' from cstates'', the states of after the "
        "injection, not from cstates'.",
    ),
)
PROOF_CAUSES: tuple[Cause, ...] = (*_CODE_LEMMAS, *_REFINEMENT)
"""The causes of the pairs without level kernel."""
