# SPDX-License-Identifier: Apache-2.0
"""Scenarios on two targets: what differs in any run counts once, and in how many runs it was there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from fuzz.targets.observation import Seen, Watch
from fuzz.triage.compare_releases import compare_all
from harness.scenario.scenario import Scenario
from tests.support.fake_worker import DIVERGENCE, SCENARIO, SUBJECT, TRACE, checked

OTHER = DIVERGENCE._replace(register="x4")
LATER = DIVERGENCE._replace(event=9)
"""The same one, behind an interrupt more."""


def test_what_differs_in_any_run_counts_once() -> None:
    answers = [checked(DIVERGENCE), checked(), checked(LATER, OTHER)]
    fresh: list[bool] = []

    def watch(_: Scenario, fresh_vm: bool) -> tuple[Seen, ...]:
        fresh.append(fresh_vm)
        alone = Seen(SUBJECT, checked(DIVERGENCE._replace(register="x5")), (TRACE,))
        return alone, Seen(SUBJECT, answers[len(fresh) - 1], (TRACE, TRACE), SUBJECT)

    @contextmanager
    def boot() -> Iterator[Watch]:
        yield watch

    bench: Any = SimpleNamespace(boot=boot)
    (compared,) = compare_all(bench, [("a.scn", SCENARIO)], repeat=3)
    assert (compared.name, fresh) == ("a.scn", [True] * 3)
    assert [judged.divergence.register for judged in compared.judged] == ["x3", "x4"], "x5 is of one target alone"
    assert [compared.seen(judged) for judged in compared.judged] == [2, 1]
