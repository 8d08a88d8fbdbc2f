# SPDX-License-Identifier: Apache-2.0
"""Which traps are calls."""

from __future__ import annotations

from harness import protocol
from harness.arch.a64 import encode
from harness.guest.instruction_fetch import is_call, word_at
from harness.layout import CODE
from harness.trace.events import Switch
from tests.support.traces import but, esr, state, trap

AT = CODE.base

EL0, SPAN = 0x3C0, 1 << 23

WORKAROUND_1, WORKAROUND_2, WORKAROUND_3 = 0x8000_8000, 0x8000_7FFF, 0x8000_3FFF


def code(*words: int) -> dict[int, int]:
    return {AT + 4 * i: word for i, word in enumerate(words)}


LOAD, STORE, HVC = encode("ldr", "x3", "x1"), encode("str", "x3", "x1"), encode("hvc", 0)


def at_exit(pc: int, exit_class: str, marks: int = 0) -> Switch:
    return trap(but(state(), pc=pc), esr(exit_class), marks=marks)


def called(before: tuple[int, ...], words: dict[int, int], exit_: Switch) -> bool:
    return is_call(before, word_at(words, exit_.get("pc") - 4), exit_)


def test_is_call() -> None:
    """The return address of an HVC is the next instruction; that of any other trap is the instruction's own."""
    words = code(HVC, encode("wfi"), HVC)
    assert called(state(), words, at_exit(AT + 4, "HVC64"))
    assert not called(state(), words, at_exit(AT, "HVC64")), "nothing before the code"
    assert not called(state(), words, at_exit(AT + 8, "WFX"))
    assert not called(but(state(), pc=AT + 4), words, at_exit(AT + 4, "WFX")), "the WFI itself"


def test_is_call_does_not_trust_the_syndrome_alone() -> None:
    """It started at the HVC and is at the next instruction: nothing else can have trapped, whatever ESR_EL2 says."""
    words = code(HVC, encode("wfi"))
    assert called(state(), words, at_exit(AT + 4, "SYS64"))
    assert called(state(pc=AT - 4), words, at_exit(AT + 4, "SYS64", protocol.FORGE["esr"] | protocol.MARK_CALL))
    assert not called(state(pc=AT - 4), words, at_exit(AT + 4, "HVC64", protocol.FORGE["esr"])), "forged"
    assert not called(state(pstate=EL0), words, at_exit(AT + 4, "SYS64")), "UNDEFINED at EL0"
    assert not called(state(x0=WORKAROUND_1), words, at_exit(AT + 4, "SYS64")), "may have been answered at EL2"
