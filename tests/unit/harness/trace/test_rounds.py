# SPDX-License-Identifier: Apache-2.0
"""Traces are cut into rounds and runs."""

from __future__ import annotations

from tests.support.rounds import S
from tests.support.traces import (
    INTR_EXIT,
    entry,
    esr,
    host_reset,
    host_set,
    irq,
    rounds,
    runs,
    trap,
    turn,
    user,
)


def test_rounds_and_runs() -> None:
    events = (
        *(host_set("x1", 1), entry(S), irq(S), entry(S), trap(S, esr("WFX")), user(S, INTR_EXIT)),
        *(host_set("x2", 2), entry(S), trap(S, esr("HVC64")), user(S, INTR_EXIT)),
    )
    cut = list(rounds(events))
    assert [r.first for r in cut] == [1, 2, 4]
    assert [r.exit_class for r in cut] == ["FIRST", "IRQ", "WFX"]
    assert [len(r.host_actions) for r in cut] == [1, 0, 1]
    assert [len(r.userspace_exits) for r in cut] == [0, 0, 1]
    assert [r.reset for r in cut] == [True, False, False]
    found = list(runs(events))
    assert [i for i, _, _ in found] == [2, 4, 8]
    assert all(exit_ is events[i] for i, _, exit_ in found)


def test_an_entry_without_an_exit_is_no_run_and_an_exit_without_an_entry_no_round() -> None:
    assert not list(runs((entry(S), entry(S))))
    assert not list(runs((trap(S, 0), user(S, 10))))
    assert not list(rounds((trap(S, 0), user(S, 10))))
    assert not list(rounds(()))
    assert not list(runs(()))


def test_a_reset_in_the_middle() -> None:
    assert turn(irq(S), host_reset(), entry(S)).reset
