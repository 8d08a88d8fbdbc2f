# SPDX-License-Identifier: Apache-2.0
"""A campaign's work on one machine, to be measured: as a value, and as a process that runs slices on request.

The process is this file with the modules of any checkout: its own is first on PYTHONPATH, and ``python -P`` keeps this
directory out.  So two commits are measured by the same code (:mod:`fuzz.bench.compare`).  It reads a JSON object a
line, and answers each with one::

    {"target": ..., "level": ..., "place": ...}  boots, with "fast_qemu" on that; answers {"compiled": ...}
    {"seed": ..., "scenarios": ...}              runs a slice; answers {"exits", "wall", "cpu", "qemu"}, in seconds
    {"stages": seed}                             answers the parts of an exit (fuzz.bench.stages.measure_stages)

Where it cannot go on, it answers {"error": sentence} and ends.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if __name__ == "__main__" and Path("fuzz/compiled/use.py").is_file():
    # Before anything of it is imported.  An older checkout has none: an editable installation would find this one's.
    from fuzz.compiled.use import use_compiled

    use_compiled(os.environ)

from fuzz.bench import stages as parts
from fuzz.campaign.counters_file import StatsWriter
from fuzz.campaign.gc_tuning import reduce_gc
from fuzz.campaign.worker import Worker, WorkerContext
from fuzz.generate.mutator import custom_mutator, generate
from fuzz.store.database import Database
from fuzz.store.dumps import Dumps
from fuzz.store.findings import FINDINGS, FLAKY, Store
from fuzz.targets.options import TargetOptions
from fuzz.targets.prepared_side import PreparedSide
from fuzz.targets.target_set import TargetSet, open_targets
from harness.errors import SetupError, ShadowfuzzError
from harness.findings.checked import CheckResult
from harness.findings.finding import Subject
from harness.scenario.scenario import Scenario, format_scenario
from harness.trace.events import Trace
from harness.vm.executor import Executor

MAX_BYTES = 10240
_measure_stages = next(getattr(parts, name) for name in ("measure_stages", "stages") if hasattr(parts, name))
"""The second is an older checkout's name."""


class CheckedCampaign:
    """A worker of a campaign without libFuzzer: the mutator is called here."""

    def __init__(self, side: PreparedSide, executor: Executor, place: Path, rng: random.Random) -> None:
        self.executor, self._rng = executor, rng
        self.scenarios: list[Scenario] = []
        """The scenarios that every mode runs in a loop."""
        self._stats = StatsWriter(place / "stats")
        database = Database(f"sqlite:///{place / 'findings.sqlite'}")
        self._worker = Worker(
            WorkerContext(
                targets=TargetSet([_Booted(side, executor)]),
                count_coverage=lambda _: None,
                on_run=lambda: None,
                stats=self._stats,
                findings=Store(database, FINDINGS),
                flaky=Store(database, FLAKY),
                dumps=Dumps(place / "dumps"),
                now=lambda: datetime.now(UTC).isoformat(timespec="seconds"),
                ticks=time.monotonic_ns,
            )
        )

    def step(self, scenario: Scenario) -> None:
        """Mutate a scenario, then do all that a campaign does with it."""
        self.run(custom_mutator(format_scenario(scenario).encode(), MAX_BYTES, self._rng.getrandbits(32)))

    def run(self, data: bytes) -> None:
        """Do all that a campaign does with an input."""
        self._worker.run_input(data)

    @property
    def checked_exits(self) -> int:
        """As a campaign counts them."""
        return self._stats.get("count", "checked_exits")

    @property
    def first_exit_s(self) -> float:
        """When the first exit was checked, by :func:`time.monotonic`; 0 if none was."""
        return self._stats.get("time", "first_exit") / 1e9


@dataclass(frozen=True, slots=True)
class _Booted:
    """A target whose machine is up already, and stays up when the worker is done with it."""

    side: PreparedSide
    executor: Executor

    @property
    def subject(self) -> Subject:
        return self.side.subject

    def boot(self) -> AbstractContextManager[Executor]:
        return nullcontext(self.executor)

    def boot_again(self) -> AbstractContextManager[Executor]:
        return self.side.boot_again()

    def check(self, scenario: Scenario, trace: Trace) -> CheckResult:
        return self.side.check(scenario, trace)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that the threads of a process have used so far.

    In nanoseconds by the kernel's scheduler (Documentation/scheduler/sched-stats.rst): /proc/PID/stat counts ticks, of
    which a slice has few.
    """
    nanoseconds = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def inputs(seed: int, scenarios: int) -> Iterator[bytes]:
    """Yield the inputs of a slice: scenarios, each mutated some times."""
    rng = random.Random(seed)
    for _ in range(scenarios):
        data = format_scenario(generate(rng)).encode()
        for _ in range(rng.randrange(1, 4)):
            data = custom_mutator(data, MAX_BYTES, rng.getrandbits(32))
        yield data


def _slice(campaign: CheckedCampaign, seed: int, scenarios: int) -> dict[str, float]:
    data, pid = list(inputs(seed, scenarios)), campaign.executor.pid
    exits, qemu, cpu, begin = campaign.checked_exits, cpu_seconds(pid), time.process_time(), time.monotonic()
    for each in data:
        campaign.run(each)
    return {
        "exits": campaign.checked_exits - exits,
        "wall": time.monotonic() - begin,
        "cpu": time.process_time() - cpu,
        "qemu": cpu_seconds(pid) - qemu,
    }


@contextmanager
def _campaign(job: Mapping[str, Any]) -> Iterator[tuple[PreparedSide, CheckedCampaign]]:
    fast: dict[str, Any] = {"fast_qemu": True} if "fast_qemu" in job else {}  # an older checkout does not have it
    (side,) = open_targets(TargetOptions(job["target"], job["level"], cold=True, **fast)).sides
    if fast and side.own is None:
        raise SetupError(f"no fast QEMU here that was compared on {job['target']}: shadowfuzz setup --fast-qemu")
    with side.boot() as executor:
        campaign = CheckedCampaign(side, executor, Path(job["place"]), random.Random(1))
        reduce_gc()
        yield side, campaign


def _main() -> int:
    def answer(row: Mapping[str, object]) -> None:
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()

    try:
        with _campaign(json.loads(sys.stdin.readline())) as (side, campaign):
            answer({"compiled": any(type(finder).__name__ == "CompiledFinder" for finder in sys.meta_path)})
            for line in sys.stdin:
                order = json.loads(line)
                if "stages" in order:
                    rng = random.Random(order["stages"])
                    answer(_measure_stages(side, campaign.executor, [generate(rng) for _ in range(60)]))
                else:
                    answer(_slice(campaign, order["seed"], order["scenarios"]))
    except ShadowfuzzError as error:
        answer({"error": str(error)})
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(_main())
