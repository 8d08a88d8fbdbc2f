# SPDX-License-Identifier: Apache-2.0
"""VCPUOps at every level, against docs/spec/model.md section 5."""

from __future__ import annotations

import pytest

from harness.model import evaluate
from harness.model.state import ExceptionVector, Image, RData, RegDesc, VmInfo
from tests.support.model_states import ALL, KEY, PROOF, changed, run, state, undefined

SAVE, RESTORE = "save_shadow_kvm_regs", "restore_shadow_kvm_regs"
INVALID64 = (1 << 64) - 1
SKIP, INJECT = 1 << 32, 1 << 35


@pytest.mark.parametrize("level", ALL)
@pytest.mark.parametrize("ec", (0, 1, 3, 2 | 1 << 31, (1 << 64) - 1))
def test_save_of_no_trap(level: str, ec: int) -> None:
    before = state(ec=ec, esr_el2=1 << 26, dirty=7)
    assert changed(before, run(level, SAVE, before)) == {}


@pytest.mark.parametrize("level", ALL)
def test_save_by_class(level: str) -> None:
    for ec, x0 in ((18, 0x80000000), (22, 0x80000000)):
        after = run(level, SAVE, state(ec=2, esr_el2=ec << 26, x0=x0))
        assert after.revealed == [(1, 0, 0, x0)]
    for ec in (32, 36):
        after = run(level, SAVE, state((3 << 16,), ec=2, esr_el2=ec << 26, host={"esr_el2": 3 << 16}))
        assert after.ctxt(KEY)["dirty"] & 0x7FFF_FFFF == 8
        assert after.data_log[1] == 0
    assert run(level, SAVE, state(ec=2, esr_el2=1 << 26)).ctxt(KEY)["dirty"] == SKIP
    for ec in (0, 17, 24, 33, 37, 60, 63):
        after = run(level, SAVE, state(ec=2, esr_el2=ec << 26 | 0x3FF_FFFF))
        assert after.halt == (level != "kernel")
        assert after.ctxt(KEY)["dirty"] == (SKIP if level == "kernel" and ec == 60 else 0)


def test_save_relies_on_is_vm_only_through_helpers() -> None:
    key0 = {0: state(ec=2, esr_el2=1 << 26).ctxt(KEY)}
    assert run("spec", SAVE, state(cur_vmid=0, shadow_ctxts=key0)).ctxt(0)["dirty"] == SKIP
    for level in ("low", "body"):
        assert undefined(level, SAVE, state(cur_vmid=0, shadow_ctxts=key0)) == "is_vm vmid"
    assert undefined("body", SAVE, state(cur_vmid=1 << 32)).startswith("stuck:")
    assert undefined("body", SAVE, state(cur_vmid=17)) == "is_vmid vmid"


@pytest.mark.parametrize("level", ALL)
@pytest.mark.parametrize("function", (SAVE, RESTORE))
def test_halted_is_identity(level: str, function: str) -> None:
    before = state(halt=True, ec=2, dirty=INVALID64, esr_el2=1 << 26, flags=2)
    after = run(level, function, before)
    assert changed(before, after) == {}
    assert (after.data_log, after.core_data_log, after.log) == ({1: 0}, {1: 0}, {})


def reset_state(inc_exe: int = 0) -> RData:
    info = {1: VmInfo(vm_next_load_info=1, images=(Image(0x1000, 0x100, 0x80000),) * 5, vm_inc_exe=inc_exe)}
    desc = RegDesc(tuple((i, 100 + i) for i in range(1, 26)))
    return state((0x1000, 5, 9), (), {"pc": 0x1000, "pstate": 5}, vminfos=info, reg_desc=desc, dirty=INVALID64, x30=3)


@pytest.mark.parametrize("level", PROOF)
def test_restore_resets(level: str) -> None:
    before = reset_state()
    after = run(level, RESTORE, before)
    expected = {f"x{i}": 100 + i for i in range(1, 25)} | {"x30": 0, "pc": 0x1000, "pstate": 5, "dirty": 0}
    assert changed(before, after) == expected
    assert (after.data_log[1], after.core_data_log[1]) == (2, 0)
    rounds = sum(event[0] == "REL_LOCK" for event in after.log[23])
    assert rounds == (2 if level == "body" else 1)


def test_restore_resets_not_with_inc_exe_at_body() -> None:
    before = reset_state(inc_exe=1)
    assert changed(before, run("body", RESTORE, before)) == {"dirty": 0}
    assert run("low", RESTORE, before).ctxt(KEY)["pc"] == 0x1000


@pytest.mark.parametrize("level", ALL)
def test_restore_without_image(level: str) -> None:
    before = state((0, 0), (), dirty=INVALID64)
    after = run(level, RESTORE, before)
    if level == "kernel":
        assert not after.halt
        assert after.ctxt(KEY)["sctlr_el1"] == 0x00C50078
        assert after.ctxt(KEY)["dirty"] == 0
    else:
        assert after.halt
        assert changed(before, after) == {}


@pytest.mark.parametrize("level", ALL)
@pytest.mark.parametrize("dirty", (INVALID64 - 1, 0xFFFF_FFFF))
def test_almost_invalid_dirty_is_no_reset(level: str, dirty: int) -> None:
    after = run(level, RESTORE, state((), (0,), ec=0, dirty=dirty, pc=0x1000))
    assert (after.ctxt(KEY)["dirty"], after.halt) == (0, False)


@pytest.mark.parametrize("level", ALL)
def test_restore_takes_registers_only_after_a_trap(level: str) -> None:
    for ec in (0, 2):
        after = run(level, RESTORE, state((55,), (0,), {"x3": 55}, ec=ec, dirty=8, far_el2=9))
        assert after.ctxt(KEY)["x3"] == (55 if ec == 2 else 0)
        assert after.ctxt(KEY)["far_el2"] == 0
        assert after.data_log[1] == (1 if ec == 2 and level != "kernel" else 0)


@pytest.mark.parametrize("level", ALL)
def test_restore_skip_and_inject(level: str) -> None:
    vector = ExceptionVector(0x8000)
    fields = {"pc": 0x1000, "pstate": 5, "esr_el1": 3, "spsr_0": 4}
    skip = run(level, RESTORE, state((), (0,), exception_vector=vector, dirty=SKIP, **fields)).ctxt(KEY)
    assert (skip["pc"], skip["pstate"]) == (0x1004, 5)
    both = run(level, RESTORE, state((), (0,), exception_vector=vector, dirty=SKIP | INJECT, **fields)).ctxt(KEY)
    assert both["elr_el1"] == 0x1000
    seen = tuple(both[name] for name in ("pc", "pstate", "esr_el1", "spsr_0"))
    assert (
        seen
        == {
            "spec": (0x8204, 5, 3, 4),
            "low": (0x8204, 965, 0, 5),
            "body": (0x8204, 965, 0, 5),
            "kernel": (4, 11, 3, 4),
        }[level]
    )


def test_restore_pc_limits() -> None:
    top = state((), (0,), dirty=SKIP, pc=INVALID64)
    assert run("spec", RESTORE, top).ctxt(KEY)["pc"] == (1 << 64) + 3
    assert undefined("low", RESTORE, top) == "is_addr pc"
    assert run("body", RESTORE, top).ctxt(KEY)["pc"] == 3
    assert run("kernel", RESTORE, top).ctxt(KEY)["pc"] == 3
    last = state((), (0,), dirty=SKIP, pc=(1 << 48) - 1)
    assert run("low", RESTORE, last).ctxt(KEY)["pc"] == (1 << 48) + 3
    assert undefined("low", RESTORE, state((), (0,), dirty=SKIP, pc=1 << 48)) == "is_addr pc"


def test_spec_relies_on_the_vector_without_injection() -> None:
    before = state((), (0,), exception_vector=ExceptionVector(1 << 64))
    assert undefined("spec", RESTORE, before) == "is_int64 new_pc"
    assert run("low", RESTORE, before).ctxt(KEY)["pc"] == 0


@pytest.mark.parametrize(
    "addr,maps",
    (
        (0, ()),
        (1, ("spec", "low")),
        (4095, ("spec", "low")),
        (4096, PROOF),
        ((1 << 48) - 1, PROOF),
        (1 << 48, ()),
    ),
)
def test_restore_maps(addr: int, maps: tuple[str, ...]) -> None:
    for level in PROOF:
        after = run(level, RESTORE, state((42,), (addr, 0x5003, 3)))
        assert after.core_data_log[1] == (3 if level in maps else 1)
        assert after.npt(1).pt == ({addr >> 12: (5, 3, 0x5FFF)} if level in maps else {})


def test_restore_commits_before_the_mapping() -> None:
    # a page of another VM: the mapping panics, but the context and both positions are committed
    before = state((1,), (0x7000, 0x5003, 3), ec=2, dirty=4, far_el2=5, s2page={5: (2, 0, 0)})
    for level in PROOF:
        after = run(level, RESTORE, before)
        assert (after.halt, after.data_log[1], after.core_data_log[1]) == (True, 1, 3)
        assert changed(before, after) == {"x2": 1, "dirty": 0, "far_el2": 0}


def test_kernel_maps_by_flag() -> None:
    for flags, mapped in ((0, False), (1, False), (2, True), (3, True)):
        after = run("kernel", RESTORE, state(flags=flags, hpfar_el2=0x70, walk={KEY: (0, 0x5003, 3)}))
        assert (after.ctxt(KEY)["flags"], bool(after.npt(1).pt)) == (0, mapped)


def test_kernel_aliases_vcpu_4_to_the_next_vm() -> None:
    # kernel: 1 * 4 + 4 == 2 * 4 + 0
    before = state(cur_vcpuid=4, shadow_ctxts={16: state(ec=2, esr_el2=1 << 26).ctxt(KEY)})
    assert run("kernel", SAVE, before).ctxt(16)["dirty"] == SKIP


def test_evaluate_is_pure() -> None:
    before = state((3 << 16,), (0,), ec=2, esr_el2=36 << 26)
    outcome = evaluate("body", "VCPUOps", SAVE, before)
    assert before.ctxt(KEY)["dirty"] == 0
    assert before.path == []
    assert ("prep_abort.read", True) in outcome.path
    with pytest.raises(KeyError):
        evaluate("body", "VCPUOpsAux", SAVE, before)
