# SPDX-License-Identifier: Apache-2.0
"""What a cluster would mean for a VM, as rows: the first row that fits a cluster gives its words.

A row names what it fits by function (``*``: any), pair (``*``: any), and a word that must occur among the cluster's
fields, its reason for being undefined, or its fork.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.lemma.clusters import Cluster


@dataclass(frozen=True, slots=True)
class Meaning:
    """One row."""

    function: str
    pair: str
    word: str
    text: str

    def fits(self, cluster: Cluster) -> bool:
        """Whether this row speaks about the cluster."""
        q = cluster.question
        words = (*cluster.fields, cluster.undefined or "", cluster.fork, *(name for name, _ in cluster.case))
        return (
            self.function in ("*", q.function)
            and self.pair in ("*", ":".join(q.pair))
            and any(self.word in word for word in words)
        )


RESTORE, SAVE = "restore_shadow_kvm_regs", "save_shadow_kvm_regs"
MEANINGS: tuple[Meaning, ...] = (
    Meaning(
        "*",
        "*",
        "is_vm vmid",
        "The left side promises a result for the host's or the core's own context (VM 0 or 16); the right "
        "side promises nothing there.",
    ),
    Meaning(
        "*",
        "*",
        "is_addr pc",
        "A guest whose PC lies at or above 2^48 (any kernel in the upper half of the address space) and has "
        "an instruction skipped: the closed form gives a result, the layered specification is undefined, so "
        "nothing at all is proved about the entry of such a guest.",
    ),
    Meaning(
        "*",
        "*",
        "is_addr addr",
        "A halted core and a fault address outside the address space: only the closed form is defined. No "
        "VM can see it, the core is dead.",
    ),
    Meaning(
        "*",
        "*",
        "is_int inc_exe",
        "A boot flag that does not fit 32 bits: the code asks for it, its specification does not.",
    ),
    Meaning(
        "*",
        "*",
        "read_actlr_el1",
        "The code asks the host for ACTLR_EL1 on a reset; if the answer does not fit 64 bits the code is "
        "stuck. The specification never asks.",
    ),
    Meaning(
        "*",
        "*",
        "vcpuid above 3",
        "The deployed code stops the machine when a vCPU with number 4 or more is reset: the kernel has "
        "room for four vCPUs a VM.",
    ),
    Meaning(
        "*",
        "*",
        "stuck",
        "A number that fits no C type: the code is stuck where the specification goes on. Only states "
        "outside the machine's invariants have one.",
    ),
    Meaning(
        "*",
        "*",
        "reset_sys_regs.mpidr",
        "On a reset the specification writes the reset values into the general registers x1..x24 (its index "
        "lacks SYSREGS_START); the code writes system registers. A guest that starts by the specification "
        "gets garbage in x1..x24 and keeps stale system registers; what is deployed and what is proved are "
        "two different machines here.",
    ),
    Meaning(
        RESTORE,
        "low:body",
        "restore_shadow_kvm_regs.map",
        "A fault address in the first page (1..4095): the specification maps a page for the guest, the code "
        "does not. A guest that faults on guest page 0 is never given its page, or the proof counts a page "
        "as the VM's that the host still owns.",
    ),
    Meaning(
        RESTORE,
        "low:body",
        "log.info",
        "On a reset the code asks whether the VM is resumed from an image (inc_exe), in a lock round that "
        "the specification does not have: the logs differ. No register does.",
    ),
    Meaning(
        RESTORE,
        "low:body",
        "info.vm_inc_exe",
        "A VM that is resumed from an encrypted image (inc_exe set): the code leaves its registers alone, "
        "the specification resets them. The proof's VM starts at its boot image; the real one goes on where "
        "it was.",
    ),
    Meaning(
        RESTORE,
        "spec:low",
        "ctxt.pstate",
        "An instruction skip and an exception injection at once: the closed form builds the state from "
        "before the injection, so the guest enters its vector with its old PSTATE, SPSR and ESR (it might "
        "run its handler with interrupts on, or at EL0), the layered specification enters it properly.",
    ),
    Meaning(
        "prep_abort",
        "low:body",
        "ctxt.dirty",
        "An MMIO load into XZR (Rd = 31): the code shifts a signed 1, so every flag from bit 31 up is set. "
        "The entry after it injects an exception into a guest that only read a device register.",
    ),
    Meaning(
        "prep_abort",
        "*",
        "data_log",
        "The host's fault syndrome counts as read on one side and not on the other: every later value that "
        "the host hands over is taken from another position.",
    ),
    Meaning(
        "prep_abort",
        "*",
        "revealed",
        "An MMIO store: the layered code hands the stored register to the host, in the closed form only its "
        "precondition is left.",
    ),
    Meaning(
        "sync_dirty_to_shadow",
        "*",
        "ctxt",
        "More than one register comes back from the host: one side gives every register its own value, the "
        "other the first value to all of them, or keeps only the last register. A guest whose hypercall "
        "returns in x0..x3 resumes with wrong registers.",
    ),
    Meaning(
        "*",
        "spec:kernel",
        "vcpuid",
        "A vCPU with number 4 or more: the kernel has four vCPU slots a VM, so it works on the context of "
        "the next VM's vCPU. One VM's exit changes another VM's registers.",
    ),
    Meaning(
        "*",
        "spec:kernel",
        "powered_on",
        "SYSTEM_OFF: the proof sets the VM's state to POWEROFF, the kernel clears a flag of its own and "
        "leaves the state.",
    ),
    Meaning(
        "*",
        "spec:kernel",
        "prep_hvc.affinity_info",
        "AFFINITY_INFO has another number in the proof than in the PSCI standard: the proof reveals x1 and "
        "x2 for a call that no guest makes, and the kernel for the one that guests make.",
    ),
    Meaning(
        "prep_wfx",
        "spec:kernel",
        "ctxt.dirty",
        "The kernel ORs flags into those that are still pending; the proof forgets the pending ones.",
    ),
    Meaning(
        "prep_abort",
        "spec:kernel",
        "ctxt.dirty",
        "An MMIO load: the kernel also skips the instruction, the proof only takes the register, so the "
        "proof's guest would execute the load again.",
    ),
    Meaning(
        "prep_hvc",
        "spec:kernel",
        "ctxt.dirty",
        "A hypercall with an unknown function: the proof takes x0 back from the host, the kernel does not, "
        "so the guest never sees an answer.",
    ),
    Meaning(
        "*",
        "spec:kernel",
        "halt",
        "The proof's core panics and stops; the deployed panic prints a message and goes on.",
    ),
    Meaning(
        "*",
        "spec:kernel",
        "s2page",
        "The bookkeeping of a page given to a VM: the kernel keeps the page's content and share count and "
        "marks its own bits in the entry; the proof takes the content from the host.",
    ),
    Meaning(
        "*",
        "spec:kernel",
        "ctxt.x8",
        "The kernel's index of SPSR_0 is that of x8: an injected exception overwrites the guest's x8 with "
        "its PSTATE, and SPSR is lost.",
    ),
    Meaning(
        "*",
        "spec:kernel",
        "ctxt.actlr_el1",
        "The kernel's index of ESR_EL1 is that of ACTLR_EL1: an injected exception clears ACTLR_EL1, and "
        "the guest sees a stale ESR_EL1.",
    ),
    Meaning(
        "*",
        "spec:kernel",
        "ctxt.esr_el1",
        "An injected exception: the proof clears ESR_EL1, the kernel writes another register and leaves a "
        "stale syndrome.",
    ),
    Meaning(
        "update_exception_gp_regs",
        "spec:kernel",
        "ctxt.pc",
        "An injected exception: the kernel's vector is address 0, with another PSTATE; the guest does not "
        "arrive at its handler.",
    ),
    Meaning(
        RESTORE,
        "spec:kernel",
        "ctxt.flags",
        "The kernel clears its pending flags on every entry, the proof never does.",
    ),
    Meaning(
        "*",
        "spec:kernel",
        "ctxt.fp",
        "On a reset the kernel takes the floating point registers from the host's copy, the proof clears "
        "them: the host chooses what a fresh VM starts with.",
    ),
    Meaning(
        "reset_gp_regs",
        "spec:kernel",
        "ctxt",
        "The kernel clears 864 bytes where the general registers take 328: registers after them, pending "
        "flags and system registers among them, are lost on a reset.",
    ),
    Meaning(
        "*",
        "spec:low",
        "is_int64 new_pc",
        "A halted core and an exception vector that does not fit 64 bits: only the closed form is defined, "
        "for the vector is looked up without looking at halt. No VM can see it, the core is dead.",
    ),
    Meaning(
        SAVE,
        "spec:kernel",
        "revealed",
        "An MMIO store: the kernel hands the stored register to the host, in the closed form only its "
        "precondition is left.",
    ),
    Meaning(
        RESTORE,
        "spec:kernel",
        "ctxt.pstate",
        "An injected exception: the kernel's vector is address 0, with another PSTATE; the guest does not "
        "arrive at its handler.",
    ),
    Meaning(
        RESTORE,
        "spec:kernel",
        "ctxt.x1",
        "More than one register comes back from the host: the closed form gives the first value to all of them.",
    ),
    Meaning(
        RESTORE,
        "spec:kernel",
        "ctxt.pc",
        "An instruction skipped at the very top of the address space: the kernel's PC wraps to 0, the "
        "proof's no longer fits 64 bits.",
    ),
)
# What a difference in a field means when no row above fits.
FIELDS: tuple[tuple[str, str], ...] = (
    ("ctxt[", "The context of another vCPU changes on one side."),
    ("ctxt.pc", "The guest resumes at another address."),
    ("ctxt.pstate", "The guest resumes with another processor state."),
    ("ctxt.x", "The guest resumes with other general registers."),
    ("ctxt.dirty", "What is taken from the host before the next entry differs."),
    ("ctxt.", "The guest resumes with another system register."),
    ("revealed", "The host learns another set of registers."),
    ("halt", "One side stops the core and the other goes on."),
    ("data_log", "The two sides have taken a different number of values from the host."),
    ("log.", "The two sides go through different rounds of a lock."),
    ("npts", "The guest's memory map differs."),
    ("s2page", "The owner of a page differs."),
    ("", "The state of the machine differs."),
)


def meaning(cluster: Cluster) -> str:
    """What the cluster would mean for a VM, in a sentence or two."""
    for row in MEANINGS:
        if row.fits(cluster):
            return row.text
    if cluster.undefined is not None:
        return "The left side gives a result, the right side promises nothing: what was proved of the left is lost."
    return next(text for prefix, text in FIELDS if any(f.startswith(prefix) for f in cluster.fields) or not prefix)
