# SPDX-License-Identifier: Apache-2.0
"""Map a page at spec, low and body: ``prot_and_map_vm_s2pt`` and its callees (docs/spec/model.md section 8)."""

from __future__ import annotations

from dataclasses import replace

from harness.model.constants import (
    FLATMEM_ID,
    HOSTVISOR,
    INVALID,
    INVALID64,
    NOT_PMD_TABLE_BIT,
    NPT_ID,
    PAGE_GUEST,
    PAGE_S2_KERNEL,
    PAGE_SIZE,
    PGD_LIMIT,
    PMD_LIMIT,
    PMD_PAGE_NUM,
    PTRS_PER_PMD,
    PUD_LIMIT,
    S2PAGE_ID,
    is_addr,
    is_gfn,
    is_int,
    is_int64,
    is_pfn,
    is_vmid,
    phys_page,
)
from harness.model.locks import acquire, check_free, release
from harness.model.state import BLANK_ENTRY, BLANK_PAGE, Entry, Npt, RData, pool_start


def prot_and_map_vm_s2pt(d: RData, vmid: int, addr: int, pte: int, level: int) -> None:
    """Assign the pages of ``pte`` to the VM, then map them at ``addr``; ``level`` 2 is 512 pages, else one.

    Relies on ``is_vmid`` and ``is_addr`` before halt.  At level 2 the gfn is rounded down to 512 and the pfn is
    **not**; each iteration relies on ``is_gfn`` and ``is_pfn`` even after an iteration that halted.
    """
    d.rely("is_vmid vmid", is_vmid(vmid))
    d.rely("is_addr addr", is_addr(addr))
    pfn, gfn = phys_page(pte) // PAGE_SIZE, addr // PAGE_SIZE
    if d.decide("prot_and_map_vm_s2pt.level2", level == 2):
        gfn = gfn // PTRS_PER_PMD * PTRS_PER_PMD
        for i in range(PMD_PAGE_NUM):
            d.rely("is_gfn gfn", is_gfn(gfn + i))
            d.rely("is_pfn pfn", is_pfn(pfn + i))
            assign_pfn_to_vm(d, vmid, gfn + i, pfn + i)
        map_pfn_vm(d, vmid, addr, pte, level)
    else:
        assign_pfn_to_vm(d, vmid, gfn, pfn)
        map_pfn_vm(d, vmid, addr, pte, 3)


def assign_pfn_to_vm(d: RData, vmid: int, gfn: int, pfn: int) -> None:
    """Make the VM the owner of a page.

    The host's table lock must be free on every path; it is acquired, and logged, only if a page leaves the host.  A
    panic leaves ``tstate`` 0, the s2page lock held and only its acquire events; if the host's mapping fails, both locks
    stay held and the ownership is unchanged.
    """
    d.rely("is_vmid vmid", is_vmid(vmid))
    d.rely("is_gfn gfn", is_gfn(gfn))
    d.rely("is_pfn pfn", is_pfn(pfn))
    if d.halt:
        return
    host_lock = NPT_ID + HOSTVISOR
    check_free(d, host_lock)
    acquire(d, S2PAGE_ID)
    owner, count, old_gfn = d.s2page.get(pfn, BLANK_PAGE)
    d.rely("is_int s2_owner", is_int(owner))
    d.rely("is_int s2_count", is_int(count))
    d.rely("is_int64 s2_gfn", is_int64(old_gfn))
    if d.decide("assign_pfn_to_vm.host_owns", owner == HOSTVISOR):
        if d.decide("assign_pfn_to_vm.unshared", count == 0):
            acquire(d, host_lock)
            page = d.s2page[pfn] = (vmid, 0, gfn)
            _, level, pte = d.npt(HOSTVISOR).pt.get(pfn, BLANK_ENTRY)
            d.rely("is_int level", is_int(level))
            if d.decide("assign_pfn_to_vm.host_mapped", (level != 0) & (phys_page(pte) != 0)):
                if not insert(d, HOSTVISOR, pfn * PAGE_SIZE, 3, PAGE_GUEST):
                    _panic(d)
                    return
                release(d, host_lock, (pfn, 3, PAGE_GUEST))
            else:
                release(d, host_lock)
            content = d.flatmem[pfn] = d.take_data(vmid)
            d.note(FLATMEM_ID, ("OFLATMEM", pfn, content))
            release(d, S2PAGE_ID, (pfn, page))
        else:
            _panic(d)
    elif d.decide("assign_pfn_to_vm.vm_owns", (owner == vmid) & ((old_gfn == INVALID64) | (gfn == old_gfn))):
        page = d.s2page[pfn] = (owner, 0 if count == INVALID else count, gfn)
        release(d, S2PAGE_ID, (pfn, page))
    else:
        _panic(d)


def _panic(d: RData) -> None:
    """A panic inside a memory operation: the locks taken stay held (docs/spec/model.md section 7)."""
    d.halt = True
    d.tstate = 0


def map_pfn_vm(d: RData, vmid: int, addr: int, pte: int, level: int) -> None:
    """Insert ``pte`` into the VM's map; failure halts with the lock held and the table unchanged."""
    d.rely("is_vmid vmid", is_vmid(vmid))
    d.rely("is_addr addr", is_addr(addr))
    d.rely("is_int64 pte", is_int64(pte))
    if d.halt:
        return
    acquire(d, NPT_ID + vmid)
    entry = phys_page(pte) | PAGE_S2_KERNEL
    if level == 2:
        entry &= NOT_PMD_TABLE_BIT
    if insert(d, vmid, addr, 2 if level == 2 else 3, entry):
        release(d, NPT_ID + vmid, (addr, level, entry))
    else:
        _panic(d)


def table_indices(addr: int) -> tuple[int, int, int]:
    """The 9-bit indices at shifts 39, 30 and 21."""
    return (addr >> 39) & 511, (addr >> 30) & 511, (addr >> 21) & 511


def insert(d: RData, vmid: int, addr: int, level: int, pte: int) -> bool:
    """Insert an entry; False: the pool is exhausted or the levels conflict, and nothing changed.

    A conflict is a level-3 entry at the place of a level-2 entry; the opposite is **not** checked, and 512 entries are
    overwritten.  Level 2 is undefined if the low two bits of ``pte`` are 3.
    """
    npt, pool = d.npt(vmid), pool_start(vmid)
    pgd, pud, pmd = table_indices(addr)
    if d.decide("insert.level2", level == 2):
        d.rely("pmd is not a table", pte & 3 != 3)
    elif d.decide("insert.conflict", npt.pt.get(addr // PAGE_SIZE, BLANK_ENTRY)[1] == 2):
        return False
    pgd_next = npt.pgd_next + (0 if pgd in npt.pgd_t else PAGE_SIZE)
    pud_next = npt.pud_next + (0 if (pgd, pud) in npt.pud_t else PAGE_SIZE)
    pmd_next = npt.pmd_next + (0 if level == 2 or (pgd, pud, pmd) in npt.pmd_t else PAGE_SIZE)
    room = (pgd_next <= pool + PGD_LIMIT) & (pud_next <= pool + PUD_LIMIT)
    if level != 2:
        room = room & (pmd_next <= pool + PMD_LIMIT)
    if not d.decide("insert.room", room):
        return False
    pfn, gfn = phys_page(pte) // PAGE_SIZE, addr // PAGE_SIZE
    new: dict[int, Entry] = dict(npt.pt)
    if level == 2:
        gfn = gfn // PTRS_PER_PMD * PTRS_PER_PMD
        new.update({gfn + i: (pfn + i, 2, pte) for i in range(PTRS_PER_PMD)})
        pmd_t = npt.pmd_t - {(pgd, pud, pmd)}
    else:
        new[gfn] = (pfn, 3, pte)
        pmd_t = npt.pmd_t | {(pgd, pud, pmd)}
    d.npts[vmid] = store_tables(npt, new, (pgd, pud), pmd_t, (pgd_next, pud_next, pmd_next))
    return True


def store_tables(
    npt: Npt,
    pt: dict[int, Entry],
    index: tuple[int, int],
    pmd_t: frozenset[tuple[int, int, int]],
    free: tuple[int, int, int],
) -> Npt:
    """Return the map with new entries, the pgd and pud flags of ``index`` true, and new free pages."""
    pgd_t, pud_t = npt.pgd_t | {index[0]}, npt.pud_t | {index}
    return replace(
        npt, pt=pt, pgd_t=pgd_t, pud_t=pud_t, pmd_t=pmd_t, pgd_next=free[0], pud_next=free[1], pmd_next=free[2]
    )
