# SPDX-License-Identifier: Apache-2.0
"""A memoised replay returns the prediction of its level, for any round, whatever it has recorded before."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.arch import exits
from harness.arch.registers import INDEX, NAMES, STATE
from harness.model.memoised_replay import AUDIT, PATIENCE, MemoisedReplay, Traced
from harness.model.replay import predict
from harness.protocol import OP_RESET, OP_SET
from harness.trace.events import ENTRY, EXIT, HOST, USER, Host, Switch
from harness.trace.rounds import Round
from tests.support.rounds import GOOD
from tests.support.traces import EXCEPTION, SKIP, but, entry, esr, host_reset, load_esr, rounds, state, trap, turn

LEVELS = ("spec", "low", "body", "kernel")
SHORTCUTS = {level: MemoisedReplay(level, patience=1) for level in LEVELS}
"""Shared by all examples: a path that one of them recorded must not give a wrong result for the next."""

U64 = st.integers(0, (1 << 64) - 1)
FUNCTIONS = st.sampled_from([f.fid for f in exits.SMCCC_FUNCTIONS])
# Few values of each kind, so that examples fit the paths of others.
VALUES = st.sampled_from([0, 1, 4, 5, 0x3C5, 0x4000_0000, 0x4001_0004, 1 << 40, (1 << 64) - 1]) | FUNCTIONS | U64
REGISTERS = st.lists(VALUES, min_size=len(NAMES), max_size=len(NAMES)).map(tuple)
SYNDROMES = st.builds(
    lambda ec, iss: ec << exits.EC_SHIFT | exits.IL_BIT | iss,
    st.sampled_from([c.ec for c in exits.EXCEPTION_CLASSES]),
    st.sampled_from([0, 0x47, 0x07, 0x87, 0x10, 1 << 24 | 0x1F << 16 | 7]) | st.integers(0, exits.ISS_MASK),
)
PAGES = st.sampled_from([0, 0x90000, 0x400000, 0x400200, 0x500000]) | U64


def switch(kind: int) -> st.SearchStrategy[Switch]:
    return st.builds(
        lambda code, error, esr_, far, hpfar, pending, values: Switch._make(
            (kind, 0, code, error, esr_, far, hpfar, 0, pending, 0, 0, 0, 0, values)
        ),
        st.sampled_from([0, 1, 2, 2, 2, 2, 3]),
        st.just(0),
        SYNDROMES | U64,
        VALUES,
        PAGES,
        st.sampled_from([0, SKIP, EXCEPTION]),
        REGISTERS,
    )


HOSTS = st.sampled_from([Host(HOST, 0, OP_RESET, 0, 0, 0, True), Host(HOST, 0, OP_SET, STATE[5].one_reg, 7, 0, True)])
ROUNDS = st.builds(
    lambda exit_, users, hosts, entry_: Round(0, exit_, tuple(users), tuple(hosts), entry_),
    st.none() | switch(EXIT),
    st.lists(switch(USER), max_size=1),
    st.lists(HOSTS, max_size=2),
    switch(ENTRY),
)


@pytest.mark.parametrize("level", LEVELS)
@settings(deadline=None, max_examples=400)
@given(ROUNDS)
def test_any_round(level: str, round_: Round) -> None:
    right = predict(round_, level)
    assert SHORTCUTS[level](round_) == right  # recorded now or before
    assert SHORTCUTS[level](round_) == right  # recorded before


@pytest.mark.parametrize("level", LEVELS)
def test_rounds_as_kvm_takes_them(level: str) -> None:
    memoised_replay = MemoisedReplay(level, patience=1)
    for _ in range(2):
        for row in GOOD:
            assert memoised_replay(row.round) == predict(row.round, level), row


def test_a_path_serves_other_values_with_equal_conditions() -> None:
    memoised_replay = MemoisedReplay("spec", patience=1)
    load = load_esr(4)
    first = turn(trap(state(x4=1), load, hpfar=0x90000), entry(state(x4=7), SKIP))
    other = turn(trap(state(x4=2, x9=5), load, hpfar=0x90010), entry(state(x4=8, x9=5), SKIP))
    outside = turn(trap(state(x4=2), load, hpfar=0x500000), entry(state(x4=8), SKIP))
    memoised_replay(first)
    assert memoised_replay.learnt == 1
    found = memoised_replay(other)
    assert memoised_replay.learnt == 1 and found == predict(other, "spec")
    assert found.state is not None and found.state[INDEX["x9"]] == 5
    assert memoised_replay(outside) == predict(outside, "spec")
    assert memoised_replay.learnt == 2


def test_values_are_numbers_again() -> None:
    """A prediction has no traced numbers: it is compared, kept and printed."""
    found = MemoisedReplay("spec", patience=1)(turn(trap(state(), esr("WFX")), entry(state(), SKIP)))
    assert found.state is not None
    assert all(type(value) is int for value in (*found.state, found.dirty, found.spsr_0))
    assert all(type(taken) is bool for _, taken in found.path)


def test_an_audit_detects_a_wrong_path() -> None:
    memoised_replay = MemoisedReplay("spec", patience=1)
    round_ = turn(trap(state(), esr("WFX")), entry(state(), SKIP))
    right = memoised_replay(round_)
    ((_, ways),) = memoised_replay.ways.items()
    ways[0] = lambda e, n, x: right._replace(dirty=right.dirty ^ 1)
    with pytest.raises(RuntimeError, match="differ"):
        for _ in range(AUDIT):
            memoised_replay(round_)


def test_a_path_is_learnt_where_several_rounds_of_a_kind_had_none() -> None:
    memoised_replay = MemoisedReplay("spec")
    round_ = turn(trap(state(), esr("WFX")), entry(state(), SKIP))
    learnt = []
    for _ in range(PATIENCE + 1):
        assert memoised_replay(round_) == predict(round_, "spec")
        learnt.append(memoised_replay.learnt)
    assert learnt == [0] * (PATIENCE - 1) + [1, 1]


def test_reset_and_first_rounds() -> None:
    memoised_replay = MemoisedReplay("spec", patience=1)
    events = (entry(state()), trap(state(x1=3), esr("WFX")), host_reset(), entry(but(state(), pc=0)))
    for round_ in (*rounds(events), *rounds(events)):
        assert memoised_replay(round_) == predict(round_, "spec")


def test_conditions_on_a_traced_number_are_recorded() -> None:
    asked: dict[str, bool] = {}
    number = Traced("e[0]", 6, asked, raw=True)
    assert bool(number >= 0) and bool(number < 1 << 64) and not asked  # true of every register
    assert {6: "six"}[(number + 1) - 1] == "six"
    assert 1 << number == 64
    assert bool((number & 4 != 0) | (number == 0))
    assert asked == {
        "((e[0]) + 1) - 1 == 6": True,
        "(((e[0]) + 1) - 1) == 6": True,
        "e[0] == 6": True,
        "((e[0]) & 4) != 0": True,
    }
