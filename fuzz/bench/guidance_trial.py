# SPDX-License-Identifier: Apache-2.0
"""Compare the modes of guidance: several campaigns from an empty corpus per mode, coverage over time, and the cost.

The modes alternate, so that a slower period of the machine affects all of them.  KVM's edges are counted in every mode,
whether libFuzzer sees them or not.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Protocol

from fuzz.campaign.guidance import edges_in
from fuzz.campaign.limits import MODES
from fuzz.campaign.parent import CORPUS, RUN, Plan, Progress, campaign_directory, run_campaign, until_signal
from fuzz.campaign.worker_job import Launcher
from fuzz.generate.mutator import generate
from fuzz.store.database import default_url
from fuzz.targets.options import TargetOptions
from fuzz.targets.prepared_side import MachineOptions, PreparedSide
from fuzz.targets.target_set import open_targets
from harness.coverage.kvm_code import blocks_of
from harness.errors import TargetError
from harness.scenario.scenario import Scenario
from harness.vm.executor import Executor
from harness.vm.kernels.kvm_functions import KvmText
from harness.vm.plugins.edges import Edge
from harness.vm.plugins.kvm_coverage import Coverage, prepare_coverage


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """What to run: ``runs`` campaigns of ``seconds`` per mode, of ``jobs`` workers; all seeds depend on ``seed``."""

    target: str
    level: str
    seconds: float
    runs: int
    jobs: int
    seed: int


@dataclass(frozen=True, slots=True)
class TrialPoint:
    """The counts of a campaign after ``second`` seconds: edges of KVM, model decisions, scenarios, checked exits."""

    second: float
    edges: int
    decisions: int
    scenarios: int
    checked_exits: int


@dataclass(frozen=True, slots=True)
class CampaignRun:
    """One campaign: its counts over time, the size of its corpus at the end, and the edges that it reached."""

    mode: str
    seed: int
    points: tuple[TrialPoint, ...]
    corpus: int
    edges: frozenset[Edge]

    def to_json(self) -> dict[str, object]:
        """Return plain data; of the edges, only their number is given (in the last point)."""
        return {"mode": self.mode, "seed": self.seed, "corpus": self.corpus, "points": [asdict(p) for p in self.points]}


def run_trial(plan: TrialPlan, say: Callable[[str], None]) -> tuple[CampaignRun, ...]:
    """Run all campaigns.  TargetError: one ended early, with its reason.  KeyboardInterrupt: a signal arrived."""
    found: list[CampaignRun] = []
    for number, mode in product(range(plan.runs), MODES):
        with until_signal() as stopped:
            run = _campaign(plan, mode, (plan.seed + 7919 * number) % (1 << 32), stopped)
        last = run.points[-1]
        say(
            f"run {number + 1} of {plan.runs}, guided by {mode}: {last.edges} edges, {last.decisions} decisions, "
            f"{last.scenarios} scenarios"
        )
        found.append(run)
    return tuple(found)


def _campaign(plan: TrialPlan, mode: str, seed: int, stopped: Callable[[], bool]) -> CampaignRun:
    points: list[TrialPoint] = []
    with tempfile.TemporaryDirectory(prefix="shadowfuzz-trial-") as name:
        out = Path(name)

        def tick(progress: Progress) -> None:
            if progress.seconds:
                points.append(_point(progress.seconds, len(edges_in(out / RUN)), progress.stats))

        launch = Launcher(TargetOptions(plan.target, plan.level), seed, out, default_url(out), mode, watched=True)
        with campaign_directory(out, []):
            outcome = run_campaign(Plan(plan.seconds, plan.jobs, out), launch, tick, stopped)
            edges = edges_in(out / RUN)
        if outcome.interrupted:
            raise KeyboardInterrupt
        if outcome.failure:
            raise TargetError(f"a campaign guided by {mode} ended early: {outcome.failure}")
        points.append(_point(outcome.seconds, len(edges), outcome.stats))
        corpus = sum(1 for _ in (out / CORPUS).iterdir())
    return CampaignRun(mode, seed, tuple(points), corpus, edges)


class _Counts(Protocol):
    def get(self, group: str, name: str) -> int: ...

    def group(self, group: str) -> Mapping[str, int]: ...


def _point(seconds: float, edges: int, stats: _Counts) -> TrialPoint:
    scenarios, checked = stats.get("count", "scenarios"), stats.get("count", "checked_exits")
    return TrialPoint(round(seconds, 1), edges, len(stats.group("branches")), scenarios, checked)


# ---- the plugin's cost ----------------------------------------------------------------------------------------------

SCENARIOS = 100
COST_TURNS = 3
"""Turns per run of a mode: a longer trial also measures the cost longer."""


@dataclass(frozen=True, slots=True)
class Rate:
    """The result of one turn: exits per second, and QEMU's CPU time per exit in microseconds."""

    exits_per_s: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Cost:
    """The bare loop without the plugin and with it, one pair per turn."""

    bare: tuple[Rate, ...]
    watched: tuple[Rate, ...]

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {"bare": [asdict(rate) for rate in self.bare], "watched": [asdict(rate) for rate in self.watched]}


def measure_cost(side: PreparedSide, coverage: Coverage, *, turns: int, seed: int) -> Cost:
    """Run the same scenarios on two machines, one with the plugin and one without, in turns of a second or two.

    Both machines run all the time, but only one of them has work.
    """
    rng = random.Random(seed)
    scenarios = [generate(rng) for _ in range(SCENARIOS)]
    counted = side.made_with(MachineOptions(plugin=coverage.plugin()))
    with side.boot() as bare, counted.boot() as watched:
        machines = (bare, watched)
        rates = [[_rate(machine, scenarios) for machine in machines] for _ in range(turns + 1)]
    del rates[0]  # the first turn includes QEMU's translation of new code
    return Cost(tuple(one for one, _ in rates), tuple(other for _, other in rates))


def _rate(executor: Executor, scenarios: Sequence[Scenario]) -> Rate:
    exits, cpu, begin = executor.exits, _cpu_seconds(executor.pid), time.monotonic()
    for scenario in scenarios:
        executor.run_bare(scenario, fresh_vm=False, record=False)
    took, exits, cpu = time.monotonic() - begin, executor.exits - exits, _cpu_seconds(executor.pid) - cpu
    return Rate(round(exits / took, 1), round(cpu / exits * 1e6, 2))


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of a process (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- its result -----------------------------------------------------------------------------------------------------


def exclusive(runs: Sequence[CampaignRun]) -> Mapping[str, frozenset[Edge]]:
    """Return, by mode, the edges that its runs reached and that no run of another mode reached."""
    seen = {mode: frozenset[Edge]().union(*(run.edges for run in runs if run.mode == mode)) for mode in MODES}
    return {
        mode: edges - frozenset[Edge]().union(*(other for name, other in seen.items() if name != mode))
        for mode, edges in seen.items()
    }


def measure_trial(plan: TrialPlan, progress: Callable[[str], None]) -> dict[str, object]:
    """Run the trial and return the plain data that :mod:`harness.report.guidance_trial` shows.

    InputError, SetupError: a name or the set-up is wrong.  TargetError: a campaign ended early.
    """
    (side,) = open_targets(TargetOptions(plan.target, plan.level, cold=True), progress).sides
    coverage = prepare_coverage(side.prepared, progress=progress)
    load = round(os.getloadavg()[0], 1)
    turns = COST_TURNS * plan.runs
    progress(f"the plugin's cost: the same scenarios {turns} times with it and without")
    cost = measure_cost(side, coverage, turns=turns, seed=plan.seed)
    runs = run_trial(plan, progress)
    return {
        "target": side.config.name,
        "kernel_release": side.prepared.kernel_release,
        "level": plan.level,
        "seconds": plan.seconds,
        "runs": plan.runs,
        "jobs": plan.jobs,
        "seed": plan.seed,
        "cores": os.cpu_count(),
        "load": load,
        "cost": cost.to_json(),
        "campaigns": [each.to_json() for each in runs],
        "exclusive": _exclusive(runs, coverage.text),
    }


def _exclusive(runs: Sequence[CampaignRun], text: KvmText) -> dict[str, object]:
    found: dict[str, object] = {}
    for mode, edges in exclusive(runs).items():
        others = [edge for run in runs if run.mode != mode for edge in run.edges]
        ours = [edge for run in runs if run.mode == mode for edge in run.edges]
        found[mode] = {"edges": len(edges), "functions": sorted(_functions(ours, text) - _functions(others, text))}
    return found


def _functions(edges: Sequence[Edge], text: KvmText) -> set[str]:
    functions = (text.find(block) for block in blocks_of(edges))
    return {function.name for function in functions if function is not None}
