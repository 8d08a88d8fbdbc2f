# SPDX-License-Identifier: Apache-2.0
"""A worker of the live campaign, on a fake executor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.campaign.counters_file import read_stats
from fuzz.campaign.worker import MAX_INTERNAL, SAMPLED, SPREAD, GiveUp
from fuzz.store.database import StoreError
from fuzz.store.findings import Store
from fuzz.targets.runner import MAX_LOSSES
from harness.errors import AgentProtocolError, Remains, SetupError, VmLost
from harness.findings.checked import CheckResult
from harness.protocol import FORGE
from harness.scenario.scenario import format_scenario
from harness.trace.events import EXIT
from harness.vm.alarms import Alarm
from harness.vm.crash import Reproduction, from_text
from tests.support import fake_worker
from tests.support.fake_worker import (
    DIVERGENCE,
    OTHER,
    SCENARIO,
    TEXT,
    Answer,
    FakeExecutor,
    checked,
    make_worker,
    switch,
)


def test_fake_clean_scenario_is_counted(tmp_path: Path) -> None:
    b = make_worker(tmp_path)
    b.worker.run_input(TEXT)
    b.worker.run_input(b"no scenario")
    stats = read_stats(tmp_path / "stats")
    assert stats.group("exits") == {"HVC64": 2}
    assert stats.group("count") == {"checked_exits": 1, "invalid": 1, "scenarios": 1}
    assert stats.group("unchecked") == {"switch: masked": 1}
    assert stats.group("branches") == {"hvc=yes": 1}
    assert (stats.get("time", "ready"), stats.get("time", "first_exit")) == (100, 101)
    assert b.executor.fresh == [False]
    assert stats.coverage == len(b.hits) == len(set(b.hits)) > 0


def test_fake_divergence_that_is_reproduced_is_a_finding(tmp_path: Path) -> None:
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 3, checked(DIVERGENCE, DIVERGENCE))
    b.worker.run_input(TEXT)
    assert b.executor.fresh == [False, False, True]
    assert b.executor.seen == [1]  # the coverage of confirmation runs does not count for the input
    b.worker.run_input(TEXT)  # a later member of the cluster is not confirmed again
    assert len(b.executor.fresh) == 4
    (id_,) = b.findings.ids()
    kept = b.findings.load(id_)
    assert b.findings.count(id_) == 2
    assert (kept.same_vm.hits, kept.fresh_vm.hits) == (1, 1)
    assert b.findings.entry(id_).scenario == TEXT.decode()
    assert "trace.json" in b.findings.texts(id_)
    assert (b.count("unexplained"), b.count("flaky"), b.get("count", "confirmations")) == (3, 0, 1)


LONGER = format_scenario(replace(SCENARIO, steps=SCENARIO.steps * 3)).encode()


def test_fake_simpler_scenario_of_a_kept_finding_waits_for_its_turn(tmp_path: Path) -> None:
    shows = checked(DIVERGENCE)
    b = make_worker(tmp_path, *[shows] * 4, *[checked()] * (SPREAD - 3), shows, *[checked(DIVERGENCE, OTHER)] * 3)
    b.worker.run_input(LONGER)
    b.worker.run_input(TEXT)
    assert b.executor.fresh == [False, False, True, False], "the simpler one is not confirmed at once"
    (id_,) = b.findings.ids()
    assert b.findings.entry(id_).scenario == LONGER.decode(), "and what was found is kept already"
    for _ in range(SPREAD - 2):
        b.worker.run_input(LONGER)
    assert b.executor.fresh[-3:] == [False, False, True] and len(b.executor.fresh) == SPREAD + 2 + 3
    assert b.get("count", "confirmations") == 2
    assert b.findings.entry(id_).scenario == TEXT.decode()
    assert len(b.findings.ids()) == 2, "what it shows for the first time is kept, too"
    assert not b.executor.answers


def test_fake_machine_that_a_waiting_scenario_ends_is_its_crash(tmp_path: Path) -> None:
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 4, *[checked()] * (SPREAD - 2), GONE)
    for text in (LONGER, TEXT, *[LONGER] * (SPREAD - 2)):
        b.worker.run_input(text)
    (id_,) = (id_ for id_ in b.findings.ids() if id_.startswith("crash-"))
    assert b.findings.entry(id_).scenario == TEXT.decode()


@pytest.mark.parametrize(
    "again", [(checked(), checked(DIVERGENCE)), (checked(DIVERGENCE), checked()), (checked(OTHER), checked(OTHER))]
)
def test_fake_divergence_that_is_not_reproduced_is_flaky(tmp_path: Path, again: tuple[CheckResult, ...]) -> None:
    b = make_worker(tmp_path, checked(DIVERGENCE), *again)
    b.worker.run_input(TEXT)
    assert b.findings.ids() == () and len(b.flaky.ids()) == 1
    assert (b.count("unexplained"), b.count("flaky")) == (0, 1)


def test_fake_what_the_fast_qemu_shows_is_confirmed_on_the_other_one(tmp_path: Path) -> None:
    own = FakeExecutor([checked(DIVERGENCE)])
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 2, own_qemu=own)
    assert own.boots == 0, "until there is something to confirm"
    b.worker.run_input(TEXT)
    assert (b.executor.fresh, own.fresh) == ([False, False], [True])
    (id_,) = b.findings.ids()
    assert b.flaky.ids() == () and "Debian's own" in b.findings.texts(id_)["confirmed_on.txt"]
    b.worker.close()


def test_fake_what_only_the_fast_qemu_shows_is_no_finding(tmp_path: Path) -> None:
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 2, own_qemu=FakeExecutor([checked()]))
    b.worker.run_input(TEXT)
    assert b.findings.ids() == () and len(b.flaky.ids()) == 1


def test_fake_loss_of_the_machine_that_confirms_is_a_loss(tmp_path: Path) -> None:
    own = FakeExecutor([VmLost("fake", "QEMU ended with status -9")])
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 2, own_qemu=own)
    b.worker.run_input(TEXT)
    assert [id_.partition("-")[0] for id_ in b.findings.ids()] == ["crash"] and len(b.flaky.ids()) == 1
    b.worker.run_input(TEXT)
    assert b.executor.boots == 2


def test_fake_cluster_of_an_earlier_campaign_is_known(tmp_path: Path) -> None:
    make_worker(tmp_path, *[checked(DIVERGENCE)] * 3).worker.run_input(TEXT)
    b = make_worker(tmp_path, checked(DIVERGENCE))
    b.worker.run_input(TEXT)
    assert b.executor.fresh == [False]
    assert [b.findings.count(id_) for id_ in b.findings.ids()] == [2]


def test_fake_members_of_a_cluster_are_written_periodically_and_at_the_end(tmp_path: Path) -> None:
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 6)
    for _ in range(4):  # the first is confirmed by two more runs
        b.worker.run_input(TEXT)
    (id_,) = b.findings.ids()
    assert (b.findings.count(id_), b.count("unexplained")) == (2, 4)
    b.worker.close()
    assert b.findings.count(id_) == 4


def test_fake_lost_machine_is_a_crash_and_is_booted_again(tmp_path: Path) -> None:
    lost = VmLost("fake", "QEMU ended with status -9", "Kernel panic - not syncing: at 0xffff0000\n")
    b = make_worker(tmp_path, checked(), lost)
    for _ in range(3):
        b.worker.run_input(TEXT)
    assert (b.executor.boots, b.get("count", "scenarios"), b.count("lost")) == (2, 2, 1)
    (id_,) = b.findings.ids()
    texts = b.findings.texts(id_)
    assert id_.startswith("crash-") and "panic" in texts["console.txt"]
    assert texts["earlier-01.scn"] == b.findings.entry(id_).scenario == TEXT.decode()


LOST = VmLost("fake", "no answer to a scenario within 10 s", "", Remains({"pc": 1}, {"pc": "f+0x0"}))
GONE = VmLost("fake", "QEMU ended with status -9")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((LOST, checked(), LOST), Reproduction((2, 3), (0, 0), 0)),
        ((GONE, checked(), LOST), Reproduction((1, 3), (0, 0), 0)),  # a different loss does not count
        # Two scenarios ran before: all three reproduce it; the last two also do, or not.
        ((checked(),) * 5 + (LOST,) + (checked(), LOST) * 4, Reproduction((0, 3), (3, 3), 1)),
        ((checked(),) * 5 + (LOST,) + (checked(),) * 4 + (LOST,) + (checked(),) * 6, Reproduction((0, 3), (1, 3), 2)),
    ],
)
def test_fake_loss_is_tried_again_in_fresh_machines(
    tmp_path: Path, answers: tuple[Answer, ...], expected: Reproduction
) -> None:
    b = make_worker(tmp_path, checked(), checked(), LOST, LOST, again=answers)
    for _ in range(4):
        b.worker.run_input(TEXT)
    (id_,) = b.findings.ids()
    texts = b.findings.texts(id_)
    report = from_text(texts["crash.json"])
    assert report.again == expected and report.kind == "hang"
    assert sorted(name for name in texts if name.startswith("earlier")) == ["earlier-01.scn", "earlier-02.scn"]
    assert b.findings.count(id_) == 2, "after it was reproduced, other members are only counted"
    assert b.get("reproduced", "yes") == 1


def test_fake_loss_that_is_not_reproduced_is_tried_with_another_member(tmp_path: Path) -> None:
    b = make_worker(tmp_path, LOST, LOST, LOST)
    for expected in (None, Reproduction((0, 3), (0, 0), 0), Reproduction((0, 3), (0, 0), 0)):
        b.worker.run_input(TEXT)
        (id_,) = b.findings.ids()
        assert from_text(b.findings.texts(id_)["crash.json"]).again == expected
    assert (b.findings.count(id_), b.get("reproduced", "no")) == (3, 2)


def test_fake_end_of_the_campaign_ends_the_tries(tmp_path: Path) -> None:
    b = make_worker(tmp_path, LOST)
    b.worker.ending = True
    b.worker.run_input(TEXT)
    (id_,) = b.findings.ids()
    assert from_text(b.findings.texts(id_)["crash.json"]).again is None


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


def test_fake_machine_lost_while_confirming(tmp_path: Path) -> None:
    b = make_worker(tmp_path, checked(DIVERGENCE), AgentProtocolError("status 0x77"))
    b.worker.run_input(TEXT)
    assert [id_.partition("-")[0] for id_ in b.findings.ids()] == ["crash"]
    assert (b.count("flaky"), b.count("lost"), b.get("count", "scenarios")) == (1, 1, 1)


def test_fake_losses_in_a_row_end_the_worker(tmp_path: Path) -> None:
    lost = [VmLost("fake", "hangs")] * (MAX_LOSSES - 1)
    b = make_worker(tmp_path, *lost, checked(), *lost, VmLost("fake", "hangs"), VmLost("fake", "hangs"))
    for _ in range(2 * MAX_LOSSES - 1):
        b.worker.run_input(TEXT)
    with pytest.raises(GiveUp, match="lost 5 times in a row, the last time: fake: hangs"):
        b.worker.run_input(TEXT)
    assert b.count("lost") == 2 * MAX_LOSSES - 1


def test_fake_machine_that_runs_the_simplest_scenario_is_not_given_up(tmp_path: Path) -> None:
    """libFuzzer mutates one input several times: if the first mutant ends the machine, the next ones do, too."""
    lost = [VmLost("fake", "hangs")] * MAX_LOSSES
    b = make_worker(tmp_path, *lost, checked(), *lost, checked(), checked())
    for _ in range(2 * MAX_LOSSES + 1):
        b.worker.run_input(TEXT)
    assert (b.count("lost"), b.get("count", "scenarios")) == (2 * MAX_LOSSES, 1), "the test run is not counted"


@pytest.mark.parametrize(("second", "unstable"), [(checked(DIVERGENCE), 0), (checked(), 1)])
def test_fake_sample_is_run_again(tmp_path: Path, second: CheckResult, unstable: int) -> None:
    first = [checked(DIVERGENCE)] * (SAMPLED + 2)  # the first one is confirmed
    b = make_worker(tmp_path, *first, second)
    for _ in range(SAMPLED):
        b.worker.run_input(TEXT)
    assert (b.get("count", "again"), b.get("count", "unstable")) == (1, unstable)


def test_fake_internal_error_is_a_finding(tmp_path: Path) -> None:
    b = make_worker(tmp_path, *[KeyError("x99")] * MAX_INTERNAL)
    for _ in range(MAX_INTERNAL - 1):
        b.worker.run_input(TEXT)
    (id_,) = b.findings.ids()
    assert id_.startswith("internal-") and "KeyError" in b.findings.texts(id_)["traceback.txt"]
    with pytest.raises(GiveUp, match="shadowfuzz itself failed"):
        b.worker.run_input(TEXT)
    assert b.count("internal") == MAX_INTERNAL


def test_fake_findings_that_cannot_be_written_are_reported(tmp_path: Path) -> None:
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 6)
    with pytest.MonkeyPatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise StoreError("database or disk is full")

        patch.setattr(Store, "add", full)
        b.worker.run_input(TEXT)
    assert (b.count("unexplained"), b.count("unwritten")) == (1, 1)
    b.worker.run_input(TEXT)  # the disk has room again
    assert len(b.findings.ids()) == 1 and b.get("count", "scenarios") == 2


def test_setup_error_ends_the_worker(tmp_path: Path) -> None:
    b = make_worker(tmp_path, VmLost("fake", "gone"))
    b.worker.run_input(TEXT)

    @contextmanager
    def boot() -> Iterator[FakeExecutor]:
        raise SetupError("QEMU is not installed")
        yield b.executor

    b.executor.boot = boot  # type: ignore[method-assign]
    with pytest.raises(SetupError):
        b.worker.run_input(TEXT)


@pytest.mark.parametrize("losses", [1, 2])
def test_fake_first_boot_is_tried_twice(tmp_path: Path, losses: int) -> None:
    b = make_worker(tmp_path)
    boots = iter([VmLost("fake", "QEMU ended with status -9")] * losses)

    @contextmanager
    def boot() -> Iterator[FakeExecutor]:
        for lost in boots:
            raise lost
        yield b.executor

    b.worker.close()
    b.executor.boot = boot  # type: ignore[method-assign]
    if losses == 2:
        with pytest.raises(VmLost):
            b.worker.begin()
    else:
        b.worker.begin()
        b.worker.run_input(TEXT)
    assert (b.count("lost"), b.get("count", "scenarios")) == (losses, 2 - losses)


def test_fake_scenarios_with_different_leaders_are_kept(tmp_path: Path) -> None:
    late = OTHER._replace(event=3)
    alone, both = checked(late), checked(DIVERGENCE, late)
    b = make_worker(tmp_path, *[alone] * 3, *[both] * 3, *[both])
    for _ in range(3):
        b.worker.run_input(TEXT)
    ids = {name: id_ for id_ in b.findings.ids() for name in b.findings.load(id_).signature[1:2]}
    leaders = {id_: {one.leader for one in found} for id_, found in b.findings.examples().items()}
    assert leaders == {ids["pc"]: {ids["pc"], ids["xN"]}, ids["xN"]: {ids["xN"]}}
    assert b.get("count", "confirmations") == 2, "the third has the same leader"


def test_fake_divergence_with_a_cause_has_no_leader(tmp_path: Path) -> None:
    known = DIVERGENCE._replace(cause="an-erratum")
    b = make_worker(tmp_path, *[checked(known, OTHER._replace(event=3))] * 3)
    b.worker.run_input(TEXT)
    (examples,) = b.findings.examples().values()
    assert b.findings.load(examples[0].leader).signature[1] == "pc"
    assert {b.findings.load(id_).signature[4:] for id_ in b.findings.ids()} == {(), ("an-erratum",)}
