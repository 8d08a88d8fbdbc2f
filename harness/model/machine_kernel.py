# SPDX-License-Identifier: Apache-2.0
"""Define the primitives of the deployed C (docs/spec/model.md section 3), signatures as in
:mod:`harness.model.machine`.

They have no preconditions and never halt.  Values that the proof takes from an oracle are read from the host-visible
copy.  Locks are acquired and released without a log: logs exist only at the proof levels.
"""

from __future__ import annotations

from dataclasses import replace

from harness.model.constants import (
    FP,
    KERNEL_FIELD,
    KERNEL_REG_DESC,
    KERNEL_VCPU_MAX,
    MASK32,
    MASK64,
    ctxt_id,
    kernel_ctxt_id,
)
from harness.model.paging_kernel import prot_and_map_vm_s2pt as prot_and_map_vm_s2pt
from harness.model.state import BLANK_WALK, Context, RData


def _context(d: RData, vmid: int, vcpuid: int) -> Context:
    """The context at ``vmid * 4 + vcpuid``, under the proof's key for it: vCPUs 4..7 alias the next VM's."""
    vm, vcpu = divmod(kernel_ctxt_id(vmid, vcpuid), KERNEL_VCPU_MAX)
    return d.ctxt(ctxt_id(vm, vcpu))


def get_cur_vmid(d: RData) -> int:
    """The current VM."""
    return 0 if d.decide("get_cur_vmid.halt", d.halt) else d.cur_vmid


def get_cur_vcpuid(d: RData) -> int:
    """The current vCPU."""
    return 0 if d.halt else d.cur_vcpuid


def get_shadow_ctxt(d: RData, vmid: int, vcpuid: int, index: int) -> int:
    """A shadow register by index, through the kernel's own table (docs/spec/model.md section 2.2)."""
    if d.halt:
        return 0
    return _context(d, vmid, vcpuid)[KERNEL_FIELD[index]]


def set_shadow_ctxt(d: RData, vmid: int, vcpuid: int, index: int, value: int) -> None:
    """Write a shadow register by index, through the kernel's own table (docs/spec/model.md section 2.2)."""
    if d.halt:
        return
    _context(d, vmid, vcpuid)[KERNEL_FIELD[index]] = value & MASK64


def get_shadow_esr(d: RData, vmid: int, vcpuid: int) -> int:
    """``esr_el2``, a 32-bit field."""
    if d.halt:
        return 0
    return _context(d, vmid, vcpuid)["esr_el2"] & MASK32


def get_shadow_dirty_bit(d: RData, vmid: int, vcpuid: int) -> int:
    """``dirty``, cut to 32 bits."""
    if d.halt:
        return 0
    return _context(d, vmid, vcpuid)["dirty"] & MASK32


def set_shadow_dirty_bit(d: RData, vmid: int, vcpuid: int, value: int) -> None:
    """``dirty := 0`` if ``value`` is 0, else ``dirty := dirty | value``."""
    if d.halt:
        return
    ctxt = _context(d, vmid, vcpuid)
    if d.decide("set_shadow_dirty_bit.zero", value == 0):
        ctxt["dirty"] = 0
    else:
        ctxt["dirty"] = ctxt["dirty"] | value


def get_int_gpr(d: RData, vmid: int, vcpuid: int, index: int) -> int:
    """The host-visible ``x[index]``; 31 is the host-visible ``sp``; 32 and up crashes."""
    if d.halt:
        return 0
    return d.host(vmid, vcpuid)[_host_gpr(d, index)]


def _host_gpr(d: RData, index: int) -> str:
    if index > 31:
        d.stop("stops: register index above 31")
    return "sp_el0" if index == 31 else f"x{index}"


def get_int_pc(d: RData, vmid: int, vcpuid: int) -> int:
    """The host-visible PC."""
    return 0 if d.halt else d.host(vmid, vcpuid)["pc"]


def get_int_pstate(d: RData, vmid: int, vcpuid: int) -> int:
    """The host-visible PSTATE."""
    return 0 if d.halt else d.host(vmid, vcpuid)["pstate"]


def get_int_esr(d: RData, vmid: int, vcpuid: int) -> int:
    """The host-visible ESR, 32 bits."""
    return 0 if d.halt else d.host(vmid, vcpuid)["esr_el2"] & MASK32


def set_int_gpr(d: RData, vmid: int, vcpuid: int, index: int, value: int) -> None:
    """The host-visible ``x[index] := value`` (31: ``sp``); 32 and up crashes."""
    if d.halt:
        return
    d.decide("set_int_gpr.sp", index == 31)
    d.host(vmid, vcpuid)[_host_gpr(d, index)] = value
    d.revealed.append((vmid, vcpuid, index, value))


def get_vm_fault_addr(d: RData, vmid: int, vcpuid: int) -> int:
    """The walk result in the host-visible vCPU: address."""
    return 0 if d.halt else d.walk.get(ctxt_id(vmid, vcpuid), BLANK_WALK)[0]


def get_int_new_pte(d: RData, vmid: int, vcpuid: int) -> int:
    """The walk result in the host-visible vCPU: page table entry."""
    return 0 if d.halt else d.walk.get(ctxt_id(vmid, vcpuid), BLANK_WALK)[1]


def get_int_new_level(d: RData, vmid: int, vcpuid: int) -> int:
    """The walk result in the host-visible vCPU: level."""
    return 0 if d.halt else d.walk.get(ctxt_id(vmid, vcpuid), BLANK_WALK)[2]


def clear_shadow_gp_regs(d: RData, vmid: int, vcpuid: int) -> None:
    """Zeroes 864 bytes from the start of the flat array, which has 41 * 8.

    So also far_el2, hpfar, hcr_el2, ec, dirty, flags and sys_regs[0..60]: 108 words in all.
    """
    if d.halt:
        return
    ctxt = _context(d, vmid, vcpuid)
    for name in KERNEL_FIELD[: 864 // 8]:
        ctxt[name] = 0


def reset_fp_regs(d: RData, vmid: int, vcpuid: int) -> None:
    """Copies them from the host-visible context; stops for ``vcpuid >= 4``."""
    if d.halt:
        return
    if d.decide("reset_fp_regs.no_such_vcpu", vcpuid >= KERNEL_VCPU_MAX):
        d.stop("stops: vcpuid above 3 in reset_fp_regs")
    ctxt, host = _context(d, vmid, vcpuid), d.host(vmid, vcpuid)
    for name in FP:
        ctxt[name] = host[name]


def get_sys_reg_desc_val(d: RData, index: int) -> int:
    """A table indexed by position; its order differs from the numbering, so values are written to other registers."""
    return 0 if d.halt else KERNEL_REG_DESC.get(index, 0)


def read_actlr_el1(d: RData) -> int:
    """The CPU's register."""
    return 0 if d.halt else d.regs["actlr_el1"]


def get_exception_vector(d: RData, pstate: int) -> int:
    """Returns 0."""
    return 0


def panic(d: RData) -> None:
    """Prints a message and returns; nothing halts."""


def search_load_info(d: RData, vmid: int, addr: int) -> int:
    """As in the proof, without preconditions; ``base + size`` wraps at 2^64."""
    if d.halt:
        return 0
    info, result = d.info(vmid), 0
    for image in info.images[: info.vm_next_load_info]:
        end = (image.addr + image.size) & MASK64
        if d.decide("search_load_info.in_image", (addr >= image.addr) & (addr < end)):
            result = (addr - image.addr + image.remap) & MASK64
    return result


def set_vm_poweroff(d: RData, vmid: int) -> None:
    """Clear the kernel's flag ``powered_on``; ``vm_state`` is unchanged."""
    if d.halt:
        return
    d.vminfos[vmid] = replace(d.info(vmid), powered_on=0)
