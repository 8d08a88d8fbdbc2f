# SPDX-License-Identifier: Apache-2.0
"""Which functions use a row of the model, by the text."""

from __future__ import annotations

from harness.lemma.mutant_reach import row_of, used_by_functions, uses
from harness.lemma.mutants import mutants


def line_of(module: str, text: str) -> int:
    return next(m.line for m in mutants() if m.module == module and text in m.what)


def test_a_row_is_the_statement_at_a_line() -> None:
    line = line_of("constants", "33554432 becomes")
    assert ("constants", "POOL_SIZE") in row_of("constants", line)
    assert row_of("constants", 1) == ()


def test_a_helper_is_used_by_itself_and_by_its_callers() -> None:
    line = line_of("kernel", "12 becomes 13")  # the MPIDR value in reset_sys_regs
    assert used_by_functions("kernel", line) == {
        ("kernel", "reset_sys_regs"),
        ("kernel", "restore_shadow_kvm_regs"),
    }


def test_a_constant_is_used_through_modules() -> None:
    line = line_of("constants", "3288334339 becomes")
    functions = {name for name, _ in used_by_functions("constants", line)}, used_by_functions("constants", line)
    assert functions[0] == {"spec", "low", "body", "kernel"}
    assert {function for _, function in functions[1]} == {"prep_hvc", "save_shadow_kvm_regs"}


def test_what_the_state_uses_counts_for_every_function() -> None:
    line = line_of("constants", "'pmuselr_el0' and 'pmuserenr_el0'")
    assert len(used_by_functions("constants", line)) == 40


def test_the_mapping_uses_the_locks() -> None:
    line = line_of("locks", "left out: d.lock[lock] = True")
    assert uses(("paging", "prot_and_map_vm_s2pt"), "locks", line)
    assert not uses(("paging_kernel", "prot_and_map_vm_s2pt"), "locks", line)
