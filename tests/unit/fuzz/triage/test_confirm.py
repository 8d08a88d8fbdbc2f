# SPDX-License-Identifier: Apache-2.0
"""Confirm and minimise a file on a fake target that always records the same trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fuzz.cli.main import main
from fuzz.targets.observation import signatures
from fuzz.targets.options import TargetOptions
from fuzz.targets.runner import MAX_LOSSES
from fuzz.targets.target_set import TargetSet
from fuzz.triage import confirm as confirming
from fuzz.triage import minimise as minimising
from fuzz.triage.confirm import ConfirmPlan, as_json, confirm, stages_of
from fuzz.triage.minimise import minimise
from harness.arch.cpu_models import cpu_model
from harness.errors import InputError, VmLost
from harness.exit_status import ExitStatus
from harness.findings.check import check
from harness.findings.checked import CheckResult, signature
from harness.findings.finding import Subject, Tries, signature_text
from harness.findings.known_divergences import Catalogue
from harness.findings.verdict import EmulatorResult, Stage, alarm_verdict, verdict_lines
from harness.scenario.scenario import Scenario, format_scenario, load
from harness.trace.events import Trace
from harness.trace.tracefile import load_trace
from harness.vm.alarms import Alarm
from tests.support.complaining import LARGE, WARNING, Complaining
from tests.support.fake_worker import DIVERGENCE, SCENARIO, SUBJECT, FakeExecutor, checked
from tests.support.paths import GOLDEN

GOLDEN = GOLDEN
FILE = GOLDEN / "mixture.scn"
TRACE = load_trace(GOLDEN / "mixture.trace.json")
OPTIONS = TargetOptions("fake", "spec")
ONCE = ConfirmPlan(runs=2, boots=1, emulators=False)


class Recorded:
    """A target that records the same trace for every scenario."""

    def __init__(self, trace: Trace = TRACE) -> None:
        self.subject, self.trace = SUBJECT, trace
        self.config, self.boots, self.runs = SimpleNamespace(name="fake"), 0, 0

    @contextmanager
    def boot(self) -> Iterator[Recorded]:
        self.boots += 1
        yield self

    def boot_again(self) -> Any:
        raise AssertionError("no machine is lost on purpose")

    def run(self, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
        self.runs += 1
        return self.trace

    @property
    def boot_alarms(self) -> tuple[Alarm, ...]:
        return ()

    def alarms(self) -> tuple[Alarm, ...]:
        return ()

    def check(self, scenario: Scenario, trace: Trace) -> CheckResult:
        return check(scenario, trace, "spec", cpu_model("cortex-a72"), Catalogue("spec", ()))


class Targets(TargetSet[Recorded]):
    """A set with the attribute ``has_hyp_copy``."""

    has_hyp_copy = True


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    one = Recorded()
    for module in (confirming, minimising):
        monkeypatch.setattr(module, "open_targets", lambda options, say: Targets([one]))
    return one


def ignore(line: str) -> None:
    pass


def keys(target: Recorded) -> tuple[Any, ...]:
    with TargetSet([target]) as targets:
        return signatures(targets.run_and_check(load(FILE)).checked)


def test_every_divergence_is_classified(target: Recorded) -> None:
    wanted = keys(target)
    found = confirm(OPTIONS, FILE, None, ONCE, ignore)
    assert tuple(each.signature for each in found) == wanted and len(wanted) > 1
    counted = {tuple(stage.tries for stage in each.evidence.stages) for each in found}
    assert counted == {(Tries(2, 2), Tries(2, 2), Tries(1, 1))}
    assert as_json(found[0])["signature"] == signature_text(wanted[0])


def test_one_divergence_can_be_selected(target: Recorded) -> None:
    last = keys(target)[-1]
    (found,) = confirm(OPTIONS, FILE, signature_text(last), ONCE, ignore)
    assert found.signature == last
    with pytest.raises(InputError, match="does not show 'nonsense'"):
        confirm(OPTIONS, FILE, "nonsense", ONCE, ignore)


def test_other_emulators_are_run_after_the_machine_has_ended(target: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def measure(sweep: Any, queries: Any, here: Any, say: Callable[[str], None]) -> Any:
        asked.append((sweep, len(queries)))
        return tuple((EmulatorResult("max", Tries(0, 10)),) for _ in queries)

    monkeypatch.setattr(confirming, "measure_on_emulators", measure)
    monkeypatch.setattr(confirming, "emulator_names", lambda config, here: ("max",))
    monkeypatch.setattr(confirming, "emulators_here", lambda: [SimpleNamespace(name="qemu-7.2")])
    said: list[str] = []
    found = confirm(OPTIONS, FILE, None, ConfirmPlan(1, 0, emulators=True), said.append)
    ((sweep, count),) = asked
    assert sweep.config is target.config and sweep.options.hyp_copy and count == len(found)
    assert [place.name for place in found[0].evidence.elsewhere] == ["max"]
    assert said[0] == "trying max" and "the only QEMU here" in said[1]


def test_two_targets_are_not_run_on_other_emulators(target: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(confirming, "measure_on_emulators", never)
    pair = TargetOptions("fake", "spec", against="other")
    assert confirm(pair, FILE, None, ConfirmPlan(1, 0, emulators=True), ignore)


@pytest.mark.parametrize("command", ["confirm", "minimise"])
@pytest.mark.parametrize("wanted", [(), ("--signature", "host.pc/RESET")])
def test_a_scenario_that_shows_nothing_is_wrong_input(
    target: Recorded, command: str, wanted: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Both commands take a scenario with a divergence; that it has none is no success of theirs."""
    target.trace = Trace((), "ok", 0, False)
    assert main([command, str(FILE), *wanted]) == ExitStatus.USAGE
    out, err = capsys.readouterr()
    assert out == "" and f"{FILE}: shows no unexplained divergence and no alarm" in err


def test_a_file_is_minimised_for_its_first_divergence(target: Recorded) -> None:
    said: list[str] = []
    wanted = keys(target)[0]
    before, least = minimise(OPTIONS, FILE, None, said.append)
    assert said == [f"keeping {signature_text(wanted)}"]
    assert len(before.steps) > 0 == len(least.scenario.steps), "every scenario shows it"
    assert least.confirmed and least.signature == wanted


KEY = signature(DIVERGENCE)


def targets_of(fake: FakeExecutor, subject: Subject = SUBJECT) -> TargetSet[FakeExecutor]:
    fake.subject = subject
    return TargetSet([fake])


def test_stages_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeExecutor([checked(DIVERGENCE)] * 3 + [checked()] + [checked(DIVERGENCE)] * 4 + [checked()] * 2)
    with targets_of(fake) as it:
        stages = stages_of(it, SCENARIO, (KEY,), runs=4, boots=2)
    assert [(s.name, s.tries) for s in stages[KEY]] == [
        ("repeat", Tries(3, 4)),
        ("fresh_vm", Tries(4, 4)),
        ("fresh_qemu", Tries(0, 2)),
    ]
    assert fake.fresh == [False] * 4 + [True] * 6
    assert fake.boots == it.boots == 3


def test_a_lost_machine_shows_nothing_and_is_booted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeExecutor([VmLost("fake", "gone"), checked(DIVERGENCE)])
    with targets_of(fake) as it:
        assert not it.reproduces(SCENARIO, KEY)
        assert it.reproduces(SCENARIO, KEY)
        assert fake.boots == 2
        fake.answers += [VmLost("fake", "gone")] * MAX_LOSSES
        for _ in range(MAX_LOSSES - 1):
            assert not it.reproduces(SCENARIO, KEY)
        with pytest.raises(VmLost):
            it.reproduces(SCENARIO, KEY)


def test_a_run_with_an_error_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeExecutor([checked(DIVERGENCE, status="hang")])
    with targets_of(fake) as it:
        assert not it.reproduces(SCENARIO, KEY)


def test_an_alarm_is_confirmed_in_fresh_machines_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    target = Complaining()
    file = tmp_path / "large.scn"
    file.write_text(format_scenario(LARGE))
    for module in (confirming, minimising):
        monkeypatch.setattr(module, "open_targets", lambda options, say: Targets([target]))
    (found,) = confirm(OPTIONS, file, None, ConfirmPlan(5, 1, emulators=True), ignore)
    assert (found.signature, found.verdict.name) == (WARNING.signature, "alarm")
    assert found.evidence.stages == (Stage("fresh_qemu", Tries(3, 3)),) and target.boots == 4
    assert as_json(found)["signature"] == "warn.handle_smc" and as_json(found)["rate"] == "3 of 3 (95 %: 0.44 to 1.00)"
    assert not any("not measured" in line for line in verdict_lines(found.verdict, found.evidence))
    _, least = minimise(OPTIONS, file, "warn.handle_smc", ignore)
    assert len(least.scenario.steps) == 1


def test_an_alarm_that_is_not_reproduced_is_flaky() -> None:
    assert alarm_verdict((Stage("fresh_qemu", Tries(0, 3)),)).name == "flaky"
