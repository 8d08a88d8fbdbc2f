# SPDX-License-Identifier: Apache-2.0
"""Mapping of pages, in the proof and in the kernel, against docs/spec/model.md section 8."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.model import paging, paging_kernel
from harness.model.constants import NOT_PMD_TABLE_BIT
from harness.model.state import RData, Undefined, fresh_npt, pool_start
from tests.support.model_states import state


def mapped(**fields: object) -> RData:
    d = state((42, 43), **fields)
    paging.prot_and_map_vm_s2pt(d, 1, 0x7000, 0x5003, 3)
    return d


def test_assign_a_free_page() -> None:
    d = mapped()
    assert (d.s2page[5], d.flatmem[5], d.data_log[1]) == ((1, 0, 7), 42, 1)
    assert [event[0] for event in d.log[2]] == ["WAIT_LOCK", "OPULL", "OPUSH", "REL_LOCK"]
    assert [event[0] for event in d.log[5]] == ["WAIT_LOCK", "OPULL", "OPUSH", "REL_LOCK"]
    assert d.log[0] == [("OFLATMEM", 5, 42)]
    npt, pool = d.npt(1), pool_start(1)
    assert npt.pt == {7: (5, 3, 0x5FFF)}
    assert (npt.pgd_next - pool, npt.pud_next - pool, npt.pmd_next - pool) == (8192, 1056768, 9445376)
    assert (npt.pgd_t, npt.pud_t, npt.pmd_t) == ({0}, {(0, 0)}, {(0, 0, 0)})


@pytest.mark.parametrize("level,pte,replaced", ((3, 0x5FFF, True), (3, 0xFFF, False), (0, 0x5FFF, False)))
def test_the_hosts_mapping_is_replaced(level: int, pte: int, replaced: bool) -> None:
    host = replace(fresh_npt(0), pt={5: (5, level, pte)})
    d = mapped(npts={0: host})
    assert d.npt(0).pt[5] == ((0, 3, 1 << 57) if replaced else (5, level, pte))


def test_the_hosts_mapping_fails() -> None:
    host = replace(fresh_npt(0), pt={5: (5, 2, 0x5FFD)})
    d = mapped(npts={0: host})
    assert (d.halt, d.tstate, d.lock[2], d.lock[5]) == (True, 0, True, True)
    assert (d.s2page[5], d.flatmem, d.data_log[1], d.npt(0)) == ((1, 0, 7), {}, 0, host)
    assert [event[0] for event in d.log[2]] == ["WAIT_LOCK", "OPULL"]
    assert d.npt(1).pt == {}


@pytest.mark.parametrize("page", ((0, 1, 0), (2, 0, 7), (1, 0, 8)))
def test_assign_panics(page: tuple[int, int, int]) -> None:
    d = mapped(s2page={5: page})
    assert (d.halt, d.tstate, d.lock[2], d.s2page[5], d.npt(1).pt) == (True, 0, True, page, {})
    assert [event[0] for event in d.log[2]] == ["WAIT_LOCK", "OPULL"]


@pytest.mark.parametrize(
    "page,after",
    (((1, 3, 7), (1, 3, 7)), ((1, 0xFFFF_FFFF, 7), (1, 0, 7)), ((1, 2, (1 << 64) - 1), (1, 2, 7))),
)
def test_assign_an_own_page(page: tuple[int, int, int], after: tuple[int, int, int]) -> None:
    d = mapped(s2page={5: page})
    assert (d.s2page[5], d.flatmem, d.data_log[1], d.halt) == (after, {}, 0, False)
    assert 5 not in d.log, "no round of the host's table lock where the VM owns the page already"
    assert [event[0] for event in d.log[2]] == ["WAIT_LOCK", "OPULL", "OPUSH", "REL_LOCK"]


@pytest.mark.parametrize("page", ((1, 2, 7), (2, 0, 7), (0, 1, 7)))
def test_the_hosts_table_lock_must_be_free_on_every_path(page: tuple[int, int, int]) -> None:
    with pytest.raises(Undefined, match="lock 5 free"):
        mapped(s2page={5: page}, lock={5: True})
    with pytest.raises(Undefined, match="log 5 balanced"):
        mapped(s2page={5: page}, log={5: [("OPULL", 5)]})


@pytest.mark.parametrize("lock", (2, 5, 6))
def test_locks_must_be_free(lock: int) -> None:
    with pytest.raises(Undefined, match=f"lock {lock} free"):
        mapped(lock={lock: True})


def test_level_2_rounds_the_gfn_but_not_the_pfn() -> None:
    d = state(tuple(range(600)))
    paging.prot_and_map_vm_s2pt(d, 1, 0x3FF000, 0x5003, 2)
    npt = d.npt(1)
    entry = 0x5FFF & NOT_PMD_TABLE_BIT
    assert npt.pt == {512 + i: (5 + i, 2, entry) for i in range(512)}
    assert (d.s2page[5], d.s2page[5 + 511], d.data_log[1]) == ((1, 0, 512), (1, 0, 1023), 512)
    assert npt.pmd_next == fresh_npt(1).pmd_next


def test_level_2_relies_on_pfn_even_after_a_halt() -> None:
    first = 268435456 - 1
    with pytest.raises(Undefined, match="is_pfn pfn"):
        paging.prot_and_map_vm_s2pt(state((0,), s2page={first: (2, 0, 0)}), 1, 0, first << 12, 2)


@pytest.mark.parametrize("name,limit", (("pgd_next", 1052672), ("pud_next", 9441280), ("pmd_next", 33554432)))
def test_pool_limits_are_inclusive(name: str, limit: int) -> None:
    for free, fits in ((limit - 4096, True), (limit, False)):
        full = replace(fresh_npt(1), **{name: pool_start(1) + free})
        d = mapped(npts={1: full})
        assert d.halt != fits
        assert (d.npt(1) == full) != fits
        assert d.lock[6] != fits


def test_insert_conflicts() -> None:
    two = replace(fresh_npt(1), pt={7: (5, 2, 0x5FFD)})
    d = mapped(npts={1: two})
    assert (d.halt, d.npt(1)) == (True, two)
    three = replace(fresh_npt(1), pt={7: (5, 3, 0x5FFF)}, pmd_t=frozenset({(0, 0, 0)}))
    d = state((0,) * 600, npts={1: three})
    assert paging.insert(d, 1, 0x7000, 2, 0x5FFD)
    assert d.npt(1).pt[7] == (5 + 7, 2, 0x5FFD)
    assert d.npt(1).pmd_t == frozenset()
    with pytest.raises(Undefined, match="table"):
        paging.insert(state(), 1, 0x7000, 2, 0x5FFF)


def test_kernel_mapping() -> None:
    d = state()
    paging_kernel.prot_and_map_vm_s2pt(d, 1, 0x7000, 0, 3)
    assert d.npts == {}
    paging_kernel.prot_and_map_vm_s2pt(d, 1, 0x7000, 0x5003, 9)
    assert d.npt(1).pt == {7: (5, 3, 0x5FFF | 1 << 56)}
    assert (d.s2page[5], d.flatmem, d.log) == ((1, 0, 7), {}, {})
    d = state()
    paging_kernel.prot_and_map_vm_s2pt(d, 1, 0x7000, 0x5003, 2)
    assert d.npt(1).pt[0] == (5, 2, 0x5FFF | 1 << 55)


@pytest.mark.parametrize(
    "page,after",
    (
        ((0, 1, 9), (0, 1, 9)),
        ((0, 0, 9), (1, 0, 7)),
        ((2, 0, 9), (2, 0, 9)),
        ((1, 0xFFFF_FFFF, 7), (1, 0, 7)),
        ((1, 0xFFFF_FFFF, 1 << 32 | 7), (1, 0, 1 << 32 | 7)),
        ((1, 0xFFFF_FFFF, 8), (1, 0xFFFF_FFFF, 8)),
        ((1, 2, 7), (1, 2, 7)),
    ),
)
def test_kernel_assign(page: tuple[int, int, int], after: tuple[int, int, int]) -> None:
    d = state(s2page={5: page})
    paging_kernel.prot_and_map_vm_s2pt(d, 1, 0x7000, 0x5003, 3)
    assert (d.s2page[5], d.halt, bool(d.npt(1).pt)) == (after, False, True)


def test_kernel_assign_outside_ram() -> None:
    d = state(ram=(6, 100))
    paging_kernel.prot_and_map_vm_s2pt(d, 1, 0x7000, 0x5003, 3)
    assert d.s2page == {}
    assert d.npt(1).pt != {}


def test_kernel_conflict_stores_nothing() -> None:
    two = replace(fresh_npt(1), pt={7: (5, 2, 1)})
    d = state(npts={1: two})
    paging_kernel.prot_and_map_vm_s2pt(d, 1, 0x7000, 0x5003, 3)
    assert d.npt(1) == two
