# SPDX-License-Identifier: Apache-2.0
"""List KVM's exit handlers as rows, and why scenarios never enter one, or never make the model decide something.

Names and classes: ``arm_exit_handlers`` and ``handle_exit_early`` in arch/arm64/kvm/handle_exit.c,
``hyp_exit_handlers`` in arch/arm64/kvm/hyp/nvhe/switch.c and hyp/vhe/switch.c.  A kernel has those of its release.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Handler:
    """A function of KVM that handles an exit, and the exception classes that lead to it (asm/esr.h)."""

    function: str
    classes: str


HANDLERS: tuple[Handler, ...] = (
    Handler("kvm_handle_wfx", "WFx"),
    Handler("kvm_handle_cp15_32", "CP15_32"),
    Handler("kvm_handle_cp15_64", "CP15_64"),
    Handler("kvm_handle_cp14_32", "CP14_MR"),
    Handler("kvm_handle_cp14_load_store", "CP14_LS"),
    Handler("kvm_handle_cp14_64", "CP14_64"),
    Handler("kvm_handle_cp10_id", "CP10_ID"),
    Handler("handle_hvc", "HVC32, HVC64"),
    Handler("handle_smc", "SMC32, SMC64"),
    Handler("handle_svc", "SVC64"),
    Handler("kvm_handle_sys_reg", "SYS64"),
    Handler("handle_sve", "SVE"),
    Handler("kvm_handle_eret", "ERET"),
    Handler("kvm_handle_guest_abort", "IABT_LOW, DABT_LOW"),
    Handler("kvm_handle_guest_debug", "SOFTSTP_LOW, WATCHPT_LOW, BREAKPT_LOW, BKPT32, BRK64"),
    Handler("handle_no_fpsimd", "FP_ASIMD"),
    Handler("kvm_handle_fpasimd", "FP_ASIMD"),
    Handler("kvm_handle_ptrauth", "PAC"),
    Handler("handle_other", "OTHER"),
    Handler("kvm_handle_gcs", "GCS"),
    Handler("kvm_handle_unknown_ec", "any other"),
    Handler("kvm_handle_guest_serror", "SERROR"),
    Handler("*kvm_hyp_handle_dabt_low", "DABT_LOW, at EL2"),
    Handler("*kvm_hyp_handle_memory_fault", "IABT_LOW, WATCHPT_LOW, at EL2"),
    Handler("*kvm_hyp_handle_sysreg*", "SYS64, at EL2"),
    Handler("*kvm_hyp_handle_cp15_32", "CP15_32, at EL2"),
    Handler("*kvm_hyp_handle_fpsimd", "FP_ASIMD, SVE, at EL2"),
    Handler("*kvm_hyp_handle_ptrauth", "PAC, at EL2"),
    Handler("*kvm_hyp_handle_mops", "MOPS, at EL2"),
    Handler("*kvm_hyp_handle_eret", "ERET, at EL2"),
)


_AT_EL2 = "at EL2"


@dataclass(frozen=True, slots=True)
class Handled:
    """What of KVM's code handles an exit: the function, and where that is said."""

    function: str
    listed: str

    def text(self, place: str = "") -> str:
        """Return it in words; ``place`` is the source line where the function begins, if that is known."""
        return f"{self.function} ({place}), {self.listed}" if place else f"{self.function}, {self.listed}"


_RESET = Handled("kvm_reset_vcpu", "for KVM_ARM_VCPU_INIT and PSCI CPU_ON, in arch/arm64/kvm/reset.c")


def handler_of(exit_class: str) -> Handled | None:
    """Return what of KVM handles an exit of a class (as signatures have it).

    None for a class that is not listed, such as that of an interrupt.
    """
    name = exit_class.removeprefix("forged:")
    if name in ("RESET", "FIRST"):
        return _RESET
    for handler in HANDLERS:
        classes = [one.strip().lower() for one in handler.classes.split(",")]
        if name.lower() in classes and _AT_EL2.lower() not in classes:
            return Handled(handler.function, "by arm_exit_handlers in arch/arm64/kvm/handle_exit.c")
    return None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something (a pattern of names) is never reached; ``todo``: it is possible, and not done yet."""

    what: str
    why: str
    source: str
    todo: bool = False


_AARCH32 = "only AArch32 code gets there, and scenarios are A64; the verified layer has no AArch32 guests either"
_NESTED = "only for a guest hypervisor: nested virtualisation, which the targets' CPUs do not have"
_NO_FEATURE = "the targets' CPUs do not have"

NEVER_ENTERED: tuple[Reason, ...] = (
    Reason("kvm_handle_cp1*", _AARCH32, "arch/arm64/kvm/handle_exit.c, arm_exit_handlers"),
    Reason("*kvm_hyp_handle_cp15_32", _AARCH32, "arch/arm64/kvm/hyp/include/hyp/switch.h"),
    Reason("handle_svc", _NESTED, "arch/arm64/kvm/handle_exit.c, handle_svc"),
    Reason("*handle_eret", _NESTED, "arch/arm64/kvm/handle_exit.c, kvm_handle_eret"),
    Reason("handle_sve", f"{_NO_FEATURE} FEAT_SVE", "QEMU target/arm/cpu64.c, cortex-a72 and a76"),
    Reason("*handle_ptrauth", f"{_NO_FEATURE} FEAT_PAuth", "QEMU target/arm/cpu64.c, cortex-a72 and a76"),
    Reason("handle_other", f"{_NO_FEATURE} FEAT_LS64 and profiling", "arch/arm64/kvm/handle_exit.c, handle_other"),
    Reason("kvm_handle_gcs", f"{_NO_FEATURE} FEAT_GCS", "arch/arm64/kvm/handle_exit.c, kvm_handle_gcs"),
    Reason("*handle_mops", f"{_NO_FEATURE} FEAT_MOPS", "arch/arm64/kvm/hyp/include/hyp/switch.h"),
    Reason(
        "handle_no_fpsimd",
        "only without a floating-point unit: with one, EL2 answers the first use (kvm_hyp_handle_fpsimd)",
        "arch/arm64/kvm/handle_exit.c, handle_no_fpsimd",
    ),
    Reason(
        "kvm_handle_fpasimd",
        "only without a floating-point unit, or for a guest hypervisor: EL2 answers the first use",
        "arch/arm64/kvm/handle_exit.c, kvm_handle_fpasimd",
    ),
    Reason(
        "kvm_handle_unknown_ec",
        "no instruction of an A64 guest on these CPUs traps with such a class",
        "arch/arm64/kvm/handle_exit.c, arm_exit_handlers",
    ),
    Reason(
        "kvm_handle_guest_serror",
        "needs an SError of the machine while the guest runs: a forged exit replaces what handle_exit gets, after it",
        "arch/arm64/kvm/handle_exit.c, handle_exit_early",
        todo=True,
    ),
    Reason(
        "*kvm_hyp_handle_fpsimd",
        "needs a guest step that uses a floating-point register",
        "arch/arm64/kvm/hyp/include/hyp/switch.h, kvm_hyp_handle_fpsimd",
        todo=True,
    ),
)

_NO_TABLES = "the record has no stage-2 tables, so that a replay says that KVM mapped nothing"
_REPLAY = "harness/model/replay.py"

NEVER_TAKEN: tuple[Reason, ...] = (
    Reason("*.halt=yes", "a replayed round begins with an exit that was seen: the machine is not halted", _REPLAY),
    Reason(
        "*.halt=no",
        "save and restore ask once; the helper asks again only where it is called by itself (the lemma campaign)",
        "harness/model/spec.py",
    ),
    Reason("*.hvc32=yes", _AARCH32, "arch/arm64/include/asm/esr.h, ESR_ELx_EC_HVC32"),
    *(
        Reason(f"{name}*", _NO_TABLES, _REPLAY, todo=True)
        for name in ("assign_pfn_to_vm.", "insert.", "post_handle_shadow_s2pt_fault.", "prot_and_map_vm_s2pt.")
    ),
    Reason("restore_shadow_kvm_regs.map=yes", _NO_TABLES, _REPLAY, todo=True),
)

NOT_SAID = "no reason is written down: a seed should reach it"


def reason(name: str, rows: Sequence[Reason]) -> Reason:
    """Return why something is never reached; a to-do where no row says so."""
    for row in rows:
        if fnmatchcase(name, row.what):
            return row
    return Reason(name, NOT_SAID, "", todo=True)
