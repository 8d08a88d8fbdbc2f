# SPDX-License-Identifier: Apache-2.0
"""A matrix on fake machines: verdicts, stored results, and patterns of targets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from fuzz.cli.main import parsed
from fuzz.cli.matrix import plan_of
from fuzz.store.database import Database, default_url
from fuzz.store.findings import FINDINGS, Store
from fuzz.targets.runner import ScenarioRunner
from fuzz.targets.target_set import TargetSet
from fuzz.triage.matrix import (
    CANNOT,
    CLEAN,
    DIVERGES,
    LOST,
    Case,
    Cell,
    MatrixResults,
    MatrixWork,
    load_cases,
    make_case,
    match_targets,
    read_results,
    run_cases,
    write_results,
)
from fuzz.triage.matrix_run import cases_of_findings
from harness.arch.cpu_models import cpu_model
from harness.errors import InputError, VmLost
from harness.findings.check import check
from harness.findings.checked import CheckResult
from harness.findings.finding import Subject
from harness.findings.known_divergences import Catalogue
from harness.scenario.scenario import Scenario, load
from harness.trace.events import Trace
from harness.trace.tracefile import load_trace
from harness.vm.alarms import Alarm
from harness.vm.config import load_config
from harness.vm.crash import EARLIER
from harness.vm.debian.kernel_archive import Kernel
from tests.support.complaining import LARGE, Complaining
from tests.support.complaining import QUIET as COMPLAINING_QUIET
from tests.support.fake_tree import fake_tree
from tests.support.findings import finding
from tests.support.paths import GOLDEN

CASE = make_case("mixture", load(GOLDEN / "mixture.scn"))
NOTHING = Catalogue("spec", ())
CONFIG = load_config("kvm-nvhe")


class FakeMachine:
    """Returns the next of its traces for each run; None: the machine is lost."""

    def __init__(self, answers: Sequence[Trace | None]) -> None:
        self.answers = list(answers)
        self.boots = 0
        self.subject = Subject("fake", "6.1.0", "00" * 32, "spec")

    @contextmanager
    def boot(self) -> Iterator[ScenarioRunner]:
        self.boots += 1
        if not self.answers:
            raise VmLost("fake", "does not come up", "")
        yield self

    def run(self, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
        answer = self.answers.pop(0)
        if answer is None:
            raise VmLost("fake", "went away", "")
        return answer

    @property
    def boot_alarms(self) -> tuple[Alarm, ...]:
        return ()

    def alarms(self) -> tuple[Alarm, ...]:
        return ()

    def boot_again(self) -> AbstractContextManager[ScenarioRunner]:
        raise AssertionError("no machine is lost on purpose")

    def check(self, scenario: Scenario, trace: Trace) -> CheckResult:
        return check(scenario, trace, "spec", cpu_model(CONFIG.cpu), NOTHING)


TRACE = load_trace(GOLDEN / "mixture.trace.json")
QUIET = Trace((), "ok", 0, False)


def cells(machine: FakeMachine, *names: str, repeat: int = 1) -> list[Cell]:
    cases = tuple(Case(name, CASE.key, CASE.scenario) for name in names)
    return list(run_cases(MatrixWork("fake", cases, repeat), TargetSet([machine])))


def test_one_boot_for_all_and_another_after_a_loss() -> None:
    machine = FakeMachine([TRACE, None, QUIET])
    found = cells(machine, "a", "b", "c")
    assert [cell.verdict for cell in found] == [DIVERGES, LOST, CLEAN]
    assert found[1].why == "went away"
    assert machine.boots == 2


def test_a_target_that_never_boots_cannot_run() -> None:
    found = cells(FakeMachine([]), "a", "b")
    assert [cell.verdict for cell in found] == [CANNOT, CANNOT]
    assert found[0].why == "does not boot: does not come up"


def test_repetitions_are_counted() -> None:
    (cell,) = cells(FakeMachine([QUIET, TRACE, QUIET]), "a", repeat=3)
    assert (cell.verdict, cell.seen, cell.runs) == (DIVERGES, 1, 3)


def test_a_run_that_did_not_end_counts_as_lost() -> None:
    (cell,) = cells(FakeMachine([Trace((), "stuck", 0, False)]), "a")
    assert (cell.verdict, cell.why) == (LOST, "the run ended with status stuck")


def test_results_are_stored_and_only_missing_cells_are_run(tmp_path: Path) -> None:
    path = tmp_path / "new" / "matrix.json"
    assert read_results(path) == MatrixResults({})
    results = MatrixResults({}).with_cells(
        [Cell("t1", "mixture", CASE.key, DIVERGES, ("host.pc",), 1, 1, "", {"why": 2})]
    )
    write_results(path, results)
    assert read_results(path) == results
    assert results.missing(["t1", "t2"], [CASE]) == {"t2": (CASE,)}
    changed = Case("mixture", "another text", CASE.scenario)
    assert set(results.missing(["t1", "t2"], [changed])) == {"t1", "t2"}
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps({**document, "format": 0}))
    assert read_results(path) == MatrixResults({})
    for other in ('{"format": 1}', '{"format": 1, "cells": [{}]}', "[]", "notes", "[" * 100_000):
        path.write_text(other)
        with pytest.raises(InputError, match="not results of `shadowfuzz kernels matrix`"):
            read_results(path)


def test_the_command_in_a_page() -> None:
    args = parsed(["matrix", "corpus/seeds", "a.scn", "--targets", "kvm-*@*", "--deterministic"])
    wanted = "shadowfuzz kernels matrix corpus/seeds a.scn --target 'kvm-*@*' --missing --deterministic --markdown"
    assert plan_of(args).command("--markdown") == wanted


def test_findings_are_cases_beside_those_of_files(tmp_path: Path) -> None:
    (tmp_path / "campaign").mkdir()
    database = Database(default_url(tmp_path / "campaign"))
    store = Store(database, FINDINGS)
    alone, after_others = finding(("host", "pc", "", "")), finding(("host", "xN", "", ""))
    store.add(alone, CASE.scenario)
    store.add(after_others, CASE.scenario, {f"{EARLIER}1.scn": "text"})
    said: list[str] = []
    assert [case.name for case in cases_of_findings(database, ["all"], said.append)] == [alone.id]
    assert said == [f"left out: {after_others.id}: needs earlier scenarios: this runs one scenario alone"]
    with pytest.raises(InputError, match="needs earlier scenarios"):
        cases_of_findings(database, [after_others.id], said.append)
    words = ["matrix", "--campaign", str(tmp_path / "campaign"), "--targets", "kvm-vhe", "--finding"]
    plan = plan_of(parsed([*words, alone.id[-12:], "--finding", alone.id]))
    assert [(case.name, case.key) for case in plan.found] == [(alone.id, CASE.key)]
    assert plan.command("").startswith(
        f"shadowfuzz kernels matrix --finding {alone.id[-12:]} --finding {alone.id} --ta"
    )
    store.annotate(alone.id, f"{EARLIER}1.scn", "text")
    with pytest.raises(InputError, match="no finding that can be run"):
        plan_of(parsed([*words, "all"]))
    with pytest.raises(InputError, match="kernels matrix: expected scenarios, or --finding"):
        plan_of(parsed(["matrix"]))


def test_targets_by_pattern() -> None:
    kernels = [Kernel(version, version, ("sid",), (), ()) for version in ("6.1.164-1", "6.12.117-1")]
    assert match_targets(["kvm-nvhe@*"], kernels) == ("kvm-nvhe@6.1.164-1", "kvm-nvhe@6.12.117-1")
    assert match_targets(["kvm-vhe", "*@6.1.*"], kernels) == (
        *("kvm-vhe", "kvm-nvhe@6.1.164-1", "kvm-protected@6.1.164-1", "kvm-vhe@6.1.164-1"),
    )


def test_build_directories_are_targets_like_others(tmp_path: Path) -> None:
    tree = fake_tree(tmp_path / "linux")
    kernels = [Kernel("6.12.117-1", "6.12.117-1", ("sid",), (), ())]
    name = f"kvm-6.12-nvhe@{tree}"
    assert match_targets(["kvm-nvhe@*", str(tree)], kernels) == ("kvm-nvhe@6.12.117-1", name)
    assert match_targets([f"kvm-vhe@{tree}%max"], kernels) == (f"kvm-vhe@{tree}%max",)
    ran = MatrixResults({}).with_cells(
        [Cell(name, CASE.name, CASE.key, "clean"), Cell("kvm-vhe", CASE.name, CASE.key, "clean")]
    )
    assert ran.missing([name, "kvm-vhe"], [CASE]) == {name: (CASE,)}, "it may have another kernel now"


def test_cases_of_files() -> None:
    assert load_cases([GOLDEN / "mixture.scn"]) == (CASE,)


def test_an_alarm_hides_no_later_alarm() -> None:
    """Each run of it uses a fresh machine, and so does the next case, which may raise the same alarm."""
    target = Complaining()
    cases = tuple(
        Case(name, name, scenario) for name, scenario in (("a", LARGE), ("b", COMPLAINING_QUIET), ("c", LARGE))
    )
    found = list(run_cases(MatrixWork("fake", cases, 2), TargetSet([target])))
    assert [(cell.verdict, cell.findings, cell.seen, cell.runs) for cell in found] == [
        (DIVERGES, ("warn.handle_smc",), 2, 2),
        (CLEAN, (), 0, 2),
        (DIVERGES, ("warn.handle_smc",), 2, 2),
    ]
