# SPDX-License-Identifier: Apache-2.0
"""The loop of a worker of the live campaign, on a fake executor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from fuzz.campaign.counters_file import StatsWriter, read_stats
from fuzz.campaign.features import features
from fuzz.campaign.worker import MAX_INTERNAL, SAMPLED, GiveUp, Worker, WorkerContext
from fuzz.store.database import Database, StoreError, default_url
from fuzz.store.dumps import DUMPS, Dumps
from fuzz.store.findings import FINDINGS, FLAKY, Store
from fuzz.targets.runner import MAX_LOSSES
from fuzz.targets.target_set import TargetSet
from harness.arch.registers import STATE
from harness.errors import AgentProtocolError, Dump, Remains, SetupError, VmLost
from harness.findings.checked import CheckResult, ExplainedDivergence
from harness.findings.finding import Subject
from harness.relations.divergence import Divergence
from harness.scenario.scenario import Scenario, Step, format_scenario
from harness.trace.events import ENTRY, EXIT, Switch, Trace
from harness.vm.crash import Again, from_text

SUBJECT = Subject("fake", "6.1.0", "00" * 32, "spec")
SCENARIO = Scenario("A call.", (), (Step("hvc", (0,)),))
TEXT = format_scenario(SCENARIO).encode()
DIVERGENCE = Divergence("restore", "x3", 1, 2, "HVC64", 1, 0, "prep_hvc")
OTHER = Divergence("restore", "pc", 1, 2, "HVC64", 1, 0, "prep_hvc")


def switch(kind: int, esr: int = 0x5A00_0000, code: int = 2) -> Switch:
    """Return a record of an exit by HVC, or of an entry."""
    return Switch(kind, 0, code, 0, esr, 0, 0, 0, 0, 0, 0, 0, 0, (0,) * len(STATE))


TRACE = Trace((switch(ENTRY), switch(EXIT), switch(ENTRY), switch(EXIT)), "ok", 0, False)
Answer = CheckResult | Exception


def checked(*divergences: Divergence, status: str = "ok") -> CheckResult:
    """Return what checking a trace of two exits gives."""
    return CheckResult(
        status,
        0,
        {"HVC64": 2},
        {"save": 2, "restore": 2, "switch": 2},
        tuple(ExplainedDivergence(d, None) for d in divergences),
        {"switch: masked": 1},
        {},
        (("FIRST", ()), ("HVC64", (("hvc", True),))),
    )


@dataclass
class FakeExecutor:
    """Plays answers in order, then clean ones; an exception is raised by the run (VM) or by the check (ours)."""

    answers: list[Answer]
    fresh: list[bool] = field(default_factory=list)
    boots: int = 0
    seen: list[int] = field(default_factory=list)
    next: Answer = field(default_factory=checked)
    subject: Subject = SUBJECT
    fallen: FakeExecutor | None = None
    """What stands in for a machine that is there to reproduce a loss."""

    def run(self, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
        """Stand in for the executor."""
        self.fresh.append(fresh_vm)
        self.next = self.answers.pop(0) if self.answers else checked()
        if isinstance(self.next, VmLost | AgentProtocolError):
            raise self.next
        return TRACE

    def check(self, _scenario: Scenario, _trace: Trace) -> CheckResult:
        """Stand in for the check of what was run last."""
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    @contextmanager
    def boot(self) -> Iterator[FakeExecutor]:
        """Stand in for the machine."""
        self.boots += 1
        yield self

    def boot_again(self) -> AbstractContextManager[FakeExecutor]:
        """Stand in for the machine that is to be lost once more."""
        assert self.fallen is not None
        return self.fallen.boot()


@dataclass
class Bench:
    """A worker on a fake executor, and where its results are."""

    worker: Worker
    executor: FakeExecutor
    root: Path
    hits: list[int]

    @property
    def findings(self) -> Store:
        return Store(Database(default_url(self.root)), FINDINGS)

    @property
    def flaky(self) -> Store:
        return Store(Database(default_url(self.root)), FLAKY)

    def count(self, group: str) -> int:
        return read_stats(self.root / "stats").total(group)

    def get(self, group: str, name: str) -> int:
        return read_stats(self.root / "stats").get(group, name)


def bench(root: Path, *answers: Answer, again: tuple[Answer, ...] = ()) -> Bench:
    """Return a worker that has begun; ``again`` are the answers of machines that are there to reproduce a loss."""
    database = Database(default_url(root))
    executor, hits, ticks = FakeExecutor(list(answers)), list[int](), count(100)
    executor.fallen = FakeExecutor(list(again))
    context = WorkerContext(
        targets=TargetSet([executor]),
        count_coverage=hits.append,
        on_run=lambda: executor.seen.append(len(executor.fresh)),
        stats=StatsWriter(root / "stats"),
        findings=Store(database, FINDINGS),
        flaky=Store(database, FLAKY),
        dumps=Dumps(root / DUMPS),
        now=lambda: "2026-01-01T00:00:00+00:00",
        ticks=lambda: next(ticks),
    )
    worker = Worker(context)
    worker.begin()
    return Bench(worker, executor, root, hits)


def test_fake_clean_scenario_is_counted(tmp_path: Path) -> None:
    b = bench(tmp_path)
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


def test_fake_divergence_that_comes_back_is_a_finding(tmp_path: Path) -> None:
    b = bench(tmp_path, *[checked(DIVERGENCE)] * 3, checked(DIVERGENCE, DIVERGENCE))
    b.worker.run_input(TEXT)
    assert b.executor.fresh == [False, False, True]
    assert b.executor.seen == [1]  # what confirmation covers is no merit of the input
    b.worker.run_input(TEXT)  # a later member is not run again
    assert len(b.executor.fresh) == 4
    (id_,) = b.findings.ids()
    kept = b.findings.load(id_)
    assert b.findings.count(id_) == 2
    assert (kept.same_vm.hits, kept.fresh_vm.hits) == (1, 1)
    assert b.findings.entry(id_).scenario == TEXT.decode()
    assert "trace.json" in b.findings.texts(id_)
    assert (b.count("unexplained"), b.count("flaky"), b.get("count", "confirmations")) == (3, 0, 1)


@pytest.mark.parametrize(
    "again", [(checked(), checked(DIVERGENCE)), (checked(DIVERGENCE), checked()), (checked(OTHER), checked(OTHER))]
)
def test_fake_divergence_that_does_not_come_back_is_flaky(tmp_path: Path, again: tuple[CheckResult, ...]) -> None:
    b = bench(tmp_path, checked(DIVERGENCE), *again)
    b.worker.run_input(TEXT)
    assert b.findings.ids() == () and len(b.flaky.ids()) == 1
    assert (b.count("unexplained"), b.count("flaky")) == (0, 1)


def test_fake_cluster_of_an_earlier_campaign_is_known(tmp_path: Path) -> None:
    bench(tmp_path, *[checked(DIVERGENCE)] * 3).worker.run_input(TEXT)
    b = bench(tmp_path, checked(DIVERGENCE))
    b.worker.run_input(TEXT)
    assert b.executor.fresh == [False]
    assert [b.findings.count(id_) for id_ in b.findings.ids()] == [2]


def test_fake_members_of_a_cluster_are_written_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    b = bench(tmp_path, *[checked(DIVERGENCE)] * 6)
    for _ in range(4):  # the first is confirmed: two runs more
        b.worker.run_input(TEXT)
    (id_,) = b.findings.ids()
    assert (b.findings.count(id_), b.count("unexplained")) == (2, 4)
    b.worker.close()
    assert b.findings.count(id_) == 4


def test_fake_lost_machine_is_a_crash_and_is_booted_again(tmp_path: Path) -> None:
    lost = VmLost("fake", "QEMU ended with status -9", "Kernel panic - not syncing: at 0xffff0000\n")
    b = bench(tmp_path, checked(), lost)
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
        ((LOST, checked(), LOST), Again((2, 3), (0, 0), 0)),
        ((GONE, checked(), LOST), Again((1, 3), (0, 0), 0)),  # another loss is not this one
        # Two ran before it: all three bring it back; so do the last two, or do not.
        ((checked(),) * 5 + (LOST,) + (checked(), LOST) * 4, Again((0, 3), (3, 3), 1)),
        ((checked(),) * 5 + (LOST,) + (checked(),) * 4 + (LOST,) + (checked(),) * 6, Again((0, 3), (1, 3), 2)),
    ],
)
def test_fake_loss_is_tried_again_in_fresh_machines(
    tmp_path: Path, answers: tuple[Answer, ...], expected: Again
) -> None:
    b = bench(tmp_path, checked(), checked(), LOST, LOST, again=answers)
    for _ in range(4):
        b.worker.run_input(TEXT)
    (id_,) = b.findings.ids()
    texts = b.findings.texts(id_)
    report = from_text(texts["crash.json"])
    assert report.again == expected and report.kind == "hang"
    assert sorted(name for name in texts if name.startswith("earlier")) == ["earlier-01.scn", "earlier-02.scn"]
    assert b.findings.count(id_) == 2, "once it is known how to bring it back, others are only counted"
    assert b.get("reproduced", "yes") == 1


def test_fake_loss_that_does_not_come_back_is_tried_with_another_member(tmp_path: Path) -> None:
    b = bench(tmp_path, LOST, LOST, LOST)
    for expected in (None, Again((0, 3), (0, 0), 0), Again((0, 3), (0, 0), 0)):
        b.worker.run_input(TEXT)
        (id_,) = b.findings.ids()
        assert from_text(b.findings.texts(id_)["crash.json"]).again == expected
    assert (b.findings.count(id_), b.get("reproduced", "no")) == (3, 2)


def test_fake_end_of_the_campaign_ends_the_tries(tmp_path: Path) -> None:
    b = bench(tmp_path, LOST)
    b.worker.ending = True
    b.worker.run_input(TEXT)
    (id_,) = b.findings.ids()
    assert from_text(b.findings.texts(id_)["crash.json"]).again is None


def test_dumps_of_a_cluster_are_the_newest(tmp_path: Path) -> None:
    dumps = Dumps(tmp_path / DUMPS, kept=2, max_bytes=50)
    (tmp_path / DUMPS).mkdir()
    (tmp_path / DUMPS / "new-4194999.kdump").write_bytes(b"left by a worker that was killed")  # above Linux' PID_MAX
    gone = []
    for i in range(4):
        place = dumps.place()
        place.write_bytes(bytes([i]) * 10)
        dump, removed = dumps.keep(Dump(str(place), 0, 10, 0.0), "crash-a")
        gone.append(removed)
        assert (tmp_path / dump.path).read_bytes() == bytes([i]) * 10
    assert gone == [0, 0, 1, 1]
    assert not list((tmp_path / DUMPS).glob("new-*"))
    assert [p.name for p in sorted((tmp_path / DUMPS / "crash-a").iterdir())] == ["0003.kdump", "0004.kdump"]
    place = dumps.place()
    place.write_bytes(bytes(40))
    _, removed = dumps.keep(Dump(str(place), 0, 40, 0.0), "crash-b")
    assert removed == 1, "all of them have a limit together"


def test_fake_machine_lost_while_confirming(tmp_path: Path) -> None:
    b = bench(tmp_path, checked(DIVERGENCE), AgentProtocolError("status 0x77"))
    b.worker.run_input(TEXT)
    assert [id_.partition("-")[0] for id_ in b.findings.ids()] == ["crash"]
    assert (b.count("flaky"), b.count("lost"), b.get("count", "scenarios")) == (1, 1, 1)


def test_fake_losses_in_a_row_end_the_worker(tmp_path: Path) -> None:
    lost = [VmLost("fake", "hangs")] * (MAX_LOSSES - 1)
    b = bench(tmp_path, *lost, checked(), *lost, VmLost("fake", "hangs"), VmLost("fake", "hangs"))
    for _ in range(2 * MAX_LOSSES - 1):
        b.worker.run_input(TEXT)
    with pytest.raises(GiveUp, match="lost 5 times in a row, the last time: fake: hangs"):
        b.worker.run_input(TEXT)
    assert b.count("lost") == 2 * MAX_LOSSES - 1


def test_fake_machine_that_runs_what_is_plain_is_well(tmp_path: Path) -> None:
    """libFuzzer piles mutations on one input: the first that ends the machine makes the next ones do so."""
    lost = [VmLost("fake", "hangs")] * MAX_LOSSES
    b = bench(tmp_path, *lost, checked(), *lost, checked(), checked())
    for _ in range(2 * MAX_LOSSES + 1):
        b.worker.run_input(TEXT)
    assert (b.count("lost"), b.get("count", "scenarios")) == (2 * MAX_LOSSES, 1), "what is asked of it counts as none"


@pytest.mark.parametrize(("second", "unstable"), [(checked(DIVERGENCE), 0), (checked(), 1)])
def test_fake_sample_is_run_again(tmp_path: Path, second: CheckResult, unstable: int) -> None:
    first = [checked(DIVERGENCE)] * (SAMPLED + 2)  # the first one is confirmed
    b = bench(tmp_path, *first, second)
    for _ in range(SAMPLED):
        b.worker.run_input(TEXT)
    assert (b.get("count", "again"), b.get("count", "unstable")) == (1, unstable)


def test_fake_failure_of_our_own_is_a_finding(tmp_path: Path) -> None:
    b = bench(tmp_path, *[KeyError("x99")] * MAX_INTERNAL)
    for _ in range(MAX_INTERNAL - 1):
        b.worker.run_input(TEXT)
    (id_,) = b.findings.ids()
    assert id_.startswith("internal-") and "KeyError" in b.findings.texts(id_)["traceback.txt"]
    with pytest.raises(GiveUp, match="shadowfuzz itself failed"):
        b.worker.run_input(TEXT)
    assert b.count("internal") == MAX_INTERNAL


def test_fake_findings_that_cannot_be_written_are_said_to_be(tmp_path: Path) -> None:
    b = bench(tmp_path, *[checked(DIVERGENCE)] * 6)
    with pytest.MonkeyPatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise StoreError("database or disk is full")

        patch.setattr(Store, "add", full)
        b.worker.run_input(TEXT)
    assert (b.count("unexplained"), b.count("unwritten")) == (1, 1)
    b.worker.run_input(TEXT)  # there is room again
    assert len(b.findings.ids()) == 1 and b.get("count", "scenarios") == 2


def test_features_do_not_depend_on_the_process() -> None:
    program = "from tests.test_worker import *; print(sorted(features(TRACE, checked())))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{sorted(features(TRACE, checked()))}\n"}


def test_setup_error_ends_the_worker(tmp_path: Path) -> None:
    b = bench(tmp_path, VmLost("fake", "gone"))
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
    b = bench(tmp_path)
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
