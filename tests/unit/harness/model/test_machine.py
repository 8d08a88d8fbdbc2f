# SPDX-License-Identifier: Apache-2.0
"""Primitives, against docs/spec/model.md sections 2, 3 and 7."""

from __future__ import annotations

import pytest

from harness.model import machine, machine_kernel
from harness.model.constants import CTXT_FIELDS, KERNEL_FIELD, SHADOW_FIELD
from harness.model.state import Image, RData, Undefined, VmInfo, blank_context
from tests.support.model_states import KEY, state

UNBACKED = (31, 34, 37, 38, 39, 40, 69, 73, 255, 1 << 40)


def numbered() -> RData:
    ctxt = blank_context()
    ctxt.update({name: 1000 + i for i, name in enumerate(CTXT_FIELDS)})
    return RData(cur_vmid=1, shadow_ctxts={KEY: ctxt})


@pytest.mark.parametrize(
    "index,field", ((0, "x0"), (30, "x30"), (32, "pc"), (45, "dirty"), (55, "esr_el1"), (71, "spsr_0"))
)
def test_index_table_of_the_proof(index: int, field: str) -> None:
    d = numbered()
    assert machine.get_shadow_ctxt(d, 1, 0, index) == d.ctxt(KEY)[field]
    machine.set_shadow_ctxt(d, 1, 0, index, 7)
    assert d.ctxt(KEY)[field] == 7


def test_indices_without_a_register() -> None:
    d = numbered()
    before = dict(d.ctxt(KEY))
    for index in UNBACKED:
        assert machine.get_shadow_ctxt(d, 1, 0, index) == 0
        machine.set_shadow_ctxt(d, 1, 0, index, 7)
    assert d.ctxt(KEY) == before
    assert len(SHADOW_FIELD) == 73 - 7


def test_index_table_of_the_kernel() -> None:
    rows = {31: "sp_el0", 34: "sp_el1", 36: "spsr_el1", 41: "far_el2", 46: "flags", 48: "mpidr_el1", 51: "actlr_el1"}
    rows |= {53: "zcr_el1", 57: "esr_el1", 70: "mdscr_el1", 72: "disr_el1"}
    assert {i: KERNEL_FIELD[i] for i in rows} == rows
    assert len(KERNEL_FIELD) == 864 // 8


def test_halted_primitives_do_nothing() -> None:
    for m in (machine, machine_kernel):
        d = state((1,), (2,), halt=True, dirty=5, x0=6)
        reads = [m.get_shadow_ctxt(d, 99, 99, 0), m.get_shadow_esr(d, 99, 99), m.get_shadow_dirty_bit(d, 99, 99)]
        reads += [m.get_int_pc(d, 99, 99), m.get_vm_fault_addr(d, 99, 99), m.read_actlr_el1(d), m.get_cur_vmid(d)]
        reads += [m.get_sys_reg_desc_val(d, 999)]
        assert reads == [0] * 8
        m.set_shadow_dirty_bit(d, 99, 99, 1)
        m.set_int_gpr(d, 99, 99, 0, 1)
        m.clear_shadow_gp_regs(d, 99, 99)
        m.reset_fp_regs(d, 99, 99)
        assert (d.data_log, d.core_data_log, d.revealed, d.ctxt(KEY)["x0"]) == ({1: 0}, {1: 0}, [], 6)


def test_is_reg() -> None:
    with pytest.raises(Undefined, match="is_reg index"):
        machine.get_sys_reg_desc_val(state(), 256)


def test_dirty_bit_of_the_kernel() -> None:
    d = state(dirty=1 << 40 | 3)
    assert machine_kernel.get_shadow_dirty_bit(d, 1, 0) == 3
    machine_kernel.set_shadow_dirty_bit(d, 1, 0, 4)
    assert d.ctxt(KEY)["dirty"] == 1 << 40 | 7
    machine_kernel.set_shadow_dirty_bit(d, 1, 0, 0)
    assert d.ctxt(KEY)["dirty"] == 0


def test_kernel_stops_at_register_32() -> None:
    assert machine_kernel.get_int_gpr(state(host={"sp_el0": 9}), 1, 0, 31) == 9
    with pytest.raises(Undefined, match="stops"):
        machine_kernel.get_int_gpr(state(), 1, 0, 32)
    with pytest.raises(Undefined, match="stops"):
        machine_kernel.set_int_gpr(state(), 1, 0, 32, 0)


def test_kernel_clears_too_much() -> None:
    d = numbered()
    machine_kernel.clear_shadow_gp_regs(d, 1, 0)
    kept = {name for name, value in d.ctxt(KEY).items() if value}
    assert not kept & set(KERNEL_FIELD)
    assert {"esr_el2", "fp_q0", "elr_el2", "spsr_0"} <= kept


def images(*rows: tuple[int, int, int], count: int | None = None) -> RData:
    padded = tuple(Image(*row) for row in rows) + (Image(),) * (5 - len(rows))
    return state(vminfos={1: VmInfo(vm_next_load_info=len(rows) if count is None else count, images=padded)})


def test_search_load_info_takes_the_last_match() -> None:
    rows = ((0x1000, 0x1000, 0x80000), (0x1800, 0x1000, 0x90000))
    for m in (machine, machine_kernel):
        found = [m.search_load_info(images(*rows), 1, addr) for addr in (0xFFF, 0x1000, 0x1800, 0x27FF, 0x2800)]
        assert found == [0, 0x80000, 0x90000, 0x90FFF, 0]


@pytest.mark.parametrize(
    "row,reason",
    (
        ((1 << 48, 0, 0), "is_addr load_addr"),
        ((0, 1 << 48, 0), "is_addr load_size"),
        ((0, 0, 1 << 48), "is_addr remap_addr"),
        ((0, 1, (1 << 48) - 1), None),
        ((0, 2, (1 << 48) - 1), "remap"),
    ),
)
def test_search_load_info_preconditions(row: tuple[int, int, int], reason: str | None) -> None:
    if reason is None:
        assert machine.search_load_info(images(row), 1, 0) == (1 << 48) - 1
        return
    with pytest.raises(Undefined, match=reason):
        machine.search_load_info(images(row), 1, 0)


def test_search_load_info_undefined_before_halt() -> None:
    halted = state(halt=True)
    assert machine.search_load_info(halted, 1, 0) == 0
    for args, reason in (((17, 0), "is_vmid"), ((1, 1 << 64), "is_int64 addr")):
        with pytest.raises(Undefined, match=reason):
            machine.search_load_info(halted, *args)
    with pytest.raises(Undefined, match="vm_next_load_info"):
        machine.search_load_info(images(count=6), 1, 0)


def test_search_load_info_wraps_in_the_kernel() -> None:
    assert machine_kernel.search_load_info(images(((1 << 64) - 16, 32, 0)), 1, (1 << 64) - 8) == 0


def test_is_inc_exe() -> None:
    d = state(vminfos={1: VmInfo(vm_inc_exe=3)})
    assert machine.is_inc_exe(d, 1) == 3
    assert d.log[23] == [("WAIT_LOCK", 10), ("OPULL", 23), ("OPUSH", 23), ("REL_LOCK",)]
    with pytest.raises(Undefined, match="is_int inc_exe"):
        machine.is_inc_exe(state(vminfos={1: VmInfo(vm_inc_exe=1 << 32)}), 1)
    with pytest.raises(Undefined, match="balanced"):
        machine.is_inc_exe(state(log={23: [("WAIT_LOCK", 10)]}), 1)
