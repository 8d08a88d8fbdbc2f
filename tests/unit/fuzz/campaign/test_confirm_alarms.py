# SPDX-License-Identifier: Apache-2.0
"""What a worker does with the alarms of kernels: they are findings if freshly booted machines show them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.protocol import FORGE
from harness.trace.events import EXIT
from harness.vm.alarms import Alarm
from tests.support import fake_worker
from tests.support.fake_worker import DIVERGENCE, TEXT, checked, make_worker, switch

WARN = Alarm("warn", "kvm_put_kvm", "WARNING: CPU: 0 PID: 7 at a.c:1 kvm_put_kvm+0x1/0x2", "WARNING\nCall trace:")


ELSEWHERE = Alarm("warn", "kvm_get_kvm", "WARNING: CPU: 0 PID: 7 at a.c:1 kvm_get_kvm+0x1/0x2", "WARNING")


@pytest.mark.parametrize(
    ("shown", "rate", "before"),
    [
        ([(WARN,), (ELSEWHERE, WARN), ()], "2 3", 0),  # a different alarm does not count
        # Two scenarios ran before: all three reproduce it; the last two also do, three times.
        ([(), (), (), (), (), (WARN,), *[(), (WARN,)] * 4], "3 3", 1),
    ],
)
def test_fake_alarm_that_fresh_machines_show_is_a_finding(
    tmp_path: Path, shown: list[tuple[Alarm, ...]], rate: str, before: int
) -> None:
    b = make_worker(tmp_path)
    b.executor.complaints = [(), (), (WARN, WARN), (WARN,)]
    assert b.executor.fallen is not None
    b.executor.fallen.complaints = shown
    for _ in range(4):
        b.worker.run_input(TEXT)
    b.worker.close()
    (id_,) = b.findings.ids()
    finding, texts = b.findings.load(id_), b.findings.texts(id_)
    assert (finding.kind, finding.signature, finding.detail) == ("alarm", ("warn", "kvm_put_kvm"), WARN.sentence)
    assert id_.startswith("alarm-") and finding.id == id_ and b.findings.entry(id_).scenario == TEXT.decode()
    assert (texts["console.txt"], texts["fresh_qemu"]) == (WARN.splat, rate)
    assert sum(name.startswith("earlier") for name in texts) == before
    assert (b.findings.count(id_), b.count("alarms"), b.flaky.ids()) == (2, 3, ())
    assert b.executor.boots == 1, "the machine that ran it is still used"


def test_fake_assertion_about_a_forged_exit_is_counted_and_no_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asserted = Alarm("warn", "bad_trap", "Unexpected sys_reg read to write-only register", "WARNING")
    forged = switch(EXIT, 0x6228_0481)._replace(marks=FORGE["esr"])
    monkeypatch.setattr(fake_worker, "TRACE", replace(fake_worker.TRACE, events=(forged,)))
    b = make_worker(tmp_path)
    b.executor.complaints = [(asserted, WARN), (asserted,)]
    assert b.executor.fallen is not None
    b.executor.fallen.complaints = [(asserted,), (asserted,), (asserted, WARN)]
    for _ in range(2):
        b.worker.run_input(TEXT)
    (id_,) = b.findings.ids()
    assert b.findings.load(id_).signature == WARN.signature and b.flaky.ids() == ()
    assert b.findings.texts(id_)["fresh_qemu"] == "1 3", "an asserted alarm is not mistaken for it"
    assert b.get("asserted", "bad_trap at a forged read-of-write-only-register, ESR_EL2 0x62280481") == 2


def test_fake_alarm_at_boot_is_the_targets_and_no_finding(tmp_path: Path) -> None:
    b = make_worker(tmp_path, early=(WARN,))
    for _ in range(3):
        b.worker.run_input(TEXT)
        b.worker.close()
    assert b.executor.boots == 3 and b.get("boot_alarms", f"fake: {WARN.sentence}") == 1, "it is counted once"
    assert b.findings.ids() == b.flaky.ids() == ()


def test_fake_alarm_that_no_fresh_machine_shows_is_flaky(tmp_path: Path) -> None:
    b = make_worker(tmp_path)
    b.executor.complaints = [(WARN,)] * 4
    for _ in range(4):
        b.worker.run_input(TEXT)
    (id_,) = b.flaky.ids()
    assert (b.findings.ids(), b.count("alarms"), b.get("flaky", id_)) == ((), 0, 4)
    assert b.flaky.texts(id_)["fresh_qemu"] == "0 3" and b.executor.fallen is not None
    assert b.executor.fallen.boots == 3 + 4, "two of them were tried: each alone, and the second also after the first"
    b.executor.complaints = [(ELSEWHERE,)]
    b.worker.ending = True
    b.worker.run_input(TEXT)
    assert len(b.flaky.ids()) == 2 and b.executor.fallen.boots == 7


def test_fake_alarm_while_a_divergence_is_confirmed(tmp_path: Path) -> None:
    b = make_worker(tmp_path, checked(DIVERGENCE), checked(DIVERGENCE), checked(DIVERGENCE))
    b.executor.complaints = [(), (), (WARN,)]
    assert b.executor.fallen is not None
    b.executor.fallen.complaints = [(WARN,)] * 3
    b.worker.run_input(TEXT)
    assert sorted(id_.partition("-")[0] for id_ in b.findings.ids()) == ["alarm", "divergence"]
