# SPDX-License-Identifier: Apache-2.0
"""The verdict on a commit from a replay: good, bad or undetermined, and what must not affect it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fuzz.paths import KEPT
from fuzz.triage.bisect_verdict import ABORT, BAD, GOOD, UNDETERMINED, check_signature, commit_verdict
from harness.errors import InputError
from harness.findings.regressions import load_regressions
from harness.relations.divergence import Divergence
from harness.report.replay_result import Lost, Ran, TargetResult
from harness.vm.alarms import Alarm
from tests.support.fake_worker import checked
from tests.support.reports import recorded, run

TARGET = "kvm-6.12-nvhe@/home/me/linux"
PC = Divergence("switch", "pc", 8, 4, "DABT_LOW", 7, 2)
# A kept finding of 6.12: corpus/regressions/expected.toml, mmio-load-loses-sign.
LOSES_SIGN = Divergence("host", "x5", 0xFFFFFFFF_80000000, 0x80000000, "DABT_LOW", 7, 2)
WARN = Alarm("warn", "kvm_put_kvm", "WARNING: a.c:1", "")
ALL_KEPT = load_regressions(KEPT)


def ran(*divergences: Divergence, status: str = "ok", alarms: tuple[Alarm, ...] = ()) -> Ran:
    return replace(run(recorded()), checked=checked(*divergences, status=status), alarms=alarms)


def status_of(*items: Ran | Lost, wanted: str | None = None) -> int:
    good = tuple(item for item in items if isinstance(item, Ran))
    lost = tuple(item for item in items if isinstance(item, Lost))
    result = TargetResult(TARGET, "6.12.117", 1, 1.0, good, lost)
    return commit_verdict([result], wanted, ALL_KEPT).status


def test_a_signature() -> None:
    assert status_of(ran(PC), wanted="switch.pc/DABT_LOW") == BAD
    assert status_of(ran(PC), wanted="switch.pc/*") == BAD
    assert status_of(ran(PC), wanted="switch.pc") == GOOD, "another signature"
    assert status_of(ran(LOSES_SIGN), wanted="switch.pc/DABT_LOW") == GOOD, "other signatures are irrelevant"
    assert status_of(ran(), ran(PC), ran(), wanted="switch.pc/DABT_LOW") == BAD, "one of several runs"
    assert status_of(ran(alarms=(WARN,)), wanted="warn.kvm_put_kvm") == BAD


def test_another_cause_is_another_signature() -> None:
    other = LOSES_SIGN._replace(cause="another cause")
    assert status_of(ran(LOSES_SIGN), wanted="host.xN/DABT_LOW (another cause)") == GOOD
    assert status_of(ran(LOSES_SIGN, other), wanted="host.xN/DABT_LOW (another cause)") == BAD
    assert status_of(ran(other), wanted="host.xN/DABT_LOW") == BAD, "of any cause"
    assert status_of(ran(other)) == BAD, "it is new"


def test_without_a_signature_kept_findings_are_good() -> None:
    assert status_of(ran(LOSES_SIGN)) == GOOD, "kept findings of the target with the nearest version"
    assert status_of(ran(LOSES_SIGN, PC)) == BAD
    assert status_of(ran(alarms=(WARN,))) == BAD
    assert status_of(ran()) == GOOD


def test_undetermined_commits() -> None:
    unbooted = Lost(None, "kernel panicked", "")
    lost = Lost(ran().job, "kernel panicked", "[ 1.0] nVHE hyp panic at: [<ffff800080dcf168>] f+0x30/0x30!\n")
    assert status_of(unbooted, wanted="switch.pc/DABT_LOW") == UNDETERMINED
    assert status_of(ran(), lost, wanted="switch.pc/DABT_LOW") == UNDETERMINED
    assert status_of(ran(PC), lost, wanted="switch.pc/DABT_LOW") == BAD, "it was shown"
    assert status_of(ran(status="runaway"), wanted="switch.pc/DABT_LOW") == UNDETERMINED
    assert status_of(wanted="switch.pc/DABT_LOW") == UNDETERMINED
    assert status_of(lost, wanted="el2-panic/*") == BAD
    assert status_of(unbooted, wanted="el2-panic/*") == UNDETERMINED, "a kernel that does not boot shows nothing"


@pytest.mark.parametrize("wrong", ["", "host.x5/DABT_LOW", "nonsense.pc", "pc"])
def test_a_malformed_signature_is_an_error(wrong: str) -> None:
    with pytest.raises(InputError) as caught:
        check_signature(wrong)
    assert caught.value.where == "--signature"


@pytest.mark.parametrize("row", [text for row in ALL_KEPT for text in row.signatures][:40])
def test_every_kept_signature_is_accepted(row: str) -> None:
    assert check_signature(row) == row


def test_statuses_are_those_of_git() -> None:
    assert (GOOD, BAD, UNDETERMINED) == (0, 1, 125) and ABORT > 127
