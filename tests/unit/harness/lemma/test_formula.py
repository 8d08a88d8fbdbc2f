# SPDX-License-Identifier: Apache-2.0
"""Formulas over a start state, as numbers and as symbolic conditions."""

from __future__ import annotations

from typing import Any

import pytest
import z3

from harness.lemma.case import SLOTS
from harness.lemma.formula import Formula, negated
from harness.lemma.symbolic import Truth
from harness.lemma.symbolic_starts import variable

STATES: tuple[dict[str, int], ...] = (
    {},
    {"ctxt.dirty": 3, "core.0": 4095, "ctxt.pstate": 4, "vbar": 0x8000},
    {"ctxt.dirty": (1 << 64) - 1, "core.0": 4096, "ctxt.pstate": 5, "vbar": 1 << 64},
    {"halt": 1, "vmid": 16, "ctxt.dirty": 1 << 64, "core.0": 1 << 48},
)


@pytest.mark.parametrize(
    "text",
    (
        "not halt and 0 < core[0] < 4096",
        "registers(ctxt.dirty) >= 2 or not is_int64(ctxt.dirty)",
        "is_vm(vmid) and ctxt.dirty | SKIP != SKIP",
        "ctxt.dirty in (0, 3, INVALID64)",
        "is_addr(vector(ctxt.pstate) if ctxt.dirty & INJECT != 0 else core[0])",
        "(ctxt.dirty >> 1) & 1 == 1 and core[0] // 16 * 2 - 1 < 510",
    ),
)
@pytest.mark.parametrize("state", STATES)
def test_a_formula_says_the_same_of_numbers_and_of_terms(text: str, state: dict[str, int]) -> None:
    formula = Formula(text)
    plain = ("vmid", "halt")

    def lookup(name: str) -> Any:
        return state.get(name, SLOTS[name].default) if name in plain else variable(name)

    symbolic = formula.holds(lookup)
    solver = z3.Solver()
    for name in ("ctxt.dirty", "core.0", "ctxt.pstate", "vbar"):
        solver.add(variable(name).term == state.get(name, 0))
    for holds, wanted in ((symbolic, formula.of_case(state)), (negated(symbolic), not formula.of_case(state))):
        condition = holds.term if isinstance(holds, Truth) else z3.BoolVal(holds)
        assert solver.check(condition != z3.BoolVal(wanted)) == z3.unsat


def test_load_info_is_the_last_image() -> None:
    images = {"info.vm_next_load_info": 2, "image0.size": 8, "image0.remap": 100, "image1.addr": 4, "image1.size": 8}
    found = Formula("load_info(core[0]) == 102")
    assert found.of_case({**images, "core.0": 2})
    assert not found.of_case({**images, "core.0": 6})
    assert Formula("load_info(core[0]) == 2").of_case({**images, "core.0": 6})
    assert Formula("load_info(core[0]) == 0").of_case({**images, "core.0": 50})


@pytest.mark.parametrize("text", ("ctxt.nothing == 1", "core[9] == 0", "open(vmid)", "vmid ==", "[vmid]"))
def test_what_is_no_formula(text: str) -> None:
    with pytest.raises(ValueError, match="formula"):
        Formula(text)
