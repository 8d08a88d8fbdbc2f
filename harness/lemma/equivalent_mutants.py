# SPDX-License-Identifier: Apache-2.0
"""List why mutants of the model are equivalent; :mod:`~harness.lemma.equivalence` proves that they are.

A mutant that some state shows has no row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

EQUIVALENT = "same value"  # the changed text computes the same value, or one that no state keeps
SHARED_RELY = "relied on before"  # a precondition that every caller has checked already
UNUSED = "unused"  # a row that no function of the two layers reaches


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a mutant, named as the summary names it, computes the same."""

    mutant: str
    kind: str
    why: str


_LEVEL3 = "every level other than 2 counts as 3 (docs/spec/model.md section 8)"
_ADDR = "prot_and_map_vm_s2pt, the only caller, relies on is_addr addr (at level 2 on is_gfn of each page too)"
_VCPU = "is_vcpu bounds the number by 8, so its bits from 4 up are 0, and 0 times anything is 0"
_MPIDR = "the loop of the closed form ends at index 24 and never reaches MPIDR_EL1, which is 47"
_DEAD = "a halted core's value is never stored: every write looks at halt, and no branch distinguishes 0 from 1"
ROWS: tuple[Reason, ...] = (
    Reason("paging.py:65: left out: d.rely('is_gfn gfn', is_gfn(gfn))", SHARED_RELY, _ADDR),
    Reason("paging.py:110: left out: d.rely('is_addr addr', is_addr(addr))", SHARED_RELY, _ADDR),
    Reason(
        "machine.py:240: left out: d.rely('is_vmid vmid', is_vmid(vmid))",
        SHARED_RELY,
        "prep_hvc, the only caller, has read x0 through a primitive with the same precondition",
    ),
    Reason(
        "machine.py:101: left out: d.rely('is_vmid vmid', is_vmid(vmid))",
        SHARED_RELY,
        "every caller relies on it too, before or, with search_load_info in reset_gp_regs, right after",
    ),
    Reason(
        "paging.py:42: left out: d.rely('is_vmid vmid', is_vmid(vmid))",
        SHARED_RELY,
        "assign_pfn_to_vm and map_pfn_vm, which it calls next, rely on it before anything else",
    ),
    Reason(
        "constants.py:127: 'pmuselr_el0' and 'pmuserenr_el0' swapped",
        UNUSED,
        "neither layer reads or writes the two; the order is that of the record",
    ),
    Reason(
        "machine_kernel.py:85: 0 becomes 1",
        UNUSED,
        "on a halted core `dirty` reads as 0, so that no register is asked for",
    ),
    Reason("machine.py:66: 0 becomes 1", EQUIVALENT, _DEAD),
    Reason(
        "machine_kernel.py:90: 31 becomes 32",
        UNUSED,
        "register numbers come from a 5-bit field or a loop that ends at 30",
    ),
    Reason("low.py:199: 3 becomes 4", EQUIVALENT, _LEVEL3),
    Reason("paging.py:118: 3 becomes 4", EQUIVALENT, _LEVEL3),
    Reason("paging.py:83: 3 becomes 4", EQUIVALENT, _LEVEL3),
    Reason(
        "constants.py:169: 'spsr_irq' and 'spsr_fiq' swapped",
        UNUSED,
        "neither layer reads or writes the two by index, and the kernel's clearing takes both",
    ),
    Reason(
        "constants.py:175: 'tpidrro_el0' and 'tpidr_el1' swapped",
        EQUIVALENT,
        "the reset table gives both the same value (entries 16..19), and neither is used by index elsewhere",
    ),
    Reason("spec.py:331: FloorDiv becomes Mult", UNUSED, _MPIDR),
    Reason("spec.py:331: BitAnd becomes BitOr", UNUSED, _MPIDR),
    Reason("body.py:143: 256 becomes 257", EQUIVALENT, _VCPU),
    Reason(
        "machine_kernel.py:60: 0 becomes 1",
        UNUSED,
        "on a halted core save reads EC as 0 first, which is not a trap, and never asks for the ESR",
    ),
    Reason(
        "machine_kernel.py:121: 0 becomes 1",
        UNUSED,
        "the kernel takes the fault's address from HPFAR_EL2 and never calls this primitive "
        "(docs/spec/model.md section 4 post_handle_shadow_s2pt_fault)",
    ),
    Reason(
        "paging.py:43: left out: d.rely('is_addr addr', is_addr(addr))",
        SHARED_RELY,
        "is_gfn of addr / 4096, which assign_pfn_to_vm relies on next, is the same bound: 2^36 pages are 2^48 bytes",
    ),
    Reason(
        "machine_kernel.py:179: 0 becomes 1",
        EQUIVALENT,
        "a halted core takes the branch of an image that is found, in which every write looks at halt",
    ),
    Reason(
        "machine_kernel.py:131: 0 becomes 1",
        EQUIVALENT,
        "on a halted core the pte reads as 0, for which the kernel maps nothing, whatever the level",
    ),
    Reason(
        "low.py:242: left out: d.rely('is_vcpu vcpuid', is_vcpu(vcpuid))",
        SHARED_RELY,
        "get_shadow_ctxt, which reads DIRTY next, relies on it; on a halted core the id reads as 0",
    ),
    Reason(
        "low.py:144: left out: d.rely('is_int64 load_info', is_int64(load_info))",
        SHARED_RELY,
        "search_load_info relies on remap + size <= 2^48, so that its result is below 2^48",
    ),
    Reason(
        "low.py:112: 32 becomes 33",
        EQUIVALENT,
        "the limit of a register number that has five bits",
    ),
    Reason(
        "body.py:237: left out: d.rely(f'stuck: {primitive} is not 32 bits', is_int(value))",
        SHARED_RELY,
        "is_inc_exe relies on is_int of its result, and the primitives rely on is_vmid and is_vcpu of the two ids",
    ),
    Reason(
        "constants.py:26: 4227858432 becomes 4227858433",
        EQUIVALENT,
        "the class is shifted right by 26, which drops bit 0",
    ),
    Reason(
        "constants.py:187: 9 becomes 10",
        EQUIVALENT,
        "an index without a row reads as 0, and 10 takes its value from the next row of the table",
    ),
)
REASONS: Mapping[str, Reason] = MappingProxyType({row.mutant: row for row in ROWS})
