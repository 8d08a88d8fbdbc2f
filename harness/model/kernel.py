# SPDX-License-Identifier: Apache-2.0
"""Define level ``kernel``: the deployed C code over its own primitives (docs/spec/model.md sections 4 and 5).

It has no preconditions; ``kernel`` functions call only ``kernel`` functions.
"""

from __future__ import annotations

from harness.model import machine_kernel as machine
from harness.model.body import signed_bit
from harness.model.constants import (
    ARM_EXCEPTION_TRAP,
    DIRTY,
    DIRTY_PC_FLAG,
    EC,
    ELR_EL1,
    FAR_EL2,
    FLAGS,
    HPFAR_EL2,
    INVALID64,
    KERNEL_ACTLR_EL1,
    KERNEL_ESR_EL1,
    KERNEL_MPIDR_EL1,
    KERNEL_PSCI_0_2_FN64_AFFINITY_INFO,
    KERNEL_PSTATE_FAULT_BITS_64,
    KERNEL_SPSR_0,
    KERNEL_SYS_REGS_LAST,
    MASK32,
    MASK64,
    MAX_MMIO_ADDR,
    PC,
    PENDING_EXCEPT_INJECT_FLAG,
    PENDING_FSC_FAULT,
    PSCI_0_2_FN64_CPU_ON,
    PSCI_0_2_FN_AFFINITY_INFO,
    PSCI_0_2_FN_SYSTEM_OFF,
    PSTATE,
    SYSREGS_START,
    ESR_ELx_EC_BRK64,
    ESR_ELx_EC_DABT_LOW,
    ESR_ELx_EC_HVC32,
    ESR_ELx_EC_HVC64,
    ESR_ELx_EC_IABT_LOW,
    ESR_ELx_EC_MASK,
    ESR_ELx_EC_SHIFT,
    ESR_ELx_EC_UNKNOWN,
    ESR_ELx_EC_WFx,
    ESR_ELx_S1PTW,
    ESR_ELx_WNR,
)
from harness.model.state import RData

# ---- VCPUOpsAux


def prep_wfx(d: RData, vmid: int, vcpuid: int) -> None:
    """``dirty |= DIRTY_PC_FLAG``."""
    machine.set_shadow_dirty_bit(d, vmid, vcpuid, DIRTY_PC_FLAG)


def prep_hvc(d: RData, vmid: int, vcpuid: int) -> None:
    """Reveal x0 and the arguments of the PSCI function; SYSTEM_OFF powers the VM off.

    Oddities (docs/spec/model.md section 4): x0 is marked for known functions; AFFINITY_INFO has the standard's id.
    """
    x0 = machine.get_shadow_ctxt(d, vmid, vcpuid, 0)
    machine.set_int_gpr(d, vmid, vcpuid, 0, x0)
    psci_fn = x0 & MASK32
    if d.decide("prep_hvc.cpu_on", psci_fn == PSCI_0_2_FN64_CPU_ON):
        machine.set_shadow_dirty_bit(d, vmid, vcpuid, 1)
        _reveal(d, vmid, vcpuid, 3)
    elif d.decide(
        "prep_hvc.affinity_info",
        (psci_fn == PSCI_0_2_FN_AFFINITY_INFO) | (psci_fn == KERNEL_PSCI_0_2_FN64_AFFINITY_INFO),
    ):
        machine.set_shadow_dirty_bit(d, vmid, vcpuid, 1)
        _reveal(d, vmid, vcpuid, 2)
    elif d.decide("prep_hvc.system_off", psci_fn == PSCI_0_2_FN_SYSTEM_OFF):
        machine.set_shadow_dirty_bit(d, vmid, vcpuid, 1)
        machine.set_vm_poweroff(d, vmid)


def _reveal(d: RData, vmid: int, vcpuid: int, last: int) -> None:
    for i in range(1, last + 1):
        machine.set_int_gpr(d, vmid, vcpuid, i, machine.get_shadow_ctxt(d, vmid, vcpuid, i))


def prep_abort(d: RData, vmid: int, vcpuid: int) -> None:
    """An MMIO read marks its register, anything else in MMIO space skips the instruction and reveals the register.

    Oddities (docs/spec/model.md section 4): the dirty bits are ORed, so a read also skips; ``1 << Rd`` is a signed
    32-bit shift; register 31 is the guest's SP.
    """
    esr = machine.get_int_esr(d, vmid, vcpuid)
    rd = (esr // 65536) & 31
    fault_ipa = ((machine.get_shadow_ctxt(d, vmid, vcpuid, HPFAR_EL2) // 16) * 4096) & MASK64
    if d.decide("prep_abort.mmio", fault_ipa < MAX_MMIO_ADDR):
        machine.set_shadow_dirty_bit(d, vmid, vcpuid, DIRTY_PC_FLAG)
        if d.decide("prep_abort.read", ((esr & ESR_ELx_WNR) == 0) & ((esr & ESR_ELx_S1PTW) == 0)):
            machine.set_shadow_dirty_bit(d, vmid, vcpuid, signed_bit(rd))
        else:
            rd = d.pick("prep_abort.rd", rd, 32)
            machine.set_int_gpr(d, vmid, vcpuid, rd, machine.get_shadow_ctxt(d, vmid, vcpuid, rd))


def sync_dirty_to_shadow(d: RData, vmid: int, vcpuid: int) -> None:
    """Take every dirty general-purpose register from the host's copy; ``dirty`` is read as 32 bits."""
    dirty = machine.get_shadow_dirty_bit(d, vmid, vcpuid)
    for i in range(31):
        if d.decide("sync_dirty_to_shadow.dirty", (dirty & ((1 << i) & MASK32)) != 0):
            machine.set_shadow_ctxt(d, vmid, vcpuid, i, machine.get_int_gpr(d, vmid, vcpuid, i))


def reset_gp_regs(d: RData, vmid: int, vcpuid: int) -> None:
    """First entry: PC from the host must lie in a boot image; if not, only a message (its ``panic``)."""
    pc = machine.get_int_pc(d, vmid, vcpuid)
    load_info = machine.search_load_info(d, vmid, pc)
    if d.decide("reset_gp_regs.no_image", load_info == 0):
        machine.panic(d)
        return
    machine.clear_shadow_gp_regs(d, vmid, vcpuid)
    pstate = machine.get_int_pstate(d, vmid, vcpuid)
    machine.set_shadow_ctxt(d, vmid, vcpuid, PSTATE, pstate)
    machine.set_shadow_ctxt(d, vmid, vcpuid, PC, pc)
    machine.reset_fp_regs(d, vmid, vcpuid)


def reset_sys_regs(d: RData, vmid: int, vcpuid: int) -> None:
    """``set_shadow_ctxt(i + 47, reset value)``, ``i`` = 1..25 of the kernel (docs/spec/model.md section 4)."""
    for i in range(1, KERNEL_SYS_REGS_LAST + 1):
        if d.decide("reset_sys_regs.mpidr", i == KERNEL_MPIDR_EL1):
            value = (1 << 31) | (vcpuid & 15) | ((vcpuid >> 4) & 255) << 8 | ((vcpuid >> 12) & 255) << 16
        elif d.decide("reset_sys_regs.actlr", i == KERNEL_ACTLR_EL1):
            value = machine.read_actlr_el1(d)
        else:
            value = machine.get_sys_reg_desc_val(d, i)
        machine.set_shadow_ctxt(d, vmid, vcpuid, i + SYSREGS_START, value)


def update_exception_gp_regs(d: RData, vmid: int, vcpuid: int) -> None:
    """Enter the guest's exception vector, which is 0 here, for an undefined instruction.

    Oddity (docs/spec/model.md sections 2.2 and 4): in the kernel's index table ``V_SPSR_0`` (8) is ``x8`` and
    ``V_ESR_EL1`` (51) is ACTLR_EL1, so these two are what is written.
    """
    pstate = machine.get_shadow_ctxt(d, vmid, vcpuid, PSTATE)
    pc = machine.get_shadow_ctxt(d, vmid, vcpuid, PC)
    new_pc = machine.get_exception_vector(d, pstate)
    machine.set_shadow_ctxt(d, vmid, vcpuid, ELR_EL1, pc)
    machine.set_shadow_ctxt(d, vmid, vcpuid, PC, new_pc)
    machine.set_shadow_ctxt(d, vmid, vcpuid, PSTATE, KERNEL_PSTATE_FAULT_BITS_64)
    machine.set_shadow_ctxt(d, vmid, vcpuid, KERNEL_SPSR_0, pstate)
    machine.set_shadow_ctxt(d, vmid, vcpuid, KERNEL_ESR_EL1, ESR_ELx_EC_UNKNOWN)


def post_handle_shadow_s2pt_fault(d: RData, vmid: int, vcpuid: int, addr: int) -> None:
    """Map the page that the host's walk found, at the level of the walk.

    Oddity (docs/spec/model.md section 4): the C has no ``addr`` argument, it takes the address from ``hpfar_el2``.
    """
    addr = ((machine.get_shadow_ctxt(d, vmid, vcpuid, HPFAR_EL2) & (MASK64 - 0xF)) * 256) & MASK64
    pte = machine.get_int_new_pte(d, vmid, vcpuid)
    level = machine.get_int_new_level(d, vmid, vcpuid)
    d.shared(machine.prot_and_map_vm_s2pt, vmid, addr, pte, level)


# ---- VCPUOps


def save_shadow_kvm_regs(d: RData) -> None:
    """After an exit: run the helper of the exception class, or print a message; BRK64 is treated as WFx."""
    vmid = machine.get_cur_vmid(d)
    vcpuid = machine.get_cur_vcpuid(d)
    ec = machine.get_shadow_ctxt(d, vmid, vcpuid, EC)
    if d.decide("save_shadow_kvm_regs.trap", ec == ARM_EXCEPTION_TRAP):
        hsr = machine.get_shadow_esr(d, vmid, vcpuid)
        hsr_ec = (hsr & ESR_ELx_EC_MASK) >> ESR_ELx_EC_SHIFT
        if d.decide("save_shadow_kvm_regs.wfx", hsr_ec == ESR_ELx_EC_WFx):
            prep_wfx(d, vmid, vcpuid)
        elif d.decide("save_shadow_kvm_regs.hvc32", hsr_ec == ESR_ELx_EC_HVC32) or d.decide(
            "save_shadow_kvm_regs.hvc64", hsr_ec == ESR_ELx_EC_HVC64
        ):
            prep_hvc(d, vmid, vcpuid)
        elif d.decide("save_shadow_kvm_regs.iabt", hsr_ec == ESR_ELx_EC_IABT_LOW) or d.decide(
            "save_shadow_kvm_regs.dabt", hsr_ec == ESR_ELx_EC_DABT_LOW
        ):
            prep_abort(d, vmid, vcpuid)
        elif d.decide("save_shadow_kvm_regs.brk", hsr_ec == ESR_ELx_EC_BRK64):
            prep_wfx(d, vmid, vcpuid)
        else:
            machine.panic(d)


def restore_shadow_kvm_regs(d: RData) -> None:
    """Before an entry: reset if ``dirty`` is INVALID64, else apply the bits of ``dirty``, then map the faulting page.

    Oddities (docs/spec/model.md section 5): a failed image search does not stop the reset; registers are taken only if
    ``dirty`` is not 0; a bit of ``flags`` requests the mapping; ``flags`` are 0 at the end.
    """
    vmid = machine.get_cur_vmid(d)
    vcpuid = machine.get_cur_vcpuid(d)
    dirty = machine.get_shadow_ctxt(d, vmid, vcpuid, DIRTY)
    if d.decide("restore_shadow_kvm_regs.reset", dirty == INVALID64):
        reset_gp_regs(d, vmid, vcpuid)
        reset_sys_regs(d, vmid, vcpuid)
        machine.set_shadow_dirty_bit(d, vmid, vcpuid, 0)
        return
    ec = machine.get_shadow_ctxt(d, vmid, vcpuid, EC)
    if d.decide("restore_shadow_kvm_regs.trap", ec == ARM_EXCEPTION_TRAP) and d.decide(
        "restore_shadow_kvm_regs.any_dirty", dirty != 0
    ):
        sync_dirty_to_shadow(d, vmid, vcpuid)
    if d.decide("restore_shadow_kvm_regs.inject", (dirty & PENDING_EXCEPT_INJECT_FLAG) != 0):
        update_exception_gp_regs(d, vmid, vcpuid)
    if d.decide("restore_shadow_kvm_regs.skip", (dirty & DIRTY_PC_FLAG) != 0):
        pc = machine.get_shadow_ctxt(d, vmid, vcpuid, PC)
        machine.set_shadow_ctxt(d, vmid, vcpuid, PC, (pc + 4) & MASK64)
    machine.set_shadow_dirty_bit(d, vmid, vcpuid, 0)
    machine.set_shadow_ctxt(d, vmid, vcpuid, FAR_EL2, 0)
    flags = machine.get_shadow_ctxt(d, vmid, vcpuid, FLAGS)
    if d.decide("restore_shadow_kvm_regs.map", (flags & PENDING_FSC_FAULT) != 0):
        post_handle_shadow_s2pt_fault(d, vmid, vcpuid, 0)
    machine.set_shadow_ctxt(d, vmid, vcpuid, FLAGS, 0)
