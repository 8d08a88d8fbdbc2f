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
        "machine_kernel.py:84: 0 becomes 1",
        UNUSED,
        "on a halted core `dirty` reads as 0, so that no register is asked for",
    ),
    Reason("machine.py:66: 0 becomes 1", EQUIVALENT, _DEAD),
    Reason(
        "machine_kernel.py:89: 31 becomes 32",
        UNUSED,
        "register numbers come from a 5-bit field or a loop that ends at 30",
    ),
    Reason("low.py:198: 3 becomes 4", EQUIVALENT, _LEVEL3),
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
    Reason("spec.py:330: FloorDiv becomes Mult", EQUIVALENT, _VCPU),
    Reason("body.py:143: 256 becomes 257", EQUIVALENT, _VCPU),
    Reason(
        "machine_kernel.py:59: 0 becomes 1",
        UNUSED,
        "on a halted core save reads EC as 0 first, which is not a trap, and never asks for the ESR",
    ),
    Reason(
        "machine_kernel.py:120: 0 becomes 1",
        UNUSED,
        "the kernel takes the fault's address from HPFAR_EL2 and never calls this primitive "
        "(docs/spec/model.md section 4 post_handle_shadow_s2pt_fault)",
    ),
)
REASONS: Mapping[str, Reason] = MappingProxyType({row.mutant: row for row in ROWS})
