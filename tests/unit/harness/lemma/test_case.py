# SPDX-License-Identifier: Apache-2.0
"""Cases: a state from few named numbers, and what is left out of them."""

from __future__ import annotations

import pytest

from harness.lemma.case import build, case_of


def test_a_case_builds_what_it_says() -> None:
    case = {"vmid": 2, "vcpuid": 3, "ctxt.pc": 5, "data.1": 7, "data_log": 2, "lock.info": 1, "core.1": 0x5003}
    case |= {"page.s2page.owner": 9, "pool.pmd": 2, "reg_desc.3": 4, "info.vm_inc_exe": 1}
    d, args = build(case, "restore_shadow_kvm_regs", False)
    assert (args, d.cur_vmid, d.cur_vcpuid, d.ctxt(19)["pc"]) == ((), 2, 3, 5)
    assert (d.data(2, 0), d.data(2, 1), d.lock, d.s2page) == (0, 7, {24: True}, {5: (9, 0, 0)})
    assert (d.reg_desc(3), d.info(2).vm_inc_exe, d.npt(2).pmd_next) == (4, 1, 65536 + 2 * 33554432 + 33554432)


def test_coupling_lays_out_what_the_host_shows() -> None:
    case = {"ctxt.dirty": 5, "ctxt.ec": 2, "host.x0": 10, "host.x2": 12, "ctxt.flags": 2, "ctxt.hpfar_el2": 0x70}
    d, _ = build({**case, "walk.pte": 3}, "restore_shadow_kvm_regs", True)
    assert (d.doracle[1][:3], d.core_doracle[1]) == ((10, 12, 0), (0, 3, 0))


def test_the_host_may_lie_about_the_address_of_a_fault() -> None:
    case = {"ctxt.hpfar_el2": 0x70, "walk.addr": 0x9000, "walk.pte": 3, "walk.level": 2, "addr": 0xB000}
    d, _ = build(case, "restore_shadow_kvm_regs", True)
    assert (d.core_doracle[1], d.walk[8]) == ((0x9000, 3, 2), (0x9000, 3, 2))
    d, args = build(case, "post_handle_shadow_s2pt_fault", True)
    assert (d.core_doracle[1], args) == ((3, 2, 0), (1, 0, 0xB000))


def test_defaults_are_left_out() -> None:
    assert case_of({"vmid": 1, "ctxt.pc": 0, "ctxt.pstate": 3}) == (("ctxt.pstate", 3),)
    with pytest.raises(KeyError):
        case_of({"no such slot": 1})


def test_tables_of_a_mapping_may_be_there_already() -> None:
    for count, there in enumerate(((0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1))):
        d, _ = build({"core.0": 0x7000, "core.1": 0x5003, "pool.tables": count}, "restore_shadow_kvm_regs", False)
        npt = d.npt(1)
        assert (len(npt.pgd_t), len(npt.pud_t), len(npt.pmd_t)) == there
