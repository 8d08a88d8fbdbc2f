# SPDX-License-Identifier: Apache-2.0
"""KVM's text from a synthetic symbol table with the structure of real ones."""

from __future__ import annotations

import pytest

from harness.errors import SetupError
from harness.vm.kernels.kallsyms import LOAD_OFFSET, Symbols
from harness.vm.kernels.kvm_functions import EL1, EL2, GENERIC, from_lines, kvm_text

BASE = 0xFFFF_8000_0800_0000
ROWS = (
    (0x10000, "_stext"),
    (0x40000, "something_before"),
    (0x44E50, "__traceiter_kvm_userspace_exit"),
    (0x45000, "kvm_vcpu_ioctl"),
    (0x55DB0, "__traceiter_kvm_entry"),
    (0x56000, "kvm_vm_ioctl_check_extension"),
    (0x5FE20, "io_mem_abort"),
    (0x8B870, "kvm_pgtable_stage2_map"),
    (0x8B900, "stage2_split_walker"),
    (0x8C180, "xen_unmap_domain_gfn_range"),
    (0xBAF530, "kvm_arm_vcpu_enter_exit"),
    (0xBAF600, "noinstr_of_others"),
    (0xBC2000, "__kvm_nvhe___hyp_section_.hyp.idmap.text"),
    (0xBC2000, "__kvm_nvhe___kvm_hyp_init"),
    (0xBC2000, "__hyp_idmap_text_start"),
    (0xBC3000, "__kvm_nvhe_handle_trap"),
    (0xBD2000, "__hyp_text_end"),
)


def symbols(rows: tuple[tuple[int, str], ...] = ROWS) -> Symbols:
    addresses, names = tuple(BASE + offset for offset, _ in rows), tuple(name for _, name in rows)
    return Symbols(BASE, addresses, names, 0x100_0000, dict(zip(names, addresses, strict=True)))


def test_functions_have_their_part_and_their_place_in_ram() -> None:
    text = kvm_text(symbols())
    parts = {function.name: function.part for function in text.functions}
    assert parts == {
        "__traceiter_kvm_userspace_exit": GENERIC,
        "kvm_vcpu_ioctl": GENERIC,
        "__traceiter_kvm_entry": EL1,
        "kvm_vm_ioctl_check_extension": EL1,
        "io_mem_abort": EL1,
        "kvm_pgtable_stage2_map": EL1,
        "stage2_split_walker": EL1,
        "kvm_arm_vcpu_enter_exit": EL1,
        "__kvm_nvhe___kvm_hyp_init": EL2,  # names of sections are not functions
        "__kvm_nvhe_handle_trap": EL2,
    }
    assert text.at("io_mem_abort") == LOAD_OFFSET + 0x5FE20
    assert text.ranges == tuple(
        (LOAD_OFFSET + begin, LOAD_OFFSET + end)
        for begin, end in ((0x44E50, 0x8C180), (0xBAF530, 0xBAF600), (0xBC2000, 0xBD2000))
    )


@pytest.mark.parametrize(
    ("offset", "name"),
    [
        (0x5FE20, "io_mem_abort"),
        (0x5FE24, "io_mem_abort+0x4"),
        (0x8B86C, "io_mem_abort+0x2ba4c"),
        (0xBD1FFC, "__kvm_nvhe_handle_trap+0xeffc"),
        (0x8C180, hex(LOAD_OFFSET + 0x8C180)),  # after KVM's text
        (0x44E4C, hex(LOAD_OFFSET + 0x44E4C)),  # before it
    ],
)
def test_an_offset_is_named(offset: int, name: str) -> None:
    assert kvm_text(symbols()).name(LOAD_OFFSET + offset) == name


def test_lines_give_the_same_text() -> None:
    text = kvm_text(symbols())
    assert from_lines(text.to_lines()) == text


@pytest.mark.parametrize("missing", ["__traceiter_kvm_entry", "kvm_pgtable_stage2_map", "__hyp_text_end"])
def test_a_kernel_without_a_bound_is_refused(missing: str) -> None:
    with pytest.raises(SetupError, match=missing):
        kvm_text(symbols(tuple(row for row in ROWS if row[1] != missing)))


def test_a_kernel_without_a_function_is_refused() -> None:
    with pytest.raises(SetupError, match="no function handle_hvc"):
        kvm_text(symbols()).at("handle_hvc")
