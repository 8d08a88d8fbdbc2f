# SPDX-License-Identifier: Apache-2.0
"""Replay scenario files: run each scenario ``repeat`` times on each target, and check every run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fuzz.corpus.files import find_scenarios
from fuzz.targets.hyp_copy_option import check_option
from fuzz.targets.observation import Observation
from fuzz.targets.options import TargetOptions
from fuzz.targets.prepared_side import prepare_side
from fuzz.targets.target_set import PreparedTargets, Side, TargetSet
from harness.arch.cpu_models import cpu_model
from harness.errors import InputError, TargetError, VmLost
from harness.report.left_out import failed_steps, left_out
from harness.report.replay_result import Job, Lost, Ran, TargetResult
from harness.report.sites import sites
from harness.scenario.scenario import Scenario, load
from harness.trace.expectations import judge_expectations
from harness.vm.build.prepare import PreparedTarget, read_image
from harness.vm.config import MachineConfig, load_config


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """A validated replay: the jobs in order, and the targets on which each of them runs.

    ``options``, except the names, apply to every target.  With ``same_vm``, all jobs run in one KVM VM.
    """

    jobs: tuple[Job, ...]
    configs: tuple[MachineConfig, ...]
    options: TargetOptions
    same_vm: bool = False


class ReplayListener:
    """Callbacks during a replay; this class ignores them."""

    def target_ready(self, name: str, prepared: PreparedTarget) -> None:
        """Handle a prepared target, before its jobs."""

    def job_done(self, target: str, item: Ran | Lost) -> None:
        """Handle the result of a job."""


def make_plan(
    paths: Sequence[Path], names: Sequence[str], options: TargetOptions, *, repeat: int, same_vm: bool
) -> ReplayPlan:
    """Read all scenarios and targets, before anything is built or booted.  InputError: a path or a name is wrong."""
    scenarios = [(str(path), load(path)) for path in find_scenarios(paths)]
    configs = tuple(load_config(name) for name in dict.fromkeys(names))
    twice = [name for name, count in Counter(config.name for config in configs).items() if count > 1]
    if twice:
        raise InputError(twice[0], None, "two targets have this name: their results could not be distinguished")
    if options.kernel is not None:
        read_image(options.kernel)
    check_option(options.hyp_copy, configs)
    for config in configs:
        cpu_model(config.cpu)
    return ReplayPlan(_jobs(scenarios, repeat), configs, options, same_vm)


def _jobs(scenarios: Sequence[tuple[str, Scenario]], repeat: int) -> tuple[Job, ...]:
    names = Counter(Path(path).name for path, _ in scenarios)
    return tuple(
        Job(path, path if names[Path(path).name] > 1 else Path(path).name, scenario, n + 1)
        for path, scenario in scenarios
        for n in range(repeat)
    )


def replay(
    plan: ReplayPlan, listener: ReplayListener, progress: Callable[[str], None], *, keep_traces: bool = False
) -> tuple[TargetResult, ...]:
    """Run all jobs on each target in turn.  InputError, SetupError: the set-up is wrong.

    The result reports a lost target.  Without ``keep_traces``, results have no events, because thousands of runs would
    fill the memory.
    """
    return tuple(_replay_on(config, plan, listener, progress, keep_traces) for config in plan.configs)


def _replay_on(
    config: MachineConfig,
    plan: ReplayPlan,
    listener: ReplayListener,
    progress: Callable[[str], None],
    keep_traces: bool,
) -> TargetResult:
    side = prepare_side(config, plan.options, progress)
    listener.target_ready(config.name, side.prepared)
    start = time.monotonic()
    ran: list[Ran] = []
    lost: list[Lost] = []
    with PreparedTargets([side]) as targets:
        for item in run_jobs(plan, targets):
            listener.job_done(config.name, item)
            if isinstance(item, Lost):
                lost.append(item)
            else:
                ran.append(item if keep_traces else _without_events(item))
    seconds = time.monotonic() - start
    kernel = side.prepared.kernel_release
    return TargetResult(config.name, kernel, targets.boots, seconds, tuple(ran), tuple(lost), targets.boot_alarms)


def _without_events(item: Ran) -> Ran:
    return replace(item, trace=replace(item.trace, events=(), hyp=(), lists=()))


def run_jobs(plan: ReplayPlan, targets: TargetSet[Side]) -> Iterator[Ran | Lost]:
    """Run all jobs on one target; boot again only after a loss.  A target that does not boot ends the run."""
    for job in plan.jobs:
        fresh = not (targets.running and plan.same_vm)
        try:
            targets.start()
        except TargetError as error:
            yield _lost(None, error)
            return
        try:
            found = targets.run_and_check(job.scenario, fresh_vm=fresh)
        except TargetError as error:
            yield _lost(job, error)
        else:
            yield _ran(job, found)


def _lost(job: Job | None, error: TargetError) -> Lost:
    if isinstance(error, VmLost):
        return Lost(job, error.reason, error.console_tail)
    return Lost(job, str(error), "")


def _ran(job: Job, found: Observation) -> Ran:
    """Return the result of a run with its divergent sites."""
    level = found.subject.level
    there = sites(job.scenario, found.trace, level, found.checked.judged)
    gaps, failed = left_out(found.checked.gaps, found.trace), failed_steps(job.scenario, found.trace)
    expected = judge_expectations(job.scenario, found.trace)
    return Ran(job, found.trace, found.checked, there, found.alarms, found.asserted, gaps, failed, expected)
