# SPDX-License-Identifier: Apache-2.0
"""The prover on mutants: one that computes the same is proved equivalent, one that does not is not."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

import harness
from harness.lemma.compare_levels import Question
from harness.lemma.equivalence import PACKAGE, changed_modules, equivalent
from harness.lemma.mutants import Mutant, mutants
from harness.lemma.prove import same
from harness.lemma.symbolic import Explorer
from harness.lemma.symbolic_memory import MemoryState, index, memory_of
from harness.lemma.symbolic_starts import Start, start_state
from harness.model import CODE, paging
from harness.model.state import Undefined


def mutant(name: str) -> Mutant:
    return next(m for m in mutants() if m.name == name)


@pytest.mark.parametrize(
    ("name", "runs"),
    (
        ("low.py:199: 3 becomes 4", True),
        ("low.py:144: left out: d.rely('is_int64 load_info', is_int64(load_info))", True),
        ("machine_kernel.py:121: 0 becomes 1", False),
    ),
)
def test_a_change_that_no_state_shows_is_proved_equivalent(name: str, runs: bool) -> None:
    found = equivalent(mutant(name))
    assert (found.why, found.paths > 0) == ("", runs)


@pytest.mark.parametrize(
    ("name", "where"),
    (
        ("spec.py:301: left out: d.rely('is_int64 pstate', is_int64(pstate))", "only one is defined"),
        ("constants.py:68: 8 becomes 9", "only one is defined"),
        ("kernel.py:130: Add becomes Sub", "kernel reset_sys_regs: ctxt"),
        ("paging.py:142: Add becomes Sub", "paging prot_and_map_vm_s2pt: npt1"),
    ),
)
def test_a_change_that_a_state_shows_is_not(name: str, where: str) -> None:
    assert where in equivalent(mutant(name)).why


def test_the_model_itself_stays_as_it_is() -> None:
    before = sys.modules[PACKAGE]
    with changed_modules(mutant("constants.py:68: 8 becomes 9")) as changed:
        assert changed["constants"].VCPU_MAX == 9
        assert changed["model"].CODE["spec", "prep_wfx"] is not CODE["spec", "prep_wfx"]
    assert sys.modules[PACKAGE] is before is harness.model
    assert sys.modules[f"{PACKAGE}.constants"].VCPU_MAX == 8


def test_a_mapping_asks_of_its_level_only_whether_it_is_2() -> None:
    # what the comparison of black boxes assumes
    def run(level: int, x: Explorer, check: Callable[[MemoryState], None]) -> None:
        d, _ = start_state(Start(), Question(("body", "body"), "post_handle_shadow_s2pt_fault"), x, MemoryState)
        assert isinstance(d, MemoryState)
        d.with_memory()
        pages: object = d.s2page.get(index("pte") // 4096, (0, 0, 0))[0]
        x.solver.add(pages.term == 1)  # type: ignore[attr-defined]
        try:
            paging.prot_and_map_vm_s2pt(d, 1, index("addr"), index("pte"), level)
        except Undefined:
            return
        check(d)

    def both() -> None:
        run(3, x, lambda a: run(4, x, lambda b: compare(a, b)))

    def compare(a: MemoryState, b: MemoryState) -> None:
        compared.append((a.halt, b.halt))
        assert a.halt == b.halt
        for (name, u), (other, v) in zip(memory_of(a), memory_of(b), strict=True):
            assert name == other
            if name.endswith("next"):
                assert same(u, v)

    compared: list[tuple[bool, bool]] = []
    x = Explorer()
    x.explore(both)
    assert len(compared) > 4
