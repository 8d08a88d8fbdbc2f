# SPDX-License-Identifier: Apache-2.0
"""Which node works on which target."""

from __future__ import annotations

import pytest

from fuzz.cluster.spread import TURN_SECONDS, WINDOW_SECONDS, Growth, Work, matching, next_target, who_moves
from harness.errors import InputError

TARGETS = ("a", "b", "c")
LATE = 2 * TURN_SECONDS


def test_patterns() -> None:
    names = ["kvm-nvhe", "kvm-vhe", "kvm-6.12-nvhe"]
    assert matching("kvm-*", names) == tuple(names)
    assert matching("*-vhe, kvm-nvhe,*vhe", names) == ("kvm-vhe", "kvm-nvhe", "kvm-6.12-nvhe")
    with pytest.raises(InputError, match="--targets: 'x86' matches none of kvm-nvhe, "):
        matching("kvm-*,x86", names)


def test_a_free_node_goes_where_nobody_is_then_where_most_is_found() -> None:
    a, b = Work("n1", "a", 0), Work("n2", "b", 0)
    assert next_target(TARGETS, [], {}, set(), {}) == "a"
    assert next_target(TARGETS, [a], {"a": 99.0}, set(), {}) == "b"
    assert next_target(TARGETS, [a, b], {}, {"c"}, {}) == "a"
    assert next_target(("a", "b"), [a, b], {"a": 1.0, "b": 9.0}, set(), {}) == "b"
    assert next_target(("a", "b"), [a, b, b, b], {"a": 3.0, "b": 5.0}, set(), {}) == "a", "what one more may find"
    assert next_target(TARGETS, [], {}, set(TARGETS), {}) is None
    assert next_target(TARGETS, [a], {}, set(), {"a": 9.0, "b": 5.0, "c": 1.0}) == "c", "it waits for longest"


def test_nodes_take_turns_where_there_are_more_targets() -> None:
    early, late = Work("n1", "a", 0), Work("n2", "b", 5)
    assert who_moves(TARGETS, [early, late], {}, TURN_SECONDS - 1) is None
    assert who_moves(TARGETS, [early, late], {}, LATE) == early
    assert who_moves(TARGETS, [early, late], {"a": 5.0}, LATE) == late, "what finds least moves first"


def test_a_node_moves_only_to_what_clearly_finds_more() -> None:
    nodes = [Work("n1", "a", 0), Work("n2", "a", 1), Work("n3", "b", 0)]
    assert who_moves(("a", "b"), nodes, {"a": 4.0, "b": 6.0}, LATE) is None
    assert who_moves(("a", "b"), nodes, {"a": 1.0, "b": 9.0}, LATE) == nodes[0]
    assert who_moves(("a", "b"), nodes, {"a": 90.0, "b": 0.0}, LATE) is None, "the last node of a target stays"
    assert who_moves(("a",), [nodes[0]], {}, LATE) is None


def test_growth_is_that_of_lately() -> None:
    growth = Growth()
    growth.note(0, {"a": 0, "b": 5})
    assert growth.gains() == {"a": 0.0, "b": 0.0}
    growth.note(60, {"a": 30, "b": 5})
    assert growth.gains() == {"a": 30.0, "b": 0.0}
    growth.note(60 + WINDOW_SECONDS, {"a": 40, "b": 5})
    assert growth.gains() == {"a": 1.0, "b": 0.0}
