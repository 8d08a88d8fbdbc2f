# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz replay`` on a fake target: one boot for all scenarios, and another one after a loss."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from fuzz.cli.main import main
from fuzz.targets import prepared_side
from harness.errors import AgentProtocolError, SetupError, TargetError, VmLost
from harness.exit_status import ExitStatus
from harness.relations.divergence import Divergence
from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from harness.trace.tracefile import load_trace
from harness.vm.alarms import Alarm
from harness.vm.build.prepare import PreparedTarget
from tests.support.fake_worker import checked
from tests.support.paths import GOLDEN

Capture = pytest.CaptureFixture[str]


class FakeTarget:
    """A target that answers each scenario with the recorded trace, or with an error of its script."""

    def __init__(self, script: list[TargetError | None]) -> None:
        self.script = script
        self.boots = 0
        self.fresh: list[bool] = []
        self.complaints: list[tuple[Alarm, ...]] = []

    @contextmanager
    def boot(self, *_: object, **__: object) -> Iterator[FakeTarget]:
        self.boots += 1
        if not self.script:
            raise VmLost("fake", "does not boot")
        yield self

    def run(self, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
        self.fresh.append(fresh_vm)
        error = self.script.pop(0)
        if error is not None:
            raise error
        return load_trace(GOLDEN / "mixture.trace.json")

    @property
    def boot_alarms(self) -> tuple[Alarm, ...]:
        return ()

    def alarms(self) -> tuple[Alarm, ...]:
        return self.complaints.pop(0) if self.complaints else ()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeTarget]:
    here = GOLDEN / "mixture.scn"
    prepared = PreparedTarget("fake", here, "0" * 64, "6.1.0-x", "linux-image", "6.1", here, here, here)

    def make(*script: TargetError | None) -> FakeTarget:
        target = FakeTarget(list(script))
        monkeypatch.setattr(prepared_side, "prepare", lambda *_, **__: prepared)
        monkeypatch.setattr(prepared_side, "boot", target.boot)
        monkeypatch.setattr(prepared_side, "KNOWN_DIR", GOLDEN / "known")
        return target

    return make


def test_one_boot_for_all_and_unexplained_is_1(fake: Callable[..., FakeTarget], capsys: Capture) -> None:
    target = fake(None, None, None)
    assert main(["replay", str(GOLDEN / "mixture.scn"), "--repeat", "3"]) == 1
    out = capsys.readouterr().out
    assert target.boots == 1 and target.fresh == [True] * 3
    assert "mixture.scn #3" in out
    found = re.search(r"^(\d+) unexplained divergences in", out, re.MULTILINE)
    assert found is not None
    assert int(found[1]) > 0
    assert int(found[1]) % 3 == 0, "three runs with one trace have the same divergences"


WARN = Alarm("warn", "kvm_put_kvm", "WARNING: a.c:1 at kvm_put_kvm+0x1/0x2, CPU#0: x/7", "WARNING: a.c\nCall trace:")


def test_alarms_are_below_their_scenario_and_in_the_status(
    fake: Callable[..., FakeTarget], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["replay", str(GOLDEN / "mixture.scn"), "--repeat", "2"]
    monkeypatch.setattr(prepared_side, "check", lambda *_: checked())
    fake(None, None)
    assert main(argv) == 0
    assert "kernel alarm" not in capsys.readouterr().out
    fake(None, None).complaints = [(), (WARN, WARN)]
    assert main(argv) == 1
    out = capsys.readouterr().out
    assert out.index("mixture.scn #2") < out.index("alarm       WARN in kvm_put_kvm") < out.index("| Call trace:")
    assert "2 kernel alarms" in out and out.count("| Call trace:") == 1
    fake(None, None).complaints = [(), (WARN,)]
    assert main([*argv, "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    (result,) = data["targets"]
    assert (data["exit_status"], result["totals"]["alarms"]) == (1, 1)
    quiet, loud = (run["alarms"] for run in result["runs"])
    assert quiet == []
    assert loud == [{**asdict(WARN), "signature": ["warn", "kvm_put_kvm"]}]


def test_a_lost_target_is_booted_again_for_the_rest(fake: Callable[..., FakeTarget], capsys: Capture) -> None:
    target = fake(None, VmLost("fake", "panic", "Oops: 0\nend"), AgentProtocolError("nonsense"), None)
    assert main(["replay", str(GOLDEN / "mixture.scn"), "--repeat", "4", "--json"]) == ExitStatus.FAILED
    data = json.loads(capsys.readouterr().out)
    assert target.boots == 3
    (result,) = data["targets"]
    assert (result["boots"], result["totals"]["runs"], result["totals"]["lost"]) == (3, 2, 2)
    assert [lost["reason"] for lost in result["lost"]] == ["panic", "nonsense"]
    assert [lost["repeat"] for lost in result["lost"]] == [2, 3]
    assert result["lost"][0]["console_tail"] == "Oops: 0\nend"
    assert data["exit_status"] == ExitStatus.FAILED


def test_all_in_one_vm_until_the_machine_is_lost(fake: Callable[..., FakeTarget], capsys: Capture) -> None:
    target = fake(None, None, VmLost("fake", "panic"), None, None)
    assert main(["replay", str(GOLDEN / "mixture.scn"), "--repeat", "5", "--same-vm"]) == ExitStatus.FAILED
    assert target.fresh == [True, False, False, True, False]
    capsys.readouterr()


def test_a_target_that_does_not_boot_ends_the_replay(fake: Callable[..., FakeTarget], capsys: Capture) -> None:
    target = fake()
    assert main(["replay", str(GOLDEN / "mixture.scn"), "--repeat", "4"]) == ExitStatus.FAILED
    assert target.boots == 1
    assert "lost while booting: does not boot" in capsys.readouterr().out


def test_trace_and_known_are_shown_when_asked(fake: Callable[..., FakeTarget], capsys: Capture) -> None:
    fake(None)
    assert main(["replay", str(GOLDEN / "mixture.scn"), "--trace", "--known", "--target", "kvm-vhe"]) == 1
    out = capsys.readouterr().out
    assert "KVM_RUN returned MMIO: write of 0xfeed, 4 bytes at 0x9000020" in out
    assert "[reset-values]" in out
    assert "\x1b[" not in out


def test_equal_names_are_distinguished(tmp_path: Path, fake: Callable[..., FakeTarget], capsys: Capture) -> None:
    fake(None, None)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.scn").write_text((GOLDEN / "mixture.scn").read_text())
    main(["replay", str(tmp_path)])
    out = capsys.readouterr().out
    assert "a/same.scn" in out
    assert "b/same.scn" in out


def test_a_name_that_is_not_utf_8(tmp_path: Path, fake: Callable[..., FakeTarget], capsys: Capture) -> None:
    fake(None)
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.scn"))
    path.write_text((GOLDEN / "mixture.scn").read_text())
    assert main(["replay", str(path)]) == 1
    assert "\\udcff.scn" in capsys.readouterr().out


def test_statuses_of_git_bisect(
    fake: Callable[..., FakeTarget], capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    argv = ["replay", str(GOLDEN / "mixture.scn"), "--bisect"]
    asked = [*argv, "--signature", "switch.xN/DABT_LOW"]
    monkeypatch.setattr(prepared_side, "check", lambda *_: checked(Divergence("switch", "x3", 1, 2, "DABT_LOW", 7, 2)))
    fake(None)
    assert main(asked) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "bad: switch.xN/DABT_LOW in 1 of 1 run"
    fake(VmLost("fake", "panic"))
    assert main(asked) == 125
    fake()
    assert main(asked) == 125, "a kernel that does not boot"

    def refuse(*_: object, **__: object) -> None:
        raise SetupError("the module does not build")

    monkeypatch.setattr(prepared_side, "prepare", refuse)
    assert main(asked) == 125
    # git treats 2 as a bad commit: a wrong command must end the search instead.
    assert main([*argv, "--signature", "nonsense"]) == 128
    assert main([*argv, "--no-such-option"]) == 128
    assert main(["replay", str(tmp_path / "none.scn"), "--bisect"]) == 128
    assert main(["replay", str(tmp_path / "none.scn")]) == 2
    fake(None)
    monkeypatch.setattr(prepared_side, "check", lambda *_: checked())
    assert main(asked) == 0


def test_only_one_signature_counts(fake: Callable[..., FakeTarget], monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["replay", str(GOLDEN / "mixture.scn"), "--signature"]
    monkeypatch.setattr(prepared_side, "check", lambda *_: checked(Divergence("switch", "x3", 1, 2, "DABT_LOW", 7, 2)))
    fake(None)
    assert main([*argv, "switch.xN/DABT_LOW"]) == 1
    fake(None)
    assert main([*argv, "switch.pc"]) == 0
    fake(VmLost("fake", "panic"))
    assert main([*argv, "switch.pc"]) == ExitStatus.FAILED
