# SPDX-License-Identifier: Apache-2.0
"""Define level ``spec``: closed forms (``*_spec``) of VCPUOpsAux and VCPUOps (docs/spec/model.md sections 4 and 5).

Compare it with :mod:`~harness.model.low`, :mod:`~harness.model.body` and :mod:`~harness.model.kernel`.  Numbers are
unbounded.
"""

from __future__ import annotations

from harness.model import machine
from harness.model.constants import (
    ACTLR_EL1,
    ARM_EXCEPTION_TRAP,
    DIRTY_PC_FLAG,
    FP,
    GPRS,
    INVALID,
    INVALID64,
    KVM_ADDR_SPACE,
    MAX_MMIO_ADDR,
    MPIDR_EL1,
    PENDING_EXCEPT_INJECT_FLAG,
    PSCI_0_2_FN64_AFFINITY_INFO,
    PSCI_0_2_FN64_CPU_ON,
    PSCI_0_2_FN_AFFINITY_INFO,
    PSCI_0_2_FN_SYSTEM_OFF,
    PSTATE_FAULT_BITS_64,
    SHADOW_SYS_REGS_SIZE,
    STATES,
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
    is_vcpu,
    is_vm,
    is_vmid,
)
from harness.model.state import Context, RData

# ---- VCPUOpsAux


def prep_wfx(d: RData, vmid: int, vcpuid: int) -> None:
    """``dirty := DIRTY_PC_FLAG``."""
    _rely_vm(d, vmid, vcpuid)
    if d.decide("prep_wfx.halt", d.halt):
        return
    _prep_wfx(d, vmid, vcpuid)


def prep_hvc(d: RData, vmid: int, vcpuid: int) -> None:
    """``dirty := 1``, reveal the arguments of the PSCI function in x0; SYSTEM_OFF powers the VM off."""
    _rely_vm(d, vmid, vcpuid)
    if d.decide("prep_hvc.halt", d.halt):
        return
    _prep_hvc(d, vmid, vcpuid)


def prep_abort(d: RData, vmid: int, vcpuid: int) -> None:
    """An MMIO read marks its register, anything else in MMIO space skips the instruction.

    Oddity (docs/spec/model.md section 4): the host's ESR is read, but ``data_log`` is never advanced, for MMIO or not.
    """
    _rely_vm(d, vmid, vcpuid)
    if d.decide("prep_abort.halt", d.halt):
        return
    _prep_abort(d, vmid, vcpuid)


def sync_dirty_to_shadow(d: RData, vmid: int, vcpuid: int) -> None:
    """Take every dirty general-purpose register from the host; for the oddity see :func:`sync_dirty_to_shadow_loop`."""
    _rely_vm(d, vmid, vcpuid)
    if d.decide("sync_dirty_to_shadow.halt", d.halt):
        return
    dirty = d.ctxt(ctxt_id(vmid, vcpuid))["dirty"]
    d.rely("is_int64 dirty", is_int64(dirty))
    d.shared(sync_dirty_to_shadow_loop, vmid, vcpuid, dirty)


def reset_gp_regs(d: RData, vmid: int, vcpuid: int) -> None:
    """First entry: PC from the host must lie in a boot image, else panic.

    Oddity (docs/spec/model.md section 4): relies on ``is_vmid`` where every other helper has ``is_vm``.
    """
    d.rely("is_vmid vmid", is_vmid(vmid))
    d.rely("is_vcpu vcpuid", is_vcpu(vcpuid))
    if d.decide("reset_gp_regs.halt", d.halt):
        return
    _reset_gp_regs(d, vmid, vcpuid)


def reset_sys_regs(d: RData, vmid: int, vcpuid: int) -> None:
    """Write reset values to the context; for the oddity see :func:`reset_sys_regs_loop`."""
    _rely_vm(d, vmid, vcpuid)
    if d.decide("reset_sys_regs.halt", d.halt):
        return
    reset_sys_regs_loop(d, vmid, vcpuid)


def update_exception_gp_regs(d: RData, vmid: int, vcpuid: int) -> None:
    """Enter the guest's exception vector for an undefined instruction."""
    _rely_vm(d, vmid, vcpuid)
    if d.decide("update_exception_gp_regs.halt", d.halt):
        return
    ctxt = d.ctxt(ctxt_id(vmid, vcpuid))
    pstate, pc = ctxt["pstate"], ctxt["pc"]
    new_pc = d.exception_vector(pstate)
    d.rely("is_int64 pstate", is_int64(pstate))
    d.rely("is_int64 pc", is_int64(pc))
    d.rely("is_int64 new_pc", is_int64(new_pc))
    _enter_exception(ctxt, pc, pstate, new_pc)


def post_handle_shadow_s2pt_fault(d: RData, vmid: int, vcpuid: int, addr: int) -> None:
    """Map the page that the host's walk found: ``pte`` and ``level`` are the next two core-oracle values."""
    _rely_vm(d, vmid, vcpuid)
    if d.decide("post_handle_shadow_s2pt_fault.halt", d.halt):
        return
    pte, level = d.core_data(vmid, 0), d.core_data(vmid, 1)
    d.rely("is_int64 pte", is_int64(pte))
    d.rely("is_int64 level", is_int64(level))
    d.take_core_data(vmid)
    d.take_core_data(vmid)
    level2 = d.decide("post_handle_shadow_s2pt_fault.level2", level == 2)
    d.shared(machine.prot_and_map_vm_s2pt, vmid, addr, pte, 2 if level2 else 3)


# ---- VCPUOps


def save_shadow_kvm_regs(d: RData) -> None:
    """After an exit: apply the specification of the exception class's helper, inlined, or panic.

    Oddity (docs/spec/model.md section 5): relies on ``is_vmid``, never on ``is_vm``.
    """
    if d.decide("save_shadow_kvm_regs.halt", d.halt):
        return
    vmid, vcpuid = d.cur_vmid, d.cur_vcpuid
    d.rely("is_vmid vmid", is_vmid(vmid))
    d.rely("is_vcpu vcpuid", is_vcpu(vcpuid))
    ctxt = d.ctxt(ctxt_id(vmid, vcpuid))
    ec = ctxt["ec"]
    d.rely("is_int64 ec", is_int64(ec))
    if d.decide("save_shadow_kvm_regs.trap", ec == ARM_EXCEPTION_TRAP):
        hsr = ctxt["esr_el2"]
        d.rely("is_int64 hsr", is_int64(hsr))
        hsr_ec = (hsr & ESR_ELx_EC_MASK) >> ESR_ELx_EC_SHIFT
        if d.decide("save_shadow_kvm_regs.wfx", hsr_ec == ESR_ELx_EC_WFx):
            _prep_wfx(d, vmid, vcpuid)
        elif d.decide("save_shadow_kvm_regs.hvc", (hsr_ec == ESR_ELx_EC_HVC32) | (hsr_ec == ESR_ELx_EC_HVC64)):
            _prep_hvc(d, vmid, vcpuid)
        elif d.decide("save_shadow_kvm_regs.abort", (hsr_ec == ESR_ELx_EC_IABT_LOW) | (hsr_ec == ESR_ELx_EC_DABT_LOW)):
            _prep_abort(d, vmid, vcpuid)
        else:
            machine.panic(d)


def restore_shadow_kvm_regs(d: RData) -> None:
    """Before an entry: reset if ``dirty`` is INVALID64, else apply the bits of ``dirty``, then map the faulting page.

    Oddities (docs/spec/model.md section 5): relies on ``is_vmid``, never on ``is_vm``; the ranges of PC, PSTATE and the
    vector are preconditions even when nothing is injected; with ``DIRTY_PC_FLAG`` the state part is built from the
    state *before* the injection, with the PC after it plus 4, while the register part keeps the injection; PC plus 4
    does not wrap.
    """
    if d.decide("restore_shadow_kvm_regs.halt", d.halt):
        return
    vmid, vcpuid = d.cur_vmid, d.cur_vcpuid
    d.rely("is_vmid vmid", is_vmid(vmid))
    d.rely("is_vcpu vcpuid", is_vcpu(vcpuid))
    ctxt = d.ctxt(ctxt_id(vmid, vcpuid))
    dirty = ctxt["dirty"]
    d.rely("is_int64 dirty", is_int64(dirty))
    if d.decide("restore_shadow_kvm_regs.reset", dirty == INVALID64):
        _reset_gp_regs(d, vmid, vcpuid)
        if d.halt:
            return
        reset_sys_regs_loop(d, vmid, vcpuid)
        ctxt["dirty"] = 0
        return
    ec = ctxt["ec"]
    d.rely("is_int64 ec", is_int64(ec))
    if d.decide("restore_shadow_kvm_regs.trap", ec == ARM_EXCEPTION_TRAP):
        d.shared(sync_dirty_to_shadow_loop, vmid, vcpuid, dirty)
    pstate, pc = ctxt["pstate"], ctxt["pc"]
    new_pc = d.exception_vector(pstate)
    d.rely("is_int64 pstate", is_int64(pstate))
    d.rely("is_int64 pc", is_int64(pc))
    d.rely("is_int64 new_pc", is_int64(new_pc))
    before = {name: ctxt[name] for name in STATES}
    if d.decide("restore_shadow_kvm_regs.inject", (dirty & PENDING_EXCEPT_INJECT_FLAG) != 0):
        _enter_exception(ctxt, pc, pstate, new_pc)
    if d.decide("restore_shadow_kvm_regs.skip", (dirty & DIRTY_PC_FLAG) != 0):
        after_pc = ctxt["pc"]
        ctxt.update(before)
        ctxt["pc"] = after_pc + 4
    ctxt["dirty"] = 0
    ctxt["far_el2"] = 0
    addr = d.core_data(vmid, 0)
    d.rely("is_int64 addr", is_int64(addr))
    d.take_core_data(vmid)
    if d.decide("restore_shadow_kvm_regs.map", (addr > 0) & (addr < KVM_ADDR_SPACE)):
        pte, level = d.core_data(vmid, 0), d.core_data(vmid, 1)
        d.rely("is_int64 pte", is_int64(pte))
        d.rely("is_int64 level", is_int64(level))
        d.take_core_data(vmid)
        d.take_core_data(vmid)
        level2 = d.decide("post_handle_shadow_s2pt_fault.level2", level == 2)
        d.shared(machine.prot_and_map_vm_s2pt, vmid, addr, pte, 2 if level2 else 3)


# ---- shared by the closed forms of both layers


def _rely_vm(d: RData, vmid: int, vcpuid: int) -> None:
    d.rely("is_vm vmid", is_vm(vmid))
    d.rely("is_vcpu vcpuid", is_vcpu(vcpuid))


def _prep_wfx(d: RData, vmid: int, vcpuid: int) -> None:
    d.ctxt(ctxt_id(vmid, vcpuid))["dirty"] = DIRTY_PC_FLAG


def _prep_hvc(d: RData, vmid: int, vcpuid: int) -> None:
    ctxt = d.ctxt(ctxt_id(vmid, vcpuid))
    psci_fn0 = ctxt["x0"]
    d.rely("is_int64 x0", is_int64(psci_fn0))
    ctxt["dirty"] = 1
    machine.set_int_gpr(d, vmid, vcpuid, 0, psci_fn0)
    psci_fn = psci_fn0 & INVALID
    if d.decide("prep_hvc.cpu_on", psci_fn == PSCI_0_2_FN64_CPU_ON):
        _reveal(d, vmid, vcpuid, ctxt, 3)
    elif d.decide(
        "prep_hvc.affinity_info",
        (psci_fn == PSCI_0_2_FN_AFFINITY_INFO) | (psci_fn == PSCI_0_2_FN64_AFFINITY_INFO),
    ):
        _reveal(d, vmid, vcpuid, ctxt, 2)
    elif d.decide("prep_hvc.system_off", psci_fn == PSCI_0_2_FN_SYSTEM_OFF):
        machine.set_vm_poweroff(d, vmid)


def _reveal(d: RData, vmid: int, vcpuid: int, ctxt: Context, last: int) -> None:
    for i in range(1, last + 1):
        d.rely(f"is_int64 x{i}", is_int64(ctxt[GPRS[i]]))
        machine.set_int_gpr(d, vmid, vcpuid, i, ctxt[GPRS[i]])


def _prep_abort(d: RData, vmid: int, vcpuid: int) -> None:
    ctxt = d.ctxt(ctxt_id(vmid, vcpuid))
    esr = d.data(vmid, 0)
    d.rely("is_int64 esr", is_int64(esr))
    rd = (esr // 65536) & 31
    hpfar = ctxt["hpfar_el2"]
    d.rely("is_gfn (hpfar_el2 / 16)", is_gfn(hpfar // 16))
    fault_ipa = (hpfar // 16) * 4096
    if d.decide("prep_abort.mmio", fault_ipa < MAX_MMIO_ADDR):
        if d.decide("prep_abort.read", ((esr & ESR_ELx_WNR) == 0) & ((esr & ESR_ELx_S1PTW) == 0)):
            ctxt["dirty"] = 1 << rd
        else:
            ctxt["dirty"] = DIRTY_PC_FLAG
            reg = machine.read_field(ctxt, d.pick("prep_abort.rd", rd, 32))
            d.rely("is_int64 reg", is_int64(reg))


def sync_dirty_to_shadow_loop(d: RData, vmid: int, vcpuid: int, dirty: int) -> None:
    """Take registers 0..30 whose bit is set in ``dirty`` from the host.

    Oddity (docs/spec/model.md section 4): *every* one of them takes the value at the same oracle position, that at the
    start; the position still advances by one for each.
    """
    ctxt, taken = d.ctxt(ctxt_id(vmid, vcpuid)), 0
    for i in range(31):
        if d.decide("sync_dirty_to_shadow.dirty", (dirty & (1 << i)) != 0):
            reg = d.data(vmid, 0)
            d.rely("is_int64 reg", is_int64(reg))
            ctxt[GPRS[i]] = reg
            taken += 1
    d.data_log[vmid] = d.data_log.get(vmid, 0) + taken


def _reset_gp_regs(d: RData, vmid: int, vcpuid: int) -> None:
    pc = d.data(vmid, 0)
    d.rely("is_int64 pc", is_int64(pc))
    load_info = machine.search_load_info(d, vmid, pc)
    d.rely("is_addr load_info", is_addr(load_info))
    d.take_data(vmid)
    if d.decide("reset_gp_regs.no_image", load_info == 0):
        machine.panic(d)
        return
    pstate = d.take_data(vmid)
    d.rely("is_int64 pstate", is_int64(pstate))
    ctxt = d.ctxt(ctxt_id(vmid, vcpuid))
    for name in GPRS:
        ctxt[name] = 0
    for name in FP:
        ctxt[name] = 0
    ctxt["pc"] = pc
    ctxt["pstate"] = pstate


def reset_sys_regs_loop(d: RData, vmid: int, vcpuid: int) -> None:
    """``set_shadow_ctxt(i, reset value)`` for ``i`` = 1..24.

    Oddity (docs/spec/model.md section 4): the index lacks ``SYSREGS_START``, so ``x1..x24`` are written, and neither
    MPIDR_EL1 (47) nor ACTLR_EL1 (50) is ever reached: the oracle is never queried.
    """
    ctxt = d.ctxt(ctxt_id(vmid, vcpuid))
    for i in range(1, SHADOW_SYS_REGS_SIZE + 1):
        if d.decide("reset_sys_regs.mpidr", i == MPIDR_EL1):
            value = mpidr(vcpuid)
        elif d.decide("reset_sys_regs.actlr", i == ACTLR_EL1):
            value = d.take_data(vmid)
        else:
            value = d.reg_desc(i)
        d.rely("is_int64 val", is_int64(value))
        machine.write_field(ctxt, i, value)


def mpidr(vcpuid: int) -> int:
    """The reset value of MPIDR_EL1."""
    return (1 << 31) + (vcpuid & 15) + ((vcpuid // 16) & 255) * 256 + ((vcpuid // 4096) & 255) * 65536


def _enter_exception(ctxt: Context, pc: int, pstate: int, new_pc: int) -> None:
    ctxt["elr_el1"] = pc
    ctxt["pc"] = new_pc
    ctxt["pstate"] = PSTATE_FAULT_BITS_64
    ctxt["spsr_0"] = pstate
    ctxt["esr_el1"] = ESR_ELx_EC_UNKNOWN
