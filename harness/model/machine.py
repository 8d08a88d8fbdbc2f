# SPDX-License-Identifier: Apache-2.0
"""Define the primitives of AbstractMachine for the levels spec, low and body (docs/spec/model.md section 3).

Unless a docstring says otherwise: when halted, getters return 0, oracles do not advance and setters do nothing;
otherwise ``is_vmid vmid`` and ``is_vcpu vcpuid`` are preconditions.  :mod:`harness.model.machine_kernel` has the same
names and signatures for the deployed C.
"""

from __future__ import annotations

from dataclasses import replace

from harness.model.constants import (
    FP,
    GPRS,
    INFO_ID,
    KVM_ADDR_SPACE,
    MAX_LOAD_INFO_NUM,
    POWEROFF,
    SHADOW_FIELD,
    ctxt_id,
    is_addr,
    is_int,
    is_int64,
    is_reg,
    is_vcpu,
    is_vmid,
)
from harness.model.locks import acquire, release
from harness.model.paging import prot_and_map_vm_s2pt as prot_and_map_vm_s2pt
from harness.model.state import Context, RData


def _context(d: RData, vmid: int, vcpuid: int) -> Context:
    d.rely("is_vmid vmid", is_vmid(vmid))
    d.rely("is_vcpu vcpuid", is_vcpu(vcpuid))
    return d.ctxt(ctxt_id(vmid, vcpuid))


def get_cur_vmid(d: RData) -> int:
    """The current VM; relies on nothing."""
    return 0 if d.decide("get_cur_vmid.halt", d.halt) else d.cur_vmid


def get_cur_vcpuid(d: RData) -> int:
    """The current vCPU; relies on nothing."""
    return 0 if d.halt else d.cur_vcpuid


def read_field(ctxt: Context, index: int) -> int:
    """``get_shadow_ctxt_specx``: 0 for an index outside the table, no bounds check (docs/spec/model.md section 2.2)."""
    name = SHADOW_FIELD.get(index)
    return 0 if name is None else ctxt[name]


def write_field(ctxt: Context, index: int, value: int) -> None:
    """``set_shadow_ctxt_specx``: an index outside the table changes nothing (docs/spec/model.md section 2.2)."""
    name = SHADOW_FIELD.get(index)
    if name is not None:
        ctxt[name] = value


def get_shadow_ctxt(d: RData, vmid: int, vcpuid: int, index: int) -> int:
    """A shadow register by index (docs/spec/model.md section 2.2)."""
    if d.halt:
        return 0
    return read_field(_context(d, vmid, vcpuid), index)


def set_shadow_ctxt(d: RData, vmid: int, vcpuid: int, index: int, value: int) -> None:
    """Write a shadow register by index (docs/spec/model.md section 2.2)."""
    if d.halt:
        return
    write_field(_context(d, vmid, vcpuid), index, value)


def get_shadow_esr(d: RData, vmid: int, vcpuid: int) -> int:
    """``esr_el2``."""
    if d.halt:
        return 0
    return _context(d, vmid, vcpuid)["esr_el2"]


def get_shadow_dirty_bit(d: RData, vmid: int, vcpuid: int) -> int:
    """``dirty``."""
    if d.halt:
        return 0
    return _context(d, vmid, vcpuid)["dirty"]


def set_shadow_dirty_bit(d: RData, vmid: int, vcpuid: int, value: int) -> None:
    """``dirty := value``."""
    if d.halt:
        return
    _context(d, vmid, vcpuid)["dirty"] = value


def _take_data(d: RData, vmid: int, vcpuid: int) -> int:
    if d.halt:
        return 0
    d.rely("is_vmid vmid", is_vmid(vmid))
    d.rely("is_vcpu vcpuid", is_vcpu(vcpuid))
    return d.take_data(vmid)


def get_int_gpr(d: RData, vmid: int, vcpuid: int, index: int) -> int:
    """The next value of the data oracle, whatever the index."""
    return _take_data(d, vmid, vcpuid)


def get_int_pc(d: RData, vmid: int, vcpuid: int) -> int:
    """The next value of the data oracle."""
    return _take_data(d, vmid, vcpuid)


def get_int_pstate(d: RData, vmid: int, vcpuid: int) -> int:
    """The next value of the data oracle."""
    return _take_data(d, vmid, vcpuid)


def get_int_esr(d: RData, vmid: int, vcpuid: int) -> int:
    """The next value of the data oracle."""
    return _take_data(d, vmid, vcpuid)


def set_int_gpr(d: RData, vmid: int, vcpuid: int, index: int, value: int) -> None:
    """Change nothing in the proof's state, also when halted; the model records the revealed value.

    A halted core reveals nothing, so nothing is recorded then.
    """
    if not d.halt:
        d.revealed.append((vmid, vcpuid, index, value))


def _take_core_data(d: RData, vmid: int, vcpuid: int) -> int:
    if d.halt:
        return 0
    d.rely("is_vmid vmid", is_vmid(vmid))
    d.rely("is_vcpu vcpuid", is_vcpu(vcpuid))
    return d.take_core_data(vmid)


def get_vm_fault_addr(d: RData, vmid: int, vcpuid: int) -> int:
    """The next value of the core data oracle."""
    return _take_core_data(d, vmid, vcpuid)


def get_int_new_pte(d: RData, vmid: int, vcpuid: int) -> int:
    """The next value of the core data oracle."""
    return _take_core_data(d, vmid, vcpuid)


def get_int_new_level(d: RData, vmid: int, vcpuid: int) -> int:
    """The next value of the core data oracle."""
    return _take_core_data(d, vmid, vcpuid)


def clear_shadow_gp_regs(d: RData, vmid: int, vcpuid: int) -> None:
    """``x0..x30 := 0``."""
    if d.halt:
        return
    ctxt = _context(d, vmid, vcpuid)
    for name in GPRS:
        ctxt[name] = 0


def reset_fp_regs(d: RData, vmid: int, vcpuid: int) -> None:
    """``fp_q*``, ``fp_fpsr``, ``fp_fpcr := 0``."""
    if d.halt:
        return
    ctxt = _context(d, vmid, vcpuid)
    for name in FP:
        ctxt[name] = 0


def get_sys_reg_desc_val(d: RData, index: int) -> int:
    """``reg_desc(index)``; relies on ``is_reg index`` only."""
    if d.halt:
        return 0
    d.rely("is_reg index", is_reg(index))
    return d.reg_desc(index)


def read_actlr_el1(d: RData) -> int:
    """The next data-oracle value of **cur_vmid**, not of any argument; relies on nothing."""
    if d.halt:
        return 0
    return d.take_data(d.cur_vmid)


def get_exception_vector(d: RData, pstate: int) -> int:
    """The parameter ``exception_vector(pstate)``; independent of halt and of the state."""
    return d.exception_vector(pstate)


def panic(d: RData) -> None:
    """``halt := true``."""
    d.halt = True


def is_inc_exe(d: RData, vmid: int) -> int:
    """``vm_inc_exe``, read in one round of the VM lock; relies on ``is_int`` of it."""
    if d.halt:
        return 0
    d.rely("is_vmid vmid", is_vmid(vmid))
    acquire(d, INFO_ID + vmid)
    inc_exe = d.info(vmid).vm_inc_exe
    d.rely("is_int inc_exe", is_int(inc_exe))
    release(d, INFO_ID + vmid)
    return inc_exe


def search_load_info(d: RData, vmid: int, addr: int) -> int:
    """The remapped address of ``addr`` in the *last* image that holds it, or 0; one round of the VM lock.

    Relies on ``is_vmid`` and ``is_int64 addr`` first; only then does halt give 0.
    """
    d.rely("is_vmid vmid", is_vmid(vmid))
    d.rely("is_int64 addr", is_int64(addr))
    if d.halt:
        return 0
    acquire(d, INFO_ID + vmid)
    info = d.info(vmid)
    num = info.vm_next_load_info
    d.rely("0 <= vm_next_load_info <= 5", (num >= 0) & (num <= MAX_LOAD_INFO_NUM))
    result = 0
    for image in info.images[:num]:
        d.rely("is_addr load_addr", is_addr(image.addr))
        d.rely("is_addr load_size", is_addr(image.size))
        d.rely("is_addr remap_addr", is_addr(image.remap))
        d.rely("remap + size <= 2^48", image.remap + image.size <= KVM_ADDR_SPACE)
        if d.decide("search_load_info.in_image", (addr >= image.addr) & (addr < image.addr + image.size)):
            result = addr - image.addr + image.remap
    release(d, INFO_ID + vmid)
    return result


def set_vm_poweroff(d: RData, vmid: int) -> None:
    """``vm_state := POWEROFF`` in one round of the VM lock; relies on ``is_vmid`` even when halted."""
    d.rely("is_vmid vmid", is_vmid(vmid))
    if d.halt:
        return
    acquire(d, INFO_ID + vmid)
    d.vminfos[vmid] = replace(d.info(vmid), vm_state=POWEROFF)
    release(d, INFO_ID + vmid, ("vm_state", POWEROFF))
