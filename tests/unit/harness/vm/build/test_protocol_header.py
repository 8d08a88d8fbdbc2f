# SPDX-License-Identifier: Apache-2.0
"""The mailbox has one description: a C compiler gets the tables' offsets and numbers from the rendered header."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

import pytest

from harness import layout, protocol
from harness.arch import registers
from harness.arch.exits import SMCCC_FUNCTIONS
from harness.vm.build import protocol_header
from harness.vm.build.prepare import GUEST_SOURCES
from tests.support.traces import ISB, TRAP_MRS

STRUCTS = {
    "sf_control": tuple(word.name for word in protocol.CONTROL),
    "sf_op": ("op", "step", "a", "b"),
    "sf_switch": ("type", "size", "step", "flags", *(word.name for word in protocol.SWITCH_WORDS)),
    "sf_api": ("type", "size", "step", "flags", *(word.name for word in protocol.API_WORDS)),
    "sf_host": ("type", "size", "step", "flags", *(word.name for word in protocol.HOST_WORDS)),
}


def _program(names: Iterable[str]) -> str:
    rows = [f'printf("{name} sizeof %zu\\n", sizeof(struct {name}));' for name in STRUCTS]
    rows += [
        f'printf("{name} {field} %zu\\n", offsetof(struct {name}, {field}));'
        for name, fields in STRUCTS.items()
        for field in fields
    ]
    rows += [f'printf("macro {name} %llu\\n", (unsigned long long){name});' for name in names]
    rows += ['#define P(x) printf("list kept %llu\\n", (unsigned long long)x);', "SF_KEPT_BY_RESET(P)"]
    rows += ["#undef P", '#define P(x) printf("list sleeps %llu\\n", (unsigned long long)x);', "SF_SLEEPING_CALLS(P)"]
    return "\n".join(
        ["#include <stdio.h>", "#include <stddef.h>", '#include "protocol.h"', "int main(void) {", *rows, "}", ""]
    )


MACROS = {
    "SF_MAGIC": protocol.MAGIC,
    "SF_PROGRAM_OFFSET": protocol.PROGRAM_OFFSET,
    "SF_PROGRAM_SIZE": protocol.PROGRAM_SIZE,
    "SF_TRACE_OFFSET": protocol.TRACE_OFFSET,
    "SF_CODE_BASE": layout.CODE.base,
    "SF_CODE_SIZE": layout.CODE.size,
    "SF_DATA_BASE": layout.DATA.base,
    "SF_DATA_SIZE": layout.DATA.size,
    "SF_VECTORS_BASE": layout.VECTORS.base,
    "SF_VECTORS_SIZE": layout.VECTORS.size,
    "SF_ONE_REG_PC": 0x6030_0000_0010_0040,  # KVM API 4.68: core register, offset of regs.pc / 4
    "SF_FILL_0": TRAP_MRS,
    "SF_FILL_1": ISB,
    "SF_EC_SHIFT": 26,
    "SF_EC_MASK": 0x3F,
    "SF_EC_WFX": 0x01,
    "SF_EC_HVC64": 0x16,
    "SF_EC_IABT_LOW": 0x20,
    "SF_CODE_TRAP": 2,
    **{f"SF_OP_{name.upper()}": number for name, (number, _) in protocol.OPS.items()},
    **{f"SF_STATUS_{name.upper()}": number for name, number in protocol.STATUS.items()},
    **{f"SF_STOP_{name.upper()}": number for name, number in protocol.STOP.items()},
    **{f"SF_RECORD_{name.upper()}": number for name, number in protocol.RECORD_TYPES.items()},
    **{f"SF_RECORD_TO_{name.upper()}": number for name, number in protocol.RECORD_TO.items()},
    **{f"SF_API_{name.upper()}": number for name, (number, _) in protocol.API.items()},
    **{f"SF_EVENT_{name.upper()}": number for name, number in protocol.EVENT.items()},
    **{f"SF_RESET_BY_{name.upper()}": number for name, number in protocol.RESET_BY.items()},
    "SF_FLAGS_VCPU_SHIFT": protocol.FLAGS_VCPU_SHIFT,
    "SF_FLAGS_VM_SHIFT": protocol.FLAGS_VM_SHIFT,
    **{f"SF_PENDING_{name.upper()}": number for name, number in protocol.PENDING.items()},
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, int]]:
    """Return the compiler's values: (struct, field, offset), (struct, sizeof, size), (macro, name, value)."""
    work = tmp_path_factory.mktemp("header")
    (work / "protocol.h").write_text(protocol_header.render())
    (work / "main.c").write_text(_program(MACROS))
    program = work / "main"
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-o", program, work / "main.c"], check=True)
    lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()
    return [(a, b, int(c)) for a, b, c in (line.split() for line in lines)]


def test_offsets_and_sizes(compiled: list[tuple[str, str, int]]) -> None:
    found = {(name, field): number for name, field, number in compiled if name in STRUCTS}
    assert {field: n for (name, field), n in found.items() if name == "sf_control" and field != "sizeof"} == dict(
        protocol.CONTROL_OFFSET
    )
    assert found["sf_control", "sizeof"] == 8 * len(protocol.CONTROL) <= protocol.PAGE
    assert found["sf_op", "sizeof"] == protocol.OP_FORMAT.size
    assert [found["sf_op", field] for field in STRUCTS["sf_op"]] == [0, 4, 8, 16]
    assert found["sf_switch", "sizeof"] == protocol.SWITCH_SIZE
    assert found["sf_host", "sizeof"] == protocol.HOST_SIZE
    for name, words in (("sf_switch", protocol.SWITCH_WORDS), ("sf_host", protocol.HOST_WORDS)):
        assert [found[name, field] for field in ("type", "size", "step", "flags")] == [0, 4, 8, 12]
        assert [found[name, word.name] for word in words] == [16 + 8 * i for i in range(len(words))]


def test_numbers(compiled: list[tuple[str, str, int]]) -> None:
    assert {field: number for name, field, number in compiled if name == "macro"} == MACROS


def test_lists(compiled: list[tuple[str, str, int]]) -> None:
    rows = [(field, number) for name, field, number in compiled if name == "list"]
    listed = {what: [number for field, number in rows if field == what] for what in ("kept", "sleeps")}
    # KVM API 4.68: offsets of sp_el1, elr_el1, spsr[KVM_SPSR_EL1] in struct kvm_regs.
    assert listed["kept"] == [0x6030_0000_0010_0000 | offset // 4 for offset in (272, 280, 288)]
    assert listed["kept"] == [r.one_reg for r in registers.STATE if r.kept_by_reset]
    # Every PSCI call that may stop a vCPU: suspend, off, system off, reset, reset2, off2, system suspend.
    functions = (1, 2, 8, 9, 0xE, 0x12, 0x15)
    both = {0x8400_0000 | n for n in functions} | {0xC400_0000 | n for n in (1, 0xE, 0x12, 0x15)}
    assert set(listed["sleeps"]) == both == {f.fid for f in SMCCC_FUNCTIONS if f.sleeps}


def test_the_same_text_twice() -> None:
    assert protocol_header.render() == protocol_header.render()


def test_registers_that_vhe_keeps_in_the_cpu_are_read_by_their_el12_names() -> None:
    text = protocol_header.render()
    # Arm ARM D17: SCTLR_EL12 is S3_5_C1_C0_0, TPIDR_EL1 has no alias; ESR_EL12 is S3_5_C5_C2_0.
    for row in ("X(SCTLR_EL1, 3, 5, 1, 0, 0,", "X(ESR_EL1, 3, 5, 5, 2, 0,", "X(TPIDR_EL1, 3, 0, 13, 0, 4,"):
        assert row in text
    assert "X(MPIDR_EL1" not in text
    assert "X(CSSELR_EL1, 3, 2, 0, 0, 0, KERNEL_VERSION(6, 3, 0))" in text


def test_the_agent_carries_out_every_operation() -> None:
    """Except operations that are only records, which the recording module writes."""
    agent, module = (GUEST_SOURCES / "agent.c").read_text(), (GUEST_SOURCES / "later.h").read_text()
    for name, (_, what) in protocol.OPS.items():
        is_record = what.startswith("a record only")
        assert (f"case SF_OP_{name.upper()}:" in agent) != is_record, name
        assert not is_record or f"SF_OP_{name.upper()}" in module, name
