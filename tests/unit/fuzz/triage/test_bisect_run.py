# SPDX-License-Identifier: Apache-2.0
"""A bisection on fake cells: which kernels are run, how often, and the output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, Store
from fuzz.triage import bisect_run
from fuzz.triage.bisect import target_name
from fuzz.triage.bisect_run import FLAKY_RUNS, Bisection, BisectPlan, bisect, find_story
from fuzz.triage.matrix import CANNOT, CLEAN, DIVERGES, Cell, MatrixWork, make_case
from harness.errors import InputError, SetupError
from harness.findings.finding import Finding, Tries
from harness.findings.release_history import CANNOT as CANNOT_RUN
from harness.findings.release_history import SHOWS, SHOWS_NOT, read_history
from harness.vm.debian.kernel_archive import Kernel, Kernels
from tests.support.fake_worker import SCENARIO, SUBJECT

VERSIONS = ("6.1.1-1", "6.1.2-1", "6.1.3-1", "6.1.4-1")
KERNELS = Kernels(tuple(Kernel(version, version, ("sid",), (), ()) for version in VERSIONS), {})
CASE = make_case("case", SCENARIO)
BAD = "host.pc"


class Machines:
    """Returns cells: by version, the number of runs that show a finding; None: the kernel cannot run."""

    def __init__(self, seen: dict[str, Callable[[int], int] | None]) -> None:
        self.seen = seen
        self.ran: list[tuple[str, int]] = []

    def run_all(self, work: Sequence[MatrixWork], done: Callable[[Sequence[Cell]], None]) -> None:
        for each in work:
            self.ran.append((each.target, each.repeat))
            count = self.seen[each.target.partition("@")[2]]
            if count is None:
                done([Cell(each.target, "case", "", CANNOT, why="no image")])
                continue
            hits = count(each.repeat)
            found = (BAD,) if hits else ()
            done([Cell(each.target, "case", "", DIVERGES if hits else CLEAN, found, hits, each.repeat)])


def run(
    monkeypatch: pytest.MonkeyPatch, seen: dict[str, Callable[[int], int] | None], plan: BisectPlan
) -> tuple[Bisection, Machines, list[str]]:
    machines, said = Machines(seen), list[str]()
    monkeypatch.setattr(bisect_run, "load_kernels", lambda *_: KERNELS)
    monkeypatch.setattr(bisect_run, "changelog_lines", lambda *_: ["  (no changelog)"])
    return bisect(CASE, plan, said.append, machines.run_all), machines, said


def always(runs: int) -> int:
    return runs


def never(runs: int) -> int:
    return 0


def test_the_change_is_found_between_two_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = dict(zip(VERSIONS, (always, always, never, never), strict=True))
    found, machines, said = run(monkeypatch, seen, BisectPlan(repeat=2))
    assert [(change.before, change.after) for change in found.found.changes] == [("6.1.2-1", "6.1.3-1")]
    assert machines.ran[:2] == [(target_name("kvm-nvhe", version), 2) for version in (VERSIONS[0], VERSIONS[-1])]
    assert said[0] == "1: kvm-nvhe@6.1.1-1: host.pc (2 of 2 runs)"
    lines = list(found.lines())
    assert "between 6.1.2-1 and 6.1.3-1" in lines and "  disappears: host.pc" in lines and "  (no changelog)" in lines
    assert lines[-1].startswith("4 of 4 kernels run, ")
    assert found.to_json()["changes"] == [
        {"before": "6.1.2-1", "after": "6.1.3-1", "appears": (), "disappears": (BAD,)}
    ]


def test_an_intermittent_finding_is_run_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = dict.fromkeys(VERSIONS, lambda runs: runs // 2)
    found, machines, _ = run(monkeypatch, seen, BisectPlan(repeat=4))
    assert [runs for _, runs in machines.ran] == [4, 4, FLAKY_RUNS, FLAKY_RUNS]
    assert found.found.changes == ()
    assert "no change between the kernels that were run" in list(found.lines())


def test_no_runnable_kernel_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match="no kernel could run: no image"):
        run(monkeypatch, dict.fromkeys(VERSIONS), BisectPlan())


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (BisectPlan(good="kvm-nvhe@6.1.1-1"), "give both ends or none"),
        (BisectPlan("kvm-nvhe", "kvm-nvhe@6.1.1-1", "kvm-nvhe@6.1.3-1"), "--good and --bad name the configuration"),
        (BisectPlan(good="kvm-nvhe@6.1.1-1", bad="kvm-vhe@6.1.3-1"), "two kernels of one configuration"),
        (BisectPlan(good="kvm-nvhe", bad="kvm-nvhe"), "expected a kernel of a configuration"),
        (BisectPlan("nonsense"), "no such target"),
    ],
)
def test_wrong_ends(monkeypatch: pytest.MonkeyPatch, plan: BisectPlan, why: str) -> None:
    with pytest.raises(InputError, match=why):
        run(monkeypatch, {}, plan)


def test_between_two_ends_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = dict.fromkeys(VERSIONS, never)
    plan = BisectPlan(good="kvm-vhe@6.1.3-1", bad="kvm-vhe@6.1.2-1")
    _, machines, _ = run(monkeypatch, seen, plan)
    assert [name for name, _ in machines.ran] == ["kvm-vhe@6.1.2-1", "kvm-vhe@6.1.3-1"]


def test_a_findings_history_is_of_its_own_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = dict(zip(VERSIONS, (always, None, never, never), strict=True))
    found, _, _ = run(monkeypatch, seen, BisectPlan(repeat=1))
    story = SimpleNamespace(kept=SimpleNamespace(finding=SimpleNamespace(signature=("host", "pc", "HVC64", ""))))
    kept = read_history(found.history(story))  # type: ignore[arg-type]
    assert {each.version: (each.answer, each.seen) for each in kept} == {
        "6.1.1-1": (SHOWS, 1),
        "6.1.2-1": (CANNOT_RUN, 0),
        "6.1.3-1": (SHOWS_NOT, 0),
        "6.1.4-1": (SHOWS_NOT, 0),
    }


def test_an_alarm_is_bisected_unless_it_needs_earlier_scenarios(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = Store(Database(default_url(tmp_path)), FINDINGS)
    never_tried, subject = Tries(0, 0), replace(SUBJECT, target="kvm-nvhe")
    for name, texts in (("handle_smc", {}), ("after_others", {"earlier-01.scn": "a scenario"})):
        finding = Finding("alarm", ("warn", name), subject, (), 0, never_tried, never_tried, "2026", "it said so")
        store.add(finding, SCENARIO, texts)
        if texts:
            with pytest.raises(InputError, match="needs earlier scenarios"):
                find_story(Database(default_url(tmp_path)), finding.id)
            continue
        case, story = find_story(Database(default_url(tmp_path)), finding.id)
        assert case.scenario == SCENARIO
        found, _, _ = run(monkeypatch, dict.fromkeys(VERSIONS, always), BisectPlan())
        probed = dict.fromkeys(found.found.probed, ("warn.handle_smc",))
        shown = replace(found, found=replace(found.found, probed=probed))
        assert {asked.answer for asked in read_history(shown.history(story))} == {SHOWS}
