# SPDX-License-Identifier: Apache-2.0
"""A worker of a campaign on a fake executor that gives answers in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from fuzz.campaign.counters_file import StatsWriter, read_stats
from fuzz.campaign.worker import Worker, WorkerContext
from fuzz.store.database import Database, default_url
from fuzz.store.dumps import DUMPS, Dumps
from fuzz.store.findings import FINDINGS, FLAKY, Store
from fuzz.targets.target_set import TargetSet
from harness.arch.registers import STATE
from harness.errors import AgentProtocolError, VmLost
from harness.findings.checked import CheckResult, ExplainedDivergence
from harness.findings.finding import Subject
from harness.relations.divergence import Divergence
from harness.scenario.scenario import Scenario, Step, format_scenario
from harness.trace.events import ENTRY, EXIT, Switch, Trace
from harness.vm.alarms import Alarm

SUBJECT = Subject("fake", "6.1.0", "00" * 32, "spec")

SCENARIO = Scenario("A call.", (), (Step("hvc", (0,)),))

TEXT = format_scenario(SCENARIO).encode()

DIVERGENCE = Divergence("restore", "x3", 1, 2, "HVC64", 1, 0, "prep_hvc")
OTHER = Divergence("restore", "pc", 1, 2, "HVC64", 1, 0, "prep_hvc")


def switch(kind: int, esr: int = 0x5A00_0000, code: int = 2) -> Switch:
    """Return the record of an exit by HVC, or of an entry."""
    return Switch(kind, 0, code, 0, esr, 0, 0, 0, 0, 0, 0, 0, 0, (0,) * len(STATE))


TRACE = Trace((switch(ENTRY), switch(EXIT), switch(ENTRY), switch(EXIT)), "ok", 0, False)

Answer = CheckResult | Exception


def checked(*divergences: Divergence, status: str = "ok") -> CheckResult:
    """Return the check result of a trace with two exits."""
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
    """Gives answers in order, then clean ones; an error of the VM is raised by the run, any other by the check."""

    answers: list[Answer]
    fresh: list[bool] = field(default_factory=list)
    boots: int = 0
    seen: list[int] = field(default_factory=list)
    next: Answer = field(default_factory=checked)
    subject: Subject = SUBJECT
    fallen: FakeExecutor | None = None
    """The executor of machines that are booted to reproduce a loss."""
    complaints: list[tuple[Alarm, ...]] = field(default_factory=list)
    """The kernel's alarms in each run; later runs have none."""
    boot_alarms: tuple[Alarm, ...] = ()

    def run(self, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
        """Record a run and return its trace, as the executor does."""
        self.fresh.append(fresh_vm)
        self.next = self.answers.pop(0) if self.answers else checked()
        if isinstance(self.next, VmLost | AgentProtocolError):
            raise self.next
        return TRACE

    def alarms(self) -> tuple[Alarm, ...]:
        """Return the alarms of the last run."""
        return self.complaints.pop(0) if self.complaints else ()

    def check(self, _scenario: Scenario, _trace: Trace, *_: object) -> CheckResult:
        """Return the check result of the last run."""
        if isinstance(self.next, Exception):
            raise self.next
        return self.next

    @contextmanager
    def boot(self) -> Iterator[FakeExecutor]:
        """Boot a machine: this executor itself."""
        self.boots += 1
        yield self

    def boot_again(self) -> AbstractContextManager[FakeExecutor]:
        """Boot a machine to reproduce a loss."""
        assert self.fallen is not None
        return self.fallen.boot()


@dataclass
class FakeWorker:
    """A worker on a fake executor, and the directory of its results."""

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


def make_worker(
    root: Path,
    *answers: Answer,
    again: tuple[Answer, ...] = (),
    early: tuple[Alarm, ...] = (),
    own_qemu: FakeExecutor | None = None,
) -> FakeWorker:
    """Return a started worker; ``again`` are the answers of machines that are booted to reproduce a loss.

    ``early`` are the alarms of the kernel while it boots.  ``own_qemu`` is the machine on Debian's own QEMU, if the
    worker's is on the fast one.
    """
    root.mkdir(exist_ok=True)
    database = Database(default_url(root))
    executor, hits, ticks = FakeExecutor(list(answers)), list[int](), count(100)
    executor.fallen, executor.boot_alarms = FakeExecutor(list(again)), early
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
        own_qemu=None if own_qemu is None else TargetSet([own_qemu]),
    )
    worker = Worker(context)
    worker.begin()
    return FakeWorker(worker, executor, root, hits)
