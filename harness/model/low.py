# SPDX-License-Identifier: Apache-2.0
"""Define level ``low``: specifications composed of the primitives' (``*_spec0``; docs/spec/model.md sections 4 and 5).

VCPUOpsAux uses the primitives of AbstractMachine; VCPUOps uses them and VCPUOpsAux at level ``spec``.  Numbers are
unbounded.
"""

from __future__ import annotations

from harness.model import machine, spec
from harness.model.constants import (
    ACTLR_EL1,
    ARM_EXCEPTION_TRAP,
    DIRTY,
    DIRTY_PC_FLAG,
    EC,
    ELR_EL1,
    ESR_EL1,
    ESR_EL2,
    FAR_EL2,
    HPFAR_EL2,
    INVALID,
    INVALID64,
    KVM_ADDR_SPACE,
    MAX_MMIO_ADDR,
    MPIDR_EL1,
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
    ctxt_id,
    is_addr,
    is_gfn,
    is_int64,
    is_reg,
    is_vcpu,
    is_vm,
    is_vmid,
)
from harness.model.state import RData

# ---- VCPUOpsAux


def prep_wfx(d: RData, vmid: int, vcpuid: int) -> None:
    """``dirty := DIRTY_PC_FLAG``."""
    _rely_vm(d, vmid, vcpuid)
    machine.set_shadow_dirty_bit(d, vmid, vcpuid, DIRTY_PC_FLAG)


def prep_hvc(d: RData, vmid: int, vcpuid: int) -> None:
    """``dirty := 1``, reveal the arguments of the PSCI function in x0; SYSTEM_OFF powers the VM off."""
    _rely_vm(d, vmid, vcpuid)
    psci_fn0 = machine.get_shadow_ctxt(d, vmid, vcpuid, 0)
    d.rely("is_int64 x0", is_int64(psci_fn0))
    machine.set_shadow_dirty_bit(d, vmid, vcpuid, 1)
    machine.set_int_gpr(d, vmid, vcpuid, 0, psci_fn0)
    psci_fn = psci_fn0 & INVALID
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
        reg = machine.get_shadow_ctxt(d, vmid, vcpuid, i)
        d.rely(f"is_int64 x{i}", is_int64(reg))
        machine.set_int_gpr(d, vmid, vcpuid, i, reg)


def prep_abort(d: RData, vmid: int, vcpuid: int) -> None:
    """An MMIO read marks its register, anything else in MMIO space skips the instruction and reveals the register.

    Oddity (docs/spec/model.md section 4): outside MMIO space the result is the state *before* the query of the oracle.
    """
    _rely_vm(d, vmid, vcpuid)
    logn = d.data_log.get(vmid, 0)
    esr = machine.get_int_esr(d, vmid, vcpuid)
    d.rely("is_int64 esr", is_int64(esr))
    rd = (esr // 65536) & 31
    hpfar = machine.get_shadow_ctxt(d, vmid, vcpuid, HPFAR_EL2)
    d.rely("is_int64 hpfar_el2", is_int64(hpfar))
    d.rely("is_gfn (hpfar_el2 / 16)", is_gfn(hpfar // 16))
    fault_ipa = (hpfar // 16) * 4096
    if d.decide("prep_abort.mmio", fault_ipa < MAX_MMIO_ADDR):
        machine.set_shadow_dirty_bit(d, vmid, vcpuid, DIRTY_PC_FLAG)
        if d.decide("prep_abort.read", ((esr & ESR_ELx_WNR) == 0) & ((esr & ESR_ELx_S1PTW) == 0)):
            machine.set_shadow_dirty_bit(d, vmid, vcpuid, 1 << rd)
        else:
            rd = d.pick("prep_abort.rd", rd, 32)
            reg = machine.get_shadow_ctxt(d, vmid, vcpuid, rd)
            d.rely("is_int64 reg", is_int64(reg))
            machine.set_int_gpr(d, vmid, vcpuid, rd, reg)
    elif not d.halt:
        d.data_log[vmid] = logn


def sync_dirty_to_shadow(d: RData, vmid: int, vcpuid: int) -> None:
    """Take dirty general-purpose registers from the host.

    Oddity (docs/spec/model.md section 4): each iteration starts from the state at the loop's start, so only the effect
    of the last dirty iteration remains, including its position.
    """
    _rely_vm(d, vmid, vcpuid)
    dirty = machine.get_shadow_dirty_bit(d, vmid, vcpuid)
    key, logn = ctxt_id(vmid, vcpuid), d.data_log.get(vmid, 0)
    start = d.ctxt(key).copy()
    for i in range(31):
        if d.decide("sync_dirty_to_shadow.dirty", (dirty & (1 << i)) != 0):
            d.shadow_ctxts[key], d.data_log[vmid] = start.copy(), logn
            reg = machine.get_int_gpr(d, vmid, vcpuid, i)
            d.rely("is_int64 reg", is_int64(reg))
            machine.set_shadow_ctxt(d, vmid, vcpuid, i, reg)


def reset_gp_regs(d: RData, vmid: int, vcpuid: int) -> None:
    """First entry: PC from the host must lie in a boot image, else panic."""
    _rely_vm(d, vmid, vcpuid)
    pc = machine.get_int_pc(d, vmid, vcpuid)
    d.rely("is_int64 pc", is_int64(pc))
    load_info = machine.search_load_info(d, vmid, pc)
    d.rely("is_int64 load_info", is_int64(load_info))
    if d.decide("reset_gp_regs.no_image", load_info == 0):
        machine.panic(d)
        return
    machine.clear_shadow_gp_regs(d, vmid, vcpuid)
    pstate = machine.get_int_pstate(d, vmid, vcpuid)
    d.rely("is_int64 pstate", is_int64(pstate))
    machine.set_shadow_ctxt(d, vmid, vcpuid, PSTATE, pstate)
    machine.set_shadow_ctxt(d, vmid, vcpuid, PC, pc)
    machine.reset_fp_regs(d, vmid, vcpuid)


def reset_sys_regs(d: RData, vmid: int, vcpuid: int) -> None:
    """``set_shadow_ctxt(i, reset value)`` for ``i`` = 1..24.

    Oddity (docs/spec/model.md section 4): no ``SYSREGS_START`` in the index: ``x1..x24`` are written, without a query
    of the oracle.
    """
    _rely_vm(d, vmid, vcpuid)
    for i in range(1, SHADOW_SYS_REGS_SIZE + 1):
        d.rely("is_reg i", is_reg(i))
        if d.decide("reset_sys_regs.mpidr", i == MPIDR_EL1):
            value = (1 << 31) + (vcpuid & 15) + ((vcpuid // 16) & 255) * 256 + ((vcpuid // 4096) & 255) * 65536
        elif d.decide("reset_sys_regs.actlr", i == ACTLR_EL1):
            value = machine.read_actlr_el1(d)
        else:
            value = machine.get_sys_reg_desc_val(d, i)
        d.rely("is_int64 val", is_int64(value))
        machine.set_shadow_ctxt(d, vmid, vcpuid, i, value)


def update_exception_gp_regs(d: RData, vmid: int, vcpuid: int) -> None:
    """Enter the guest's exception vector for an undefined instruction."""
    _rely_vm(d, vmid, vcpuid)
    pstate = machine.get_shadow_ctxt(d, vmid, vcpuid, PSTATE)
    d.rely("is_int64 pstate", is_int64(pstate))
    pc = machine.get_shadow_ctxt(d, vmid, vcpuid, PC)
    d.rely("is_int64 pc", is_int64(pc))
    new_pc = machine.get_exception_vector(d, pstate)
    d.rely("is_int64 new_pc", is_int64(new_pc))
    machine.set_shadow_ctxt(d, vmid, vcpuid, ELR_EL1, pc)
    machine.set_shadow_ctxt(d, vmid, vcpuid, PC, new_pc)
    machine.set_shadow_ctxt(d, vmid, vcpuid, PSTATE, PSTATE_FAULT_BITS_64)
    machine.set_shadow_ctxt(d, vmid, vcpuid, SPSR_0, pstate)
    machine.set_shadow_ctxt(d, vmid, vcpuid, ESR_EL1, ESR_ELx_EC_UNKNOWN)


def post_handle_shadow_s2pt_fault(d: RData, vmid: int, vcpuid: int, addr: int) -> None:
    """Map the page that the host's walk found: ``pte`` and ``level`` are the next two core-oracle values."""
    _rely_vm(d, vmid, vcpuid)
    pte = machine.get_int_new_pte(d, vmid, vcpuid)
    d.rely("is_int64 pte", is_int64(pte))
    level = machine.get_int_new_level(d, vmid, vcpuid)
    d.rely("is_int64 level", is_int64(level))
    level2 = d.decide("post_handle_shadow_s2pt_fault.level2", level == 2)
    d.shared(machine.prot_and_map_vm_s2pt, vmid, addr, pte, 2 if level2 else 3)


# ---- VCPUOps


def save_shadow_kvm_regs(d: RData) -> None:
    """After an exit: run the helper of the exception class, or panic.

    Oddity (docs/spec/model.md section 5): the ESR is read through ``get_shadow_ctxt(72)``.
    """
    vmid = machine.get_cur_vmid(d)
    d.rely("is_vmid vmid", is_vmid(vmid))
    vcpuid = machine.get_cur_vcpuid(d)
    d.rely("is_vcpu vcpuid", is_vcpu(vcpuid))
    ec = machine.get_shadow_ctxt(d, vmid, vcpuid, EC)
    d.rely("is_int64 ec", is_int64(ec))
    if d.decide("save_shadow_kvm_regs.trap", ec == ARM_EXCEPTION_TRAP):
        hsr = machine.get_shadow_ctxt(d, vmid, vcpuid, ESR_EL2)
        d.rely("is_int64 hsr", is_int64(hsr))
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

    Oddity (docs/spec/model.md section 5): relies on ``is_addr pc`` before it adds 4, which does not wrap.
    """
    vmid = machine.get_cur_vmid(d)
    d.rely("is_vmid vmid", is_vmid(vmid))
    vcpuid = machine.get_cur_vcpuid(d)
    d.rely("is_vcpu vcpuid", is_vcpu(vcpuid))
    dirty = machine.get_shadow_ctxt(d, vmid, vcpuid, DIRTY)
    d.rely("is_int64 dirty", is_int64(dirty))
    if d.decide("restore_shadow_kvm_regs.reset", dirty == INVALID64):
        spec.reset_gp_regs(d, vmid, vcpuid)
        spec.reset_sys_regs(d, vmid, vcpuid)
        machine.set_shadow_dirty_bit(d, vmid, vcpuid, 0)
        return
    ec = machine.get_shadow_ctxt(d, vmid, vcpuid, EC)
    d.rely("is_int64 ec", is_int64(ec))
    if d.decide("restore_shadow_kvm_regs.trap", ec == ARM_EXCEPTION_TRAP):
        spec.sync_dirty_to_shadow(d, vmid, vcpuid)
    if d.decide("restore_shadow_kvm_regs.inject", (dirty & PENDING_EXCEPT_INJECT_FLAG) != 0):
        spec.update_exception_gp_regs(d, vmid, vcpuid)
    if d.decide("restore_shadow_kvm_regs.skip", (dirty & DIRTY_PC_FLAG) != 0):
        pc = machine.get_shadow_ctxt(d, vmid, vcpuid, PC)
        d.rely("is_addr pc", is_addr(pc))
        machine.set_shadow_ctxt(d, vmid, vcpuid, PC, pc + 4)
    machine.set_shadow_dirty_bit(d, vmid, vcpuid, 0)
    machine.set_shadow_ctxt(d, vmid, vcpuid, FAR_EL2, 0)
    addr = machine.get_vm_fault_addr(d, vmid, vcpuid)
    d.rely("is_int64 addr", is_int64(addr))
    if d.decide("restore_shadow_kvm_regs.map", (addr > 0) & (addr < KVM_ADDR_SPACE)):
        spec.post_handle_shadow_s2pt_fault(d, vmid, vcpuid, addr)


def _rely_vm(d: RData, vmid: int, vcpuid: int) -> None:
    d.rely("is_vm vmid", is_vm(vmid))
    d.rely("is_vcpu vcpuid", is_vcpu(vcpuid))
