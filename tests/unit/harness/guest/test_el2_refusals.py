# SPDX-License-Identifier: Apache-2.0
"""What EL2 refuses a protected guest is one divergence with a name; all that follows from it is none of its own."""

from __future__ import annotations

import pytest

from harness.arch.a64 import encode
from harness.arch.cpu_models import cpu_model
from harness.arch.exceptions import State, take_exception
from harness.arch.registers import BY_NAME
from harness.guest.context import GuestContext
from harness.guest.memory import Memory
from harness.guest.predict_run import RUNS_ON, predict_run
from harness.layout import CODE, VECTORS
from harness.relations.divergence import Divergence
from harness.relations.switch import compare_run
from harness.scenario.code_layout import Code
from harness.trace.rounds import GuestRun
from tests.support.traces import but, entry, esr, irq, state, trap

AT, A72 = CODE.base, cpu_model("cortex-a72")
ACTLR, MDSCR, TPIDR, ESR = (BY_NAME[name].encoding for name in ("actlr_el1", "mdscr_el1", "tpidr_el1", "esr_el1"))
WORDS = (
    *(encode("mrs", "x5", ACTLR), encode("msr", MDSCR, "x7"), encode("mrs", "x8", MDSCR), encode("msr", TPIDR, "x6")),
    *(encode("mrs", "x9", ESR), encode("brk", 1)),
)
CODE_OF_IT = dict(zip(range(AT, AT + 4 * len(WORDS), 4), WORDS, strict=True))
BEFORE = but(state(vbar_el1=VECTORS.base), pc=AT, x6=0x66, x7=0x1000, actlr_el1=0x55)
UNDEFINED, BRK = 0x0200_0000, 0xF200_0001
DONE = but(BEFORE, x5=0x55, mdscr_el1=0x1000, x8=0x1000, tpidr_el1=0x66, x9=0, pc=AT + 20)


def shown(before: State, after: State, protected: bool = True) -> list[str]:
    """The divergences of a run that ends at the guest's vector."""
    code, memory = Code(CODE_OF_IT, protected), Memory()
    context = GuestContext(code, A72, memory)
    run = predict_run(GuestRun(0, entry(before), trap(after, esr("SYS64", 0x32_0021))), context)
    return [d.name for d in compare_run(run, context) if isinstance(d, Divergence) and d.register != "esr_el2"]


def test_nothing_is_refused() -> None:
    assert shown(BEFORE, take_exception(DONE, BRK)) == []


@pytest.mark.parametrize(
    ("after", "names"),
    [
        (take_exception(BEFORE, UNDEFINED), ["switch.undefined.actlr_el1"]),
        (take_exception(but(DONE, mdscr_el1=0, x8=0), BRK), ["switch.ignored.mdscr_el1"]),
        (
            take_exception(but(DONE, mdscr_el1=0, x8=0, x5=0), BRK),
            ["switch.ignored.actlr_el1", "switch.ignored.mdscr_el1"],
        ),
        (take_exception(but(DONE, tpidr_el1=0), BRK), ["switch.ignored.tpidr_el1"]),
    ],
)
def test_what_follows_from_a_refusal_is_not_told_again(after: State, names: list[str]) -> None:
    assert shown(BEFORE, after) == names
    assert set(shown(BEFORE, after, protected=False)).isdisjoint(names), "elsewhere each access has an exit"


def test_a_guest_that_was_interrupted_on_its_second_way_round_refused_nothing() -> None:
    words = encode("mrs", "x5", TPIDR), encode("msr", TPIDR, "x6"), encode("br", "x20")
    code, memory = Code(dict(zip(range(AT, AT + 12, 4), words, strict=True)), protected=True), Memory()
    before = but(BEFORE, x20=AT, x6=0, tpidr_el1=0x77)
    seen = but(before, x5=0, tpidr_el1=0, pc=AT + 8)
    run = predict_run(GuestRun(0, entry(before), irq(seen)), GuestContext(code, A72, memory))
    assert (run.refused, run.path.why) == ((), RUNS_ON)


@pytest.mark.parametrize("register", ["x5", "tpidr_el1", "elr_el1", "esr_el1", "spsr_el1", "x20"])
def test_what_no_refusal_leads_to_is_told_register_by_register(register: str) -> None:
    """A wrong value is not explained away: all of the state must be what the refusal leaves."""
    for right in (take_exception(DONE, BRK), take_exception(BEFORE, UNDEFINED)):
        wrong = but(right, **{register: 0x7777})
        assert f"switch.{register}" in shown(BEFORE, wrong)
