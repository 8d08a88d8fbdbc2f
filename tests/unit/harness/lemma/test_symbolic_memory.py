# SPDX-License-Identifier: Apache-2.0
"""Symbolic memory: a read finds the last write at its index, and is free elsewhere."""

from __future__ import annotations

from harness.lemma.symbolic import Explorer
from harness.lemma.symbolic_memory import SymbolicMap, SymbolicSet, index


def test_a_read_branches_on_whether_its_index_was_written() -> None:
    seen, written = [], (7,)

    def run() -> None:
        pages = SymbolicMap(x, "page", ("owner",))
        a, b = index("a"), index("b")
        pages[a] = written
        found = pages.get(b, None)
        seen.append((found is written, x.possible(a.term != b.term, "a and b")))
        assert pages.get(a, None) is written

    x = Explorer()
    x.explore(run)
    assert sorted(seen) == [(False, True), (True, False)]


def test_equal_indices_have_equal_free_entries() -> None:
    def run() -> None:
        pages = SymbolicMap(x, "page", ("owner", "count"))
        a, b = index("a"), index("b")
        x.solver.add(a.term == b.term)
        (u, _), (v, _) = pages.get(a, None), pages.get(b, None)
        assert not x.possible(u.term != v.term, "the entries")

    x = Explorer()
    x.explore(run)


def test_a_set_knows_what_was_added_and_taken_out() -> None:
    def run() -> None:
        tables, a, b = SymbolicSet(x, "pgd"), index("a"), index("b")
        added = tables | {a}
        assert a in added
        assert a not in added - {a}
        members.append(b in tables)

    members: list[bool] = []
    x = Explorer()
    x.explore(run)
    assert sorted(members) == [False, True]


def test_a_number_from_memory_branches_where_the_text_uses_a_plain_condition() -> None:
    def run() -> None:
        (count,) = SymbolicMap(x, "page", ("count",)).get(index("a"), None)
        outcomes.append(0 if count == 0xFFFF_FFFF else 1)

    outcomes: list[int] = []
    x = Explorer()
    x.explore(run)
    assert sorted(outcomes) == [0, 1]
