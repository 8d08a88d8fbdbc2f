# SPDX-License-Identifier: Apache-2.0
"""Comparison of nights on one target: names that no earlier run had, and names that only the run before had."""

from __future__ import annotations

from typing import Any

import pytest

from harness.report.campaign_data import Run
from harness.report.html_nights import nights
from harness.report.nights import Change, ids_of, nights_of, nights_with, nights_with_erratum


def run(id_: str, summary: Any, target: str = "kvm-nvhe") -> Run:
    return Run(id_, f"2026-01-0{id_}T00:00:00+00:00", {"target": target, "level": "spec"}, summary, ())


def found(*errata: str, problems: tuple[str, ...] = ()) -> dict[str, object]:
    return {"errata": [{"id": name} for name in errata], "problems": [{"id": name} for name in problems]}


def test_what_is_new_and_what_is_gone() -> None:
    told = nights_of((run("1", found("a", "b")), run("2", found("b", "c", problems=("p",))), run("3", found("a", "b"))))
    assert [night.errata for night in told] == [None, Change(("c",), ("a",)), Change((), ("c",))], "a is not new again"
    assert [night.problems for night in told] == [None, Change(("p",), ()), Change((), ("p",))]


def test_only_runs_of_one_target_that_ended_are_compared() -> None:
    told = nights_of((run("1", found("a")), run("2", found("b"), "kvm-vhe"), run("3", None), run("4", found("b"))))
    assert [night.run.id for night in told] == ["1", "2", "4"]
    assert [night.errata for night in told] == [None, None, Change(("b",), ("a",))]


@pytest.mark.parametrize("rows", [None, 5, "x", {}, [1, None, {}, [], {"id": None}], [{"id": "x" * 5000}]])
def test_a_malformed_summary(rows: Any) -> None:
    assert all(len(name) <= 200 for name in ids_of(run("1", {"errata": rows}), "errata"))


def test_the_section() -> None:
    told = nights((run("1", found("a")), run("2", found("b", problems=("p",)))), {"b": "erratum-b"})
    assert '<a href="#erratum-b">b</a>' in told and ">p, <a" in told and "1 problem new, 0 gone" in told
    assert told.count("<svg") == 4, "plots over nights"
    many = nights(tuple(run(str(i % 10), found(str(i))) for i in range(40)), {})
    assert "26 earlier nights" in many


def test_in_how_many_runs_something_was_found() -> None:
    runs = [run(str(i), {"findings": [{"id": name} for name in names]}) for i, names in enumerate(("ab", "c", ""))]
    assert nights_with((*runs, run("9", None)), ("a", "c")) == (2, 3)
    assert nights_with(runs, ()) == (0, 3)
    assert nights_with_erratum((run("1", found("a")), run("2", found("b", "a")), run("3", None)), "a") == (2, 2)
