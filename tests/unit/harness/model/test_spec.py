# SPDX-License-Identifier: Apache-2.0
"""VCPUOpsAux at every level, against the rows of docs/spec/model.md section 4."""

from __future__ import annotations

import pytest

from harness.model.state import ExceptionVector, Image, RegDesc, VmInfo
from tests.support.model_states import ALL, KEY, PROOF, changed, run, state, undefined

TWO64 = 1 << 64
SIGNED_31 = 0xFFFF_FFFF_8000_0000
READ, WRITE, S1PTW = 0, 64, 128
HELPERS = ("prep_wfx", "prep_hvc", "prep_abort", "sync_dirty_to_shadow", "reset_sys_regs", "update_exception_gp_regs")


@pytest.mark.parametrize("level", ("spec", "low"))
@pytest.mark.parametrize("function", HELPERS)
def test_vm_and_vcpu_are_relied_on_before_halt(level: str, function: str) -> None:
    halted = state(halt=True)
    for vmid in (0, 16):
        assert undefined(level, function, halted, vmid, 0) == "is_vm vmid"
    assert undefined(level, function, halted, 1, 8) == "is_vcpu vcpuid"
    assert changed(halted, run(level, function, halted, 15, 7)) == {}


def test_reset_gp_regs_at_spec_has_is_vmid() -> None:
    halted = state(halt=True)
    for vmid in (0, 16):
        assert run("spec", "reset_gp_regs", halted, vmid, 0).halt
        assert undefined("low", "reset_gp_regs", halted, vmid, 0) == "is_vm vmid"
    assert undefined("spec", "reset_gp_regs", halted, 17, 0) == "is_vmid vmid"


@pytest.mark.parametrize("function", HELPERS)
def test_body_has_only_what_its_primitives_rely_on(function: str) -> None:
    halted = state(halt=True)
    after = run("body", function, halted, 99, 99)
    assert (after.revealed, after.data_log, after.core_data_log) == ([], {1: 0}, {1: 0})
    if function != "reset_sys_regs":
        assert undefined("body", function, state(data=(0,) * 4), 17, 0) == "is_vmid vmid"


@pytest.mark.parametrize("level", ALL)
def test_prep_wfx(level: str) -> None:
    before = state(dirty=8)
    expected = 1 << 32 | 8 if level == "kernel" else 1 << 32
    assert changed(before, run(level, "prep_wfx", before, 1, 0)) == {"dirty": expected}


HVC = (
    # x0, registers revealed (proof), registers revealed (kernel), kernel marks x0
    (3288334339, (0, 1, 2, 3), (0, 1, 2, 3), True),
    (3288334339 | 1 << 63, (0, 1, 2, 3), (0, 1, 2, 3), True),
    (2214592516, (0, 1, 2), (0, 1, 2), True),
    (1073741828, (0, 1, 2), (0,), False),
    (0xC400_0004, (0,), (0, 1, 2), True),
    (2214592520, (0,), (0,), True),
    (0, (0,), (0,), False),
)


@pytest.mark.parametrize("level", ALL)
@pytest.mark.parametrize("x0,proof,kernel,marked", HVC)
def test_prep_hvc(level: str, x0: int, proof: tuple[int, ...], kernel: tuple[int, ...], marked: bool) -> None:
    before = state(x0=x0, x1=11, x2=12, x3=13, dirty=4)
    after = run(level, "prep_hvc", before, 1, 0)
    values = (x0, 11, 12, 13)
    shown = kernel if level == "kernel" else proof
    assert after.revealed == [(1, 0, i, values[i]) for i in shown]
    dirty = (5 if marked else 4) if level == "kernel" else 1
    assert after.ctxt(KEY)["dirty"] == dirty
    off = x0 == 2214592520
    assert after.info(1).vm_state == (4 if off and level != "kernel" else 0)
    assert after.info(1).powered_on == (0 if off and level == "kernel" else 1)
    assert after.log.get(23, []) == (
        [("WAIT_LOCK", 10), ("OPULL", 23), ("OPUSH", 23, ("vm_state", 4)), ("REL_LOCK",)]
        if off and level != "kernel"
        else []
    )
    if level == "kernel":
        assert [after.host(1, 0)[f"x{i}"] for i in kernel] == [values[i] for i in kernel]


def test_prep_hvc_undefined() -> None:
    for level, reason in (("spec", "is_int64 x0"), ("low", "is_int64 x0")):
        assert undefined(level, "prep_hvc", state(x0=TWO64), 1, 0) == reason
    assert undefined("body", "prep_hvc", state(x0=TWO64), 1, 0).startswith("stuck:")
    for level in PROOF:
        held = state(x0=2214592520, lock={23: True})
        assert undefined(level, "prep_hvc", held, 1, 0) == "lock 23 free"
        assert "x3" in undefined(level, "prep_hvc", state(x0=3288334339, x3=TWO64), 1, 0) or level == "body"
    assert run("kernel", "prep_hvc", state(x0=2214592520, lock={23: True}), 1, 0).info(1).powered_on == 0


def esr(rd: int, bits: int = 0) -> int:
    return rd << 16 | bits


@pytest.mark.parametrize("rd", (0, 5, 30, 31))
def test_prep_abort_read(rd: int) -> None:
    before = state(data=(esr(rd) | 1 << 21,), host={"esr_el2": esr(rd)}, hpfar_el2=0x3FFFFF, dirty=2)
    for level in PROOF:
        after = run(level, "prep_abort", before, 1, 0)
        expected = SIGNED_31 if level == "body" and rd == 31 else 1 << rd
        assert changed(before, after) == {"dirty": expected}
        assert after.data_log[1] == (0 if level == "spec" else 1)
        assert after.revealed == []
    kernel = run("kernel", "prep_abort", before, 1, 0).ctxt(KEY)["dirty"]
    assert kernel == 2 | 1 << 32 | (SIGNED_31 if rd == 31 else 1 << rd)


@pytest.mark.parametrize("bits", (WRITE, S1PTW, WRITE | S1PTW))
@pytest.mark.parametrize("rd", (0, 30, 31))
def test_prep_abort_not_a_read(bits: int, rd: int) -> None:
    before = state(data=(esr(rd, bits),), host={"esr_el2": esr(rd, bits)}, x0=70, x30=71, sp_el0=72, dirty=2)
    value = {0: 70, 30: 71, 31: 0}[rd]
    for level in PROOF:
        after = run(level, "prep_abort", before, 1, 0)
        assert changed(before, after) == {"dirty": 1 << 32}
        assert after.data_log[1] == (0 if level == "spec" else 1)
        assert after.revealed == ([] if level == "spec" else [(1, 0, rd, value)])
    after = run("kernel", "prep_abort", before, 1, 0)
    assert after.ctxt(KEY)["dirty"] == 1 << 32 | 2
    assert after.revealed == [(1, 0, rd, 72 if rd == 31 else value)]
    assert after.host(1, 0)["sp_el0" if rd == 31 else f"x{rd}"] == (72 if rd == 31 else value)


@pytest.mark.parametrize("level", ALL)
def test_prep_abort_outside_mmio(level: str) -> None:
    # (hpfar / 16) * 4096 is exactly MAX_MMIO_ADDR here, and one page below it in a later test
    before = state(data=(0,), hpfar_el2=0x400000, dirty=2)
    after = run(level, "prep_abort", before, 1, 0)
    assert changed(before, after) == {}
    assert after.data_log[1] == (1 if level == "body" else 0)
    below = state(data=(0,), hpfar_el2=0x400000 - 1)
    assert changed(below, run(level, "prep_abort", below, 1, 0)) != {}


def test_prep_abort_preconditions() -> None:
    over = state(data=(TWO64,))
    assert [undefined(level, "prep_abort", over, 1, 0) for level in ("spec", "low")] == ["is_int64 esr"] * 2
    assert undefined("body", "prep_abort", over, 1, 0).startswith("stuck:")
    gfn = state(data=(0,), hpfar_el2=68719476736 * 16)
    assert [undefined(level, "prep_abort", gfn, 1, 0) for level in ("spec", "low")] == ["is_gfn (hpfar_el2 / 16)"] * 2
    # 2^52 pages of 4096 bytes wrap to 0 modulo 2^64, which is MMIO
    for level in ("body", "kernel"):
        wrapped = state(data=(0,), hpfar_el2=1 << 56)
        assert run(level, "prep_abort", wrapped, 1, 0).ctxt(KEY)["dirty"] != 0
    assert undefined("low", "prep_abort", state(), 1, 0) == "oracle exhausted"


@pytest.mark.parametrize(
    "level,expected,position",
    (
        ("spec", {"x0": 101, "x4": 101, "x30": 101}, 3),
        ("low", {"x30": 101}, 1),
        ("body", {"x0": 101, "x4": 102, "x30": 103}, 3),
        ("kernel", {"x0": 201, "x4": 202, "x30": 203}, 0),
    ),
)
def test_sync_dirty_to_shadow(level: str, expected: dict[str, int], position: int) -> None:
    host = {"x0": 201, "x4": 202, "x30": 203}
    before = state(data=(101, 102, 103), host=host, dirty=1 | 1 << 4 | 1 << 30 | 1 << 31 | 1 << 36)
    after = run(level, "sync_dirty_to_shadow", before, 1, 0)
    assert (changed(before, after), after.data_log[1]) == (expected, position)


def test_sync_dirty_to_shadow_preconditions() -> None:
    assert undefined("spec", "sync_dirty_to_shadow", state(dirty=TWO64), 1, 0) == "is_int64 dirty"
    low = state(dirty=TWO64)
    assert changed(low, run("low", "sync_dirty_to_shadow", low, 1, 0)) == {}
    assert undefined("body", "sync_dirty_to_shadow", state(dirty=TWO64), 1, 0).startswith("stuck:")
    for level in ("spec", "low"):
        assert undefined(level, "sync_dirty_to_shadow", state(data=(TWO64,), dirty=1), 1, 0) == "is_int64 reg"


IMAGES = (Image(0x1000, 0x1000, 0x80000), Image(0x1800, 0x1000, 0x90000), Image(), Image(), Image())


@pytest.mark.parametrize("level", ALL)
def test_reset_gp_regs(level: str) -> None:
    info = {1: VmInfo(vm_next_load_info=2, images=IMAGES)}
    host = {"pc": 0x1800, "pstate": 0x3C5, "fp_q1": 55}
    before = state((0x1800, 0x3C5, 9), host=host, vminfos=info, x0=1, x30=2, fp_q1=3, fp_fpcr=4, sp_el1=5, hcr_el2=6)
    after = run(level, "reset_gp_regs", before, 1, 0)
    expected = {"x0": 0, "x30": 0, "pc": 0x1800, "pstate": 0x3C5, "fp_q1": 0, "fp_fpcr": 0}
    if level == "kernel":
        expected |= {"fp_q1": 55, "sp_el1": 0, "hcr_el2": 0}
    assert changed(before, after) == expected
    assert after.data_log[1] == (0 if level == "kernel" else 2)
    assert not after.halt


@pytest.mark.parametrize("level", ALL)
def test_reset_gp_regs_without_image(level: str) -> None:
    before = state((0x1000, 7), host={"pc": 0x1000}, x0=1)
    after = run(level, "reset_gp_regs", before, 1, 0)
    assert changed(before, after) == {}
    assert (after.halt, after.data_log[1]) == ((False, 0) if level == "kernel" else (True, 1))


def test_kernel_reset_fp_regs_stops_above_vcpu_3() -> None:
    info = {1: VmInfo(vm_next_load_info=1, images=IMAGES)}
    before = state(vminfos=info, host_regs={12: {**state().host(1, 0), "pc": 0x1000}})
    assert undefined("kernel", "reset_gp_regs", before, 1, 4).startswith("stops:")


DESC = RegDesc(tuple((i, 1000 + i) for i in range(1, 30)))


def test_reset_sys_regs() -> None:
    before = state((77,), reg_desc=DESC, csselr_el1=1, cpacr_el1=2)
    for level in ("spec", "low"):
        after = run(level, "reset_sys_regs", before, 1, 0)
        assert changed(before, after) == {f"x{i}": 1000 + i for i in range(1, 25)}
        assert after.data_log[1] == 0
    after = run("body", "reset_sys_regs", before, 1, 3)
    body = after.ctxt(11)
    assert body["csselr_el1"] == 1 << 31 | 3  # index 48
    assert body["cpacr_el1"] == 77  # index 51
    assert (body["sctlr_el1"], body["esr_el2"], body["spsr_0"]) == (1002, 0, 1024)  # 49; 72 is not reached; 71
    assert (body["mpidr_el1"], body["actlr_el1"], after.data_log[1]) == (0, 1003, 1)


def test_reset_sys_regs_asks_the_oracle_of_the_current_vm() -> None:
    before = state((77,), reg_desc=DESC)
    assert run("body", "reset_sys_regs", before, 2, 0).data_log == {1: 1}


def test_kernel_reset_sys_regs() -> None:
    before = state(regs={**state().ctxt(KEY), "actlr_el1": 88})
    kernel = run("kernel", "reset_sys_regs", before, 1, 3).ctxt(11)
    bad = 0x1DE7EC7EDBADC0DE
    assert kernel["mpidr_el1"] == 1 << 31 | 3
    assert kernel["actlr_el1"] == 88
    assert (kernel["csselr_el1"], kernel["sctlr_el1"], kernel["cpacr_el1"]) == (0, 0x00C50078, bad)
    assert (kernel["disr_el1"], kernel["mdccint_el1"], kernel["par_el1"]) == (bad, bad, 0)


@pytest.mark.parametrize("level", PROOF)
def test_update_exception_gp_regs(level: str) -> None:
    before = state(pc=0x1004, pstate=4, esr_el1=9, spsr_0=8, exception_vector=ExceptionVector(0x8000))
    after = run(level, "update_exception_gp_regs", before, 1, 0)
    assert changed(before, after) == {"elr_el1": 0x1004, "pc": 0x8000, "pstate": 965, "spsr_0": 4, "esr_el1": 0}
    over = state(pc=TWO64)
    assert undefined(level, "update_exception_gp_regs", over, 1, 0) in (
        ("is_int64 pc", "stuck: get_shadow_ctxt is not 64 bits")
    )


@pytest.mark.parametrize("mode,offset", ((4, 0), (5, 0x200), (0, 0x400), (0x11, 0x600), (0x3C5, 0x200)))
def test_exception_vector(mode: int, offset: int) -> None:
    assert ExceptionVector(0x8000)(mode) == 0x8000 + offset


def test_kernel_update_exception_gp_regs() -> None:
    before = state(pc=0x1004, pstate=4, esr_el1=9, spsr_0=8, actlr_el1=7, x8=6)
    after = run("kernel", "update_exception_gp_regs", before, 1, 0)
    assert changed(before, after) == {"elr_el1": 0x1004, "pc": 0, "pstate": 11, "x8": 4, "actlr_el1": 0}


@pytest.mark.parametrize("level", PROOF)
def test_post_handle_shadow_s2pt_fault(level: str) -> None:
    before = state(core=(0x5003, 3), data=(42,))
    after = run(level, "post_handle_shadow_s2pt_fault", before, 1, 0, 0x7000)
    assert after.core_data_log[1] == 2
    assert after.npt(1).pt == {7: (5, 3, 0x5FFF)}
    assert after.s2page[5] == (1, 0, 7)
    assert undefined(level, "post_handle_shadow_s2pt_fault", before, 1, 0, 1 << 48) == "is_addr addr"


def test_halted_post_handle_shadow_s2pt_fault() -> None:
    # prot_and_map_vm_s2pt relies on is_addr even when halted (docs/spec/model.md section 8)
    before = state(halt=True)
    assert run("spec", "post_handle_shadow_s2pt_fault", before, 1, 0, 1 << 48).halt
    assert undefined("low", "post_handle_shadow_s2pt_fault", before, 1, 0, 1 << 48) == "is_addr addr"
    assert run("low", "post_handle_shadow_s2pt_fault", before, 1, 0, 0).core_data_log == {1: 0}


def test_kernel_post_handle_takes_the_address_from_hpfar() -> None:
    before = state(hpfar_el2=0x7F, walk={KEY: (0, 0x5003, 7)})
    after = run("kernel", "post_handle_shadow_s2pt_fault", before, 1, 0, 0)
    assert after.npt(1).pt == {7: (5, 3, 0x5FFF | 1 << 56)}
