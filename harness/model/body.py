# SPDX-License-Identifier: Apache-2.0
"""Define level ``body``: the C code in the form that the proof uses (``*_body``; docs/spec/model.md sections 4 and 5).

Arithmetic is modulo 2^64 (2^32 for ids and indices).  A primitive's result that does not fit its C type is undefined:
:class:`~harness.model.state.Undefined` with a reason that starts with ``stuck:``.  VCPUOpsAux uses the primitives of
AbstractMachine; VCPUOps uses them and VCPUOpsAux at level ``spec``.
"""

from __future__ import annotations

from harness.model import machine, spec
from harness.model.constants import (
    ARM_EXCEPTION_TRAP,
    DIRTY,
    DIRTY_PC_FLAG,
    EC,
    ELR_EL1,
    ESR_EL1,
    FAR_EL2,
    HPFAR_EL2,
    INVALID,
    INVALID64,
    KERNEL_ACTLR_EL1,
    KERNEL_MPIDR_EL1,
    KVM_ADDR_SPACE,
    MASK32,
    MASK64,
    MAX_MMIO_ADDR,
    PC,
    PENDING_EXCEPT_INJECT_FLAG,
    PSCI_0_2_FN64_AFFINITY_INFO,
    PSCI_0_2_FN64_CPU_ON,
    PSCI_0_2_FN_AFFINITY_INFO,
    PSCI_0_2_FN_SYSTEM_OFF,
    PSTATE,
    PSTATE_FAULT_BITS_64,
    SHADOW_SYS_REGS_SIZE,
    SPSR_0,
    SYSREGS_START,
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
    is_int,
    is_int64,
)
from harness.model.state import RData

# ---- VCPUOpsAux


def prep_wfx(d: RData, vmid: int, vcpuid: int) -> None:
    """``dirty := DIRTY_PC_FLAG``."""
    machine.set_shadow_dirty_bit(d, vmid, vcpuid, DIRTY_PC_FLAG)


def prep_hvc(d: RData, vmid: int, vcpuid: int) -> None:
    """``dirty := 1``, reveal the arguments of the PSCI function in x0; SYSTEM_OFF powers the VM off."""
    psci_fn = _u64(d, "get_shadow_ctxt", machine.get_shadow_ctxt(d, vmid, vcpuid, 0))
    machine.set_shadow_dirty_bit(d, vmid, vcpuid, 1)
    machine.set_int_gpr(d, vmid, vcpuid, 0, psci_fn)
    psci_fn = psci_fn & INVALID
    if d.decide("prep_hvc.cpu_on", psci_fn == PSCI_0_2_FN64_CPU_ON):
        _reveal(d, vmid, vcpuid, 3)
    elif d.decide(
        "prep_hvc.affinity_info",
        (psci_fn == PSCI_0_2_FN_AFFINITY_INFO) | (psci_fn == PSCI_0_2_FN64_AFFINITY_INFO),
    ):
        _reveal(d, vmid, vcpuid, 2)
    elif d.decide("prep_hvc.system_off", psci_fn == PSCI_0_2_FN_SYSTEM_OFF):
        machine.set_vm_poweroff(d, vmid)


def _reveal(d: RData, vmid: int, vcpuid: int, last: int) -> None:
    for i in range(1, last + 1):
        reg = _u64(d, "get_shadow_ctxt", machine.get_shadow_ctxt(d, vmid, vcpuid, i))
        machine.set_int_gpr(d, vmid, vcpuid, i, reg)


def prep_abort(d: RData, vmid: int, vcpuid: int) -> None:
    """An MMIO read marks its register, anything else in MMIO space skips the instruction and reveals the register.

    Oddities (docs/spec/model.md section 4): the oracle is queried, for MMIO or not; the address is modulo 2^64; ``1 <<
    Rd`` is a signed 32-bit shift.
    """
    esr = _u64(d, "get_int_esr", machine.get_int_esr(d, vmid, vcpuid))
    rd = (esr // 65536) & 31
    hpfar = _u64(d, "get_shadow_ctxt", machine.get_shadow_ctxt(d, vmid, vcpuid, HPFAR_EL2))
    fault_ipa = ((hpfar // 16) * 4096) & MASK64
    if d.decide("prep_abort.mmio", fault_ipa < MAX_MMIO_ADDR):
        machine.set_shadow_dirty_bit(d, vmid, vcpuid, DIRTY_PC_FLAG)
        if d.decide("prep_abort.read", ((esr & ESR_ELx_WNR) == 0) & ((esr & ESR_ELx_S1PTW) == 0)):
            machine.set_shadow_dirty_bit(d, vmid, vcpuid, signed_bit(rd))
        else:
            rd = d.pick("prep_abort.rd", rd, 32)
            reg = _u64(d, "get_shadow_ctxt", machine.get_shadow_ctxt(d, vmid, vcpuid, rd))
            machine.set_int_gpr(d, vmid, vcpuid, rd, reg)


def signed_bit(n: int) -> int:
    """Return ``1 << n`` as a signed 32-bit shift, converted to 64 bits: bit 31 becomes 0xFFFF_FFFF_8000_0000."""
    bit = (1 << n) & MASK32
    return bit + (bit >> 31) * (MASK64 - MASK32)


def sync_dirty_to_shadow(d: RData, vmid: int, vcpuid: int) -> None:
    """Take every dirty general-purpose register from the host, each at its own oracle position."""
    dirty = _u64(d, "get_shadow_dirty_bit", machine.get_shadow_dirty_bit(d, vmid, vcpuid))
    for i in range(31):
        if d.decide("sync_dirty_to_shadow.dirty", (dirty & ((1 << i) & MASK32)) != 0):
            reg = _u64(d, "get_int_gpr", machine.get_int_gpr(d, vmid, vcpuid, i))
            machine.set_shadow_ctxt(d, vmid, vcpuid, i, reg)


def reset_gp_regs(d: RData, vmid: int, vcpuid: int) -> None:
    """First entry: PC from the host must lie in a boot image, else panic."""
    pc = _u64(d, "get_int_pc", machine.get_int_pc(d, vmid, vcpuid))
    load_info = _u64(d, "search_load_info", machine.search_load_info(d, vmid, pc))
    if d.decide("reset_gp_regs.no_image", load_info == 0):
        machine.panic(d)
        return
    machine.clear_shadow_gp_regs(d, vmid, vcpuid)
    pstate = _u64(d, "get_int_pstate", machine.get_int_pstate(d, vmid, vcpuid))
    machine.set_shadow_ctxt(d, vmid, vcpuid, PSTATE, pstate)
    machine.set_shadow_ctxt(d, vmid, vcpuid, PC, pc)
    machine.reset_fp_regs(d, vmid, vcpuid)


def reset_sys_regs(d: RData, vmid: int, vcpuid: int) -> None:
    """``set_shadow_ctxt(i + 47, reset value)`` for ``i`` = 1..24.

    Oddity (docs/spec/model.md section 4): MPIDR at ``i`` = 1 and ACTLR at ``i`` = 4 are the kernel's numbering, so in
    the proof's table the values land in the next register: MPIDR's in CSSELR_EL1 (48), ACTLR's in CPACR_EL1 (51).
    """
    for i in range(1, SHADOW_SYS_REGS_SIZE + 1):
        if d.decide("reset_sys_regs.mpidr", i == KERNEL_MPIDR_EL1):
            value = ((vcpuid & 15) + ((vcpuid // 16) & 255) * 256 + ((vcpuid // 4096) & 255) * 65536) & MASK64
            value = (value + (1 << 31)) & MASK64
        elif d.decide("reset_sys_regs.actlr", i == KERNEL_ACTLR_EL1):
            value = _u64(d, "read_actlr_el1", machine.read_actlr_el1(d))
        else:
            value = _u64(d, "get_sys_reg_desc_val", machine.get_sys_reg_desc_val(d, i))
        machine.set_shadow_ctxt(d, vmid, vcpuid, i + SYSREGS_START, value)


def update_exception_gp_regs(d: RData, vmid: int, vcpuid: int) -> None:
    """Enter the guest's exception vector for an undefined instruction."""
    pstate = _u64(d, "get_shadow_ctxt", machine.get_shadow_ctxt(d, vmid, vcpuid, PSTATE))
    pc = _u64(d, "get_shadow_ctxt", machine.get_shadow_ctxt(d, vmid, vcpuid, PC))
    new_pc = _u64(d, "get_exception_vector", machine.get_exception_vector(d, pstate))
    machine.set_shadow_ctxt(d, vmid, vcpuid, ELR_EL1, pc)
    machine.set_shadow_ctxt(d, vmid, vcpuid, PC, new_pc)
    machine.set_shadow_ctxt(d, vmid, vcpuid, PSTATE, PSTATE_FAULT_BITS_64)
    machine.set_shadow_ctxt(d, vmid, vcpuid, SPSR_0, pstate)
    machine.set_shadow_ctxt(d, vmid, vcpuid, ESR_EL1, ESR_ELx_EC_UNKNOWN)


def post_handle_shadow_s2pt_fault(d: RData, vmid: int, vcpuid: int, addr: int) -> None:
    """Map the page that the host's walk found: ``pte`` and ``level`` are the next two core-oracle values."""
    pte = _u64(d, "get_int_new_pte", machine.get_int_new_pte(d, vmid, vcpuid))
    level = _u64(d, "get_int_new_level", machine.get_int_new_level(d, vmid, vcpuid))
    level2 = d.decide("post_handle_shadow_s2pt_fault.level2", level == 2)
    d.shared(machine.prot_and_map_vm_s2pt, vmid, addr, pte, 2 if level2 else 3)


# ---- VCPUOps


def save_shadow_kvm_regs(d: RData) -> None:
    """After an exit: run the helper of the exception class, or panic.

    Oddity (docs/spec/model.md section 5): the ESR is read through ``get_shadow_esr``.
    """
    vmid = _u32(d, "get_cur_vmid", machine.get_cur_vmid(d))
    vcpuid = _u32(d, "get_cur_vcpuid", machine.get_cur_vcpuid(d))
    ec = _u64(d, "get_shadow_ctxt", machine.get_shadow_ctxt(d, vmid, vcpuid, EC))
    if d.decide("save_shadow_kvm_regs.trap", ec == ARM_EXCEPTION_TRAP):
        hsr = _u64(d, "get_shadow_esr", machine.get_shadow_esr(d, vmid, vcpuid))
        hsr_ec = (hsr & ESR_ELx_EC_MASK) >> ESR_ELx_EC_SHIFT
        if d.decide("save_shadow_kvm_regs.wfx", hsr_ec == ESR_ELx_EC_WFx):
            spec.prep_wfx(d, vmid, vcpuid)
        elif d.decide("save_shadow_kvm_regs.hvc32", hsr_ec == ESR_ELx_EC_HVC32) or d.decide(
            "save_shadow_kvm_regs.hvc64", hsr_ec == ESR_ELx_EC_HVC64
        ):
            spec.prep_hvc(d, vmid, vcpuid)
        elif d.decide("save_shadow_kvm_regs.iabt", hsr_ec == ESR_ELx_EC_IABT_LOW) or d.decide(
            "save_shadow_kvm_regs.dabt", hsr_ec == ESR_ELx_EC_DABT_LOW
        ):
            spec.prep_abort(d, vmid, vcpuid)
        else:
            machine.panic(d)


def restore_shadow_kvm_regs(d: RData) -> None:
    """Before an entry: reset if ``dirty`` is INVALID64, else apply the bits of ``dirty``, then map the faulting page.

    Oddities (docs/spec/model.md section 5): a VM with ``inc_exe`` is not reset, which costs a round of the VM lock
    (``is_inc_exe`` is not in the lemma's layer interface); the fault address must be at least 4096; PC plus 4 wraps.
    """
    vmid = _u32(d, "get_cur_vmid", machine.get_cur_vmid(d))
    vcpuid = _u32(d, "get_cur_vcpuid", machine.get_cur_vcpuid(d))
    dirty = _u64(d, "get_shadow_ctxt", machine.get_shadow_ctxt(d, vmid, vcpuid, DIRTY))
    if d.decide("restore_shadow_kvm_regs.reset", dirty == INVALID64):
        inc_exe = _u32(d, "is_inc_exe", machine.is_inc_exe(d, vmid))
        if d.decide("restore_shadow_kvm_regs.not_inc_exe", inc_exe == 0):
            spec.reset_gp_regs(d, vmid, vcpuid)
            spec.reset_sys_regs(d, vmid, vcpuid)
        machine.set_shadow_dirty_bit(d, vmid, vcpuid, 0)
        return
    ec = _u64(d, "get_shadow_ctxt", machine.get_shadow_ctxt(d, vmid, vcpuid, EC))
    if d.decide("restore_shadow_kvm_regs.trap", ec == ARM_EXCEPTION_TRAP):
        spec.sync_dirty_to_shadow(d, vmid, vcpuid)
    if d.decide("restore_shadow_kvm_regs.inject", (dirty & PENDING_EXCEPT_INJECT_FLAG) != 0):
        spec.update_exception_gp_regs(d, vmid, vcpuid)
    if d.decide("restore_shadow_kvm_regs.skip", (dirty & DIRTY_PC_FLAG) != 0):
        pc = _u64(d, "get_shadow_ctxt", machine.get_shadow_ctxt(d, vmid, vcpuid, PC))
        machine.set_shadow_ctxt(d, vmid, vcpuid, PC, (pc + 4) & MASK64)
    machine.set_shadow_dirty_bit(d, vmid, vcpuid, 0)
    machine.set_shadow_ctxt(d, vmid, vcpuid, FAR_EL2, 0)
    addr = _u64(d, "get_vm_fault_addr", machine.get_vm_fault_addr(d, vmid, vcpuid))
    if d.decide("restore_shadow_kvm_regs.map", (addr >= 4096) & (addr < KVM_ADDR_SPACE)):
        spec.post_handle_shadow_s2pt_fault(d, vmid, vcpuid, addr)


def _u64(d: RData, primitive: str, value: int) -> int:
    d.rely(f"stuck: {primitive} is not 64 bits", is_int64(value))
    return value


def _u32(d: RData, primitive: str, value: int) -> int:
    d.rely(f"stuck: {primitive} is not 32 bits", is_int(value))
    return value
