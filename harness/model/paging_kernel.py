# SPDX-License-Identifier: Apache-2.0
"""Map a page in the deployed C (docs/spec/model.md section 8): no preconditions, no logs, no halting."""

from __future__ import annotations

from harness.model.constants import (
    HOSTVISOR,
    INVALID,
    KERNEL_BIT_LEVEL2,
    KERNEL_BIT_LEVEL3,
    MASK32,
    PAGE_GUEST,
    PAGE_SIZE,
    PGD_LIMIT,
    PMD_LIMIT,
    PMD_PAGE_NUM,
    PTRS_PER_PMD,
    PUD_LIMIT,
    phys_page,
)
from harness.model.paging import store_tables, table_indices
from harness.model.state import BLANK_ENTRY, BLANK_PAGE, Entry, RData, pool_start


def prot_and_map_vm_s2pt(d: RData, vmid: int, addr: int, pte: int, level: int) -> None:
    """As in the proof, but return at once if ``pte`` is 0; the mapping is always attempted."""
    if d.decide("prot_and_map_vm_s2pt.pte_zero", pte == 0):
        return
    pfn, gfn = phys_page(pte) // PAGE_SIZE, addr // PAGE_SIZE
    if d.decide("prot_and_map_vm_s2pt.level2", level == 2):
        gfn = gfn // PTRS_PER_PMD * PTRS_PER_PMD
        for i in range(PMD_PAGE_NUM):
            assign_pfn_to_vm(d, vmid, gfn + i, pfn + i)
        map_pfn_vm(d, vmid, addr, pte, 2)
    else:
        assign_pfn_to_vm(d, vmid, gfn, pfn)
        map_pfn_vm(d, vmid, addr, pte, 3)


def assign_pfn_to_vm(d: RData, vmid: int, gfn: int, pfn: int) -> None:
    """Make the VM the owner of a page of the host: count and content are unchanged, the host's mapping is replaced.

    For a page of the VM itself, equal gfn (compared through a 32-bit getter) and a count of 0xFFFFFFFF make the count
    0.  Anything else, and a pfn outside RAM: at most a message.
    """
    if d.decide("assign_pfn_to_vm.outside_ram", (pfn < d.ram[0]) | (pfn >= d.ram[1])):
        return
    owner, count, old_gfn = d.s2page.get(pfn, BLANK_PAGE)
    if d.decide("assign_pfn_to_vm.host_owns", owner == HOSTVISOR):
        if d.decide("assign_pfn_to_vm.unshared", count == 0):
            d.s2page[pfn] = (vmid, count, gfn)
            _, level, pte = d.npt(HOSTVISOR).pt.get(pfn, BLANK_ENTRY)
            if d.decide("assign_pfn_to_vm.host_mapped", (level != 0) & (phys_page(pte) != 0)):
                insert(d, HOSTVISOR, pfn * PAGE_SIZE, 3, PAGE_GUEST | KERNEL_BIT_LEVEL3)
    elif d.decide("assign_pfn_to_vm.vm_owns", (owner == vmid) & (gfn == (old_gfn & MASK32))):  # noqa: SIM102
        if d.decide("assign_pfn_to_vm.count_invalid", count == INVALID):
            d.s2page[pfn] = (owner, 0, old_gfn)


def map_pfn_vm(d: RData, vmid: int, addr: int, pte: int, level: int) -> None:
    """Insert ``paddr + 0xFFF`` with bit 56 (level 3) or bit 55 (level 2) into the VM's map."""
    bit = KERNEL_BIT_LEVEL2 if level == 2 else KERNEL_BIT_LEVEL3
    insert(d, vmid, addr, level, phys_page(pte) + 0xFFF + bit)


def insert(d: RData, vmid: int, addr: int, level: int, pte: int) -> None:
    """Insert an entry; a level conflict or an exhausted pool prints a message and stores nothing."""
    npt, pool = d.npt(vmid), pool_start(vmid)
    pgd, pud, pmd = table_indices(addr)
    pfn, gfn = phys_page(pte) // PAGE_SIZE, addr // PAGE_SIZE
    conflict = (pgd, pud, pmd) in npt.pmd_t if level == 2 else npt.pt.get(gfn, BLANK_ENTRY)[1] == 2
    if d.decide("insert.conflict", conflict):
        return
    pgd_next = npt.pgd_next + (0 if pgd in npt.pgd_t else PAGE_SIZE)
    pud_next = npt.pud_next + (0 if (pgd, pud) in npt.pud_t else PAGE_SIZE)
    pmd_next = npt.pmd_next + (0 if level == 2 or (pgd, pud, pmd) in npt.pmd_t else PAGE_SIZE)
    room = (pgd_next <= pool + PGD_LIMIT) & (pud_next <= pool + PUD_LIMIT) & (pmd_next <= pool + PMD_LIMIT)
    if not d.decide("insert.room", room):
        return
    new: dict[int, Entry] = dict(npt.pt)
    if level == 2:
        gfn = gfn // PTRS_PER_PMD * PTRS_PER_PMD
        new.update({gfn + i: (pfn + i, 2, pte) for i in range(PTRS_PER_PMD)})
        pmd_t = npt.pmd_t
    else:
        new[gfn] = (pfn, 3, pte)
        pmd_t = npt.pmd_t | {(pgd, pud, pmd)}
    d.npts[vmid] = store_tables(npt, new, (pgd, pud), pmd_t, (pgd_next, pud_next, pmd_next))
