# SPDX-License-Identifier: Apache-2.0
"""List the causes where the deployed C takes part (docs/spec/model.md sections 2.2 and 3 to 8); look a cause up."""

from __future__ import annotations

from harness.lemma.causes import PROOF_CAUSES, RESTORE, SAVE, Cause
from harness.lemma.clusters import Cluster
from harness.lemma.compare_levels import Question
from harness.model.constants import FP

ALL = ("spec:kernel", "low:kernel", "body:kernel")
SPEC = ALL[:1]
_FN = "ctxt.x0 & INVALID"
_CPU_ON, _OFF, _AFFINITY32 = "0xC4000003", "0x84000008", "0x84000004"
_PROOF64, _KERNEL64 = "0x40000004", "0xC4000004"
_HERE = "not halt and vcpuid < 4 and "
_ENTRY = "not halt and vcpuid < 4 and ctxt.dirty != INVALID64 and "
_EXIT = "not halt and vcpuid < 4 and ctxt.ec == TRAP and "
_CLASS = "(ctxt.esr_el2 >> 26) & 63"
_IS_HVC, _IS_ABORT = f"{_CLASS} in (18, 22) and ", f"{_CLASS} in (32, 36) and "
_MMIO = "(ctxt.hpfar_el2 // 16 * 4096) & INVALID64 < 0x40000000"
_READ, _WRITE = "host.esr_el2 & 192 == 0", "host.esr_el2 & 192 != 0"
_RD31 = "(host.esr_el2 >> 16) & 31 == 31"
# The code's 1 << 31 has every bit above as well, DIRTY_PC_FLAG among them.
_SAME31 = f"{_RD31} and ctxt.dirty | 0xFFFFFFFF80000000 == 0xFFFFFFFF80000000"
_LOAD = (
    "An MMIO load. The kernel ORs the register's bit to DIRTY_PC_FLAG, so that the instruction is skipped too; the "
    "proof forgets that flag and its guest executes the load again.",
    "Proof: set_shadow_dirty_bit_spec ORs, as the kernel's does.",
)
# What clear_shadow_gp_regs zeroes beyond x0..x30 and does not set afterwards.
_CLEARED = (
    *("sp_el0", "sp_el1", "elr_el1", "spsr_el1", "far_el2", "hpfar_el2", "hcr_el2", "ec", "dirty", "flags"),
    *("mpidr_el1", "csselr_el1", "sctlr_el1", "actlr_el1", "cpacr_el1", "ttbr0_el1", "ttbr1_el1", "tcr_el1"),
    *("esr_el1", "afsr0_el1", "afsr1_el1", "far_el1", "mair_el1", "vbar_el1", "contextidr_el1", "tpidr_el0"),
    *("tpidrro_el0", "tpidr_el1", "amair_el1", "cntkctl_el1", "par_el1", "mdscr_el1"),
)
_ANY_CLEARED = " | ".join(f"ctxt.{name}" for name in _CLEARED)
_ANY_FP = " | ".join(f"host.{name}" for name in FP)


def _twice(name: str, helper: str, guard: str, region: str, text: str, change: str) -> tuple[Cause, Cause]:
    """Return a cause of a helper, and of save on the exits that ``guard`` describes; for all pairs."""
    return (
        Cause(name, ALL, (helper,), _HERE + region, text, change),
        Cause(name, ALL, (SAVE,), _EXIT + guard + region, text, change),
    )


_VCPUS = (
    Cause(
        "vCPU 4 and up",
        ALL,
        (
            *("prep_wfx", "prep_hvc", "prep_abort", "sync_dirty_to_shadow", "reset_gp_regs", "reset_sys_regs"),
            *("update_exception_gp_regs", "post_handle_shadow_s2pt_fault", RESTORE),
        ),
        "not halt and vcpuid >= 4",
        "The kernel has four vCPU slots for each VM: context vmid * 4 + vcpuid is that of another VM. One VM's exit "
        "changes the registers of another one, and reset_fp_regs stops the machine.",
        "Kernel: VCPU_IDX as in the proof (8 for each VM), or reject vcpuid >= 4 where a vCPU is registered.",
    ),
    Cause(
        "vCPU 4 and up",
        ALL,
        (SAVE,),
        "not halt and vcpuid >= 4 and ctxt.ec == TRAP",
        "The kernel looks at the context of another VM (four vCPU slots for each VM) and sees no trap, or that one's.",
        "Kernel: VCPU_IDX as in the proof (8 for each VM), or reject vcpuid >= 4 where a vCPU is registered.",
    ),
)
_EXITS: tuple[Cause, ...] = (
    *_twice(
        "WFx keeps what is pending",
        "prep_wfx",
        f"{_CLASS} == 1 and ",
        "ctxt.dirty | SKIP != SKIP",
        "A WFx exit with bits of `dirty` still set. The kernel ORs DIRTY_PC_FLAG to them, the proof forgets them.",
        "Proof: set_shadow_dirty_bit_spec ORs, as the kernel's does.",
    ),
    *_twice(
        "known hypercall keeps what is pending",
        "prep_hvc",
        _IS_HVC,
        f"{_FN} in ({_CPU_ON}, {_AFFINITY32}, {_OFF}) and ctxt.dirty | 1 != 1",
        "A PSCI call with bits of `dirty` still set. The kernel ORs bit 0 to them, the proof forgets them.",
        "Proof: set_shadow_dirty_bit_spec ORs, as the kernel's does.",
    ),
    *_twice(
        "unknown hypercall",
        "prep_hvc",
        _IS_HVC,
        f"not ({_FN} in ({_CPU_ON}, {_AFFINITY32}, {_PROOF64}, {_KERNEL64}, {_OFF})) and ctxt.dirty != 1",
        "A hypercall that is no PSCI call of the list. The proof takes x0 back from the host, the kernel does not: the "
        "guest never sees an answer.",
        "Kernel: set_shadow_dirty_bit(vmid, vcpuid, 1) before the switch.",
    ),
    *_twice(
        "number of AFFINITY_INFO",
        "prep_hvc",
        _IS_HVC,
        f"{_FN} in ({_PROOF64}, {_KERNEL64})",
        "The 64-bit AFFINITY_INFO is 0x4000_0004 in the proof and 0xC400_0004, as in the PSCI standard, in the kernel. "
        "The proof reveals x1 and x2 for a call that no guest makes, the kernel for the one that guests make.",
        "Proof: PSCI_0_2_FN64_AFFINITY_INFO := 3288334340.",
    ),
    *_twice(
        "power-off",
        "prep_hvc",
        _IS_HVC,
        f"{_FN} == {_OFF}",
        "SYSTEM_OFF. The proof sets the VM's state to POWEROFF, the kernel clears a flag of its own.",
        "Kernel: set_vm_poweroff sets the state; or a `powered_on` in the proof's VM information.",
    ),
    Cause("MMIO load", ALL[:2], ("prep_abort",), f"{_HERE}{_MMIO} and {_READ}", *_LOAD),
    Cause("MMIO load", ALL[2:], ("prep_abort",), f"{_HERE}{_MMIO} and {_READ} and not ({_SAME31})", *_LOAD),
    Cause("MMIO load", ALL, (SAVE,), f"{_EXIT}{_IS_ABORT}{_MMIO} and {_READ}", *_LOAD),
    *(
        Cause(
            "store of SP",
            pairs,
            (function,),
            f"{region}{_MMIO} and {_WRITE} and {_RD31}",
            "An MMIO store with Rd = 31, which is XZR: the guest stores 0. The kernel's index 31 is SP_EL0, which it "
            "hands to the host; the closed form reveals nothing.",
            "Kernel: hand over 0 where Rd is 31.",
            part="revealed",
        )
        for pairs, function, region in ((SPEC, "prep_abort", _HERE), (ALL, SAVE, f"{_EXIT}{_IS_ABORT}"))
    ),
    Cause(
        "MMIO store",
        SPEC,
        ("prep_abort",),
        f"{_HERE}{_MMIO} and {_WRITE}",
        "An MMIO store. The kernel hands register Rd to the host; the closed form reveals nothing.",
        "None in the sources: set_int_gpr_spec is the identity of RData.",
        part="revealed",
    ),
    Cause(
        "MMIO store",
        ALL,
        (SAVE,),
        f"{_EXIT}{_IS_ABORT}{_MMIO} and {_WRITE}",
        "An MMIO store. The kernel hands register Rd to the host; the closed form of prep_abort, which save uses at "
        "every level of the proof, reveals nothing.",
        "None in the sources: set_int_gpr_spec is the identity of RData.",
        part="revealed",
    ),
    *_twice(
        "MMIO store keeps what is pending",
        "prep_abort",
        _IS_ABORT,
        f"{_MMIO} and {_WRITE} and ctxt.dirty | SKIP != SKIP",
        "An MMIO store with bits of `dirty` still set. The kernel ORs DIRTY_PC_FLAG to them, the proof forgets them.",
        "Proof: set_shadow_dirty_bit_spec ORs, as the kernel's does.",
    ),
    Cause(
        "store of SP",
        ("low:kernel", "body:kernel"),
        ("prep_abort",),
        f"{_HERE}{_MMIO} and {_WRITE} and {_RD31} and ctxt.sp_el0 != 0",
        "An MMIO store with Rd = 31, which is XZR: the guest stores 0. The kernel's index 31 is SP_EL0, which it hands "
        "to the host; the proof's index 31 is no register and reads as 0.",
        "Kernel: hand over 0 where Rd is 31.",
        part="revealed",
    ),
    Cause(
        "BRK",
        ALL,
        (SAVE,),
        f"{_EXIT}{_CLASS} == 60",
        "A BRK exit. The proof's core panics, the kernel treats it as WFx.",
        "Proof: BRK64 in the switch of save_shadow_kvm_regs.",
    ),
    Cause(
        "panic",
        ALL,
        (SAVE,),
        f"{_EXIT}not ({_CLASS} in (1, 18, 22, 32, 36, 60))",
        "An exit of another class. The proof's core panics and stops; the deployed panic prints a message and goes on.",
        "Kernel: panic stops the core.",
    ),
)
_ENTRIES: tuple[Cause, ...] = (
    Cause(
        "several registers",
        ("spec:kernel", "low:kernel"),
        ("sync_dirty_to_shadow",),
        f"{_HERE}registers(ctxt.dirty) >= 2",
        "More than one of x0..x30 is marked. The kernel gives each register its own value; the closed form gives every "
        "one the first value, the layered form takes only the last marked register.",
        "Proof: the k-th marked register takes doracle (data_log + k).",
    ),
    Cause(
        "several registers",
        ALL,
        (RESTORE,),
        f"{_ENTRY}ctxt.ec == TRAP and registers(ctxt.dirty) >= 2",
        "More than one of x0..x30 is marked. The kernel gives each register its own value; the closed form of "
        "sync_dirty_to_shadow, which restore uses at every level of the proof, gives every one the first value.",
        "Proof: the k-th marked register takes doracle (data_log + k).",
    ),
    Cause(
        "no image",
        ALL,
        ("reset_gp_regs",),
        f"{_HERE}load_info(host.pc) == 0",
        "The PC that the host asks for lies in no boot image. The proof's core panics; the kernel prints a message and "
        "goes on.",
        "Kernel: panic stops the core.",
    ),
    Cause(
        "clears too much",
        ALL,
        ("reset_gp_regs",),
        f"{_HERE}load_info(host.pc) != 0 and {_ANY_CLEARED} != 0",
        "clear_shadow_gp_regs zeroes 864 bytes where the general registers have 248: SP, ELR, pending flags and every "
        "system register are lost on a reset.",
        "Kernel: clear 31 * 8 bytes.",
    ),
    Cause(
        "floating point of the host",
        ALL,
        ("reset_gp_regs",),
        f"{_HERE}load_info(host.pc) != 0 and {_ANY_FP} != 0",
        "The kernel takes the floating point registers from the host's copy, the proof clears them: the host chooses "
        "what a fresh VM starts with.",
        "Kernel: clear them.",
    ),
    Cause(
        "reset values",
        ALL,
        ("reset_sys_regs",),
        "not halt and vcpuid < 4",
        "The kernel writes values of a table of its own, looked up by position, to its sys_regs[1..25]. The "
        "specification writes x1..x24, the code of the proof the registers at its own indices 48..71.",
        "One numbering: the proof's index table and the kernel's sys_regs[] as the same list.",
    ),
    Cause(
        "exception entry",
        ALL,
        ("update_exception_gp_regs",),
        "not halt and vcpuid < 4",
        "The kernel's vector is address 0 and its PSTATE 11, not 965; its index of SPSR_0 is x8 and that of ESR_EL1 is "
        "ACTLR_EL1. The guest does not arrive at its handler, and loses x8 and ACTLR_EL1.",
        "Kernel: VBAR_EL1 plus the mode's offset, PSTATE 0x3C5, and the indices of SPSR_0 and ESR_EL1.",
    ),
    Cause(
        "mapping",
        ALL,
        ("post_handle_shadow_s2pt_fault",),
        "not halt and vcpuid < 4",
        "The kernel marks its own bits in the entry (bit 56 or 55), keeps the page's content and share count, returns "
        "at once for pte 0 and stops at nothing; the proof takes the content from the host and panics on a conflict, "
        "a full pool, a shared page or another owner.",
        "Proof and kernel: one list of the bits of an entry; kernel: panic stops the core.",
    ),
    Cause(
        "address of the host",
        ALL,
        ("post_handle_shadow_s2pt_fault",),
        f"{_HERE}addr != (ctxt.hpfar_el2 // 16 * 4096) & INVALID64",
        "The proof maps at the address that it is given, which restore has from the host; the kernel maps at that of "
        "HPFAR_EL2, whatever the host says.",
        "Proof: take the address from hpfar_el2, as the kernel does.",
    ),
    Cause(
        "reset",
        ALL,
        (RESTORE,),
        "not halt and vcpuid < 4 and ctxt.dirty == INVALID64",
        "A reset: every cause of reset_gp_regs and reset_sys_regs. The kernel resets the system registers also where "
        "no image was found.",
        "The changes of reset_gp_regs and reset_sys_regs.",
    ),
    Cause(
        "exception entry",
        ALL,
        (RESTORE,),
        f"{_ENTRY}ctxt.dirty & INJECT != 0",
        "An injected exception: the cause of update_exception_gp_regs.",
        "The change of update_exception_gp_regs.",
    ),
    Cause(
        "PC wraps",
        SPEC,
        (RESTORE,),
        f"{_ENTRY}ctxt.dirty & SKIP != 0 and ctxt.pc > 0xFFFFFFFFFFFFFFFB",
        "An instruction is skipped at the top of the address space. The kernel's PC wraps to 0, that of the closed "
        "form is 2^64 and more.",
        "restore_shadow_kvm_regs_spec: PC plus 4 modulo 2^64.",
    ),
    Cause(
        "flags",
        ALL,
        (RESTORE,),
        f"{_ENTRY}ctxt.flags != 0",
        "The kernel clears its pending flags on every entry and maps a page where PENDING_FSC_FAULT is set; the proof "
        "keeps the flags, and maps where the fault address is not 0.",
        "Proof: flags := 0 on an entry; and the changes of post_handle_shadow_s2pt_fault.",
    ),
)
_LIES = tuple(
    Cause(
        "address of the host",
        pairs,
        (RESTORE,),
        f"{_ENTRY}ctxt.flags == 0 and {least} <= walk.addr < 0x1000000000000",
        "No fault of the guest is pending, and the host still hands over an address. The proof maps a page of "
        "the host's choice at that address of the guest; the kernel maps only where it has noted a fault itself "
        "(PENDING_FSC_FAULT), and at the address of HPFAR_EL2.",
        "Proof: ask flags for PENDING_FSC_FAULT, and take the address from hpfar_el2.",
    )
    for pairs, least in ((("spec:kernel", "low:kernel"), 1), (("body:kernel",), 4096))
)
KERNEL_CAUSES: tuple[Cause, ...] = (*_VCPUS, *_EXITS, *_ENTRIES, *_LIES)
"""The causes of the pairs with level kernel."""


def causes_of(question: Question) -> tuple[Cause, ...]:
    """Return the causes of a question, in the order of the table; without logs, not those that only a log shows."""
    pair = ":".join(question.pair)
    return tuple(
        c
        for c in (*PROOF_CAUSES, *KERNEL_CAUSES)
        if pair in c.pairs and question.function in c.functions and (question.logs or c.part != "logs")
    )


def cause_of(cluster: Cluster) -> Cause:
    """Return the cause in whose region the cluster's counterexample lies.

    Of several it is the one that what differs belongs to: only a reveal, only a log, or the state; then the first.
    Raises ``LookupError`` if it lies in none: the table of causes is then not complete.
    """
    case, part = dict(cluster.case), _part(cluster.fields)
    found = [c for c in causes_of(cluster.question) if c.formula.of_case(case)]
    if not found:
        raise LookupError(f"no cause for {cluster.question} on {case}")
    return next((c for c in found if c.part == part), found[0])


def _part(fields: tuple[str, ...]) -> str:
    """Return what alone shows a difference in these fields, a row of :data:`~harness.lemma.causes.PARTS`."""
    if fields == ("revealed",):
        return "revealed"
    return "logs" if fields and all(name.startswith("log.") for name in fields) else "state"
