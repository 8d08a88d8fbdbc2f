# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz replay``: run scenario files on real KVM and show every difference, side by side."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from fuzz.cli.options import Subparsers, add_deterministic, add_hyp_copy, add_number, add_paths, add_subject
from fuzz.cli.output import style_of
from fuzz.cli.progress import saying
from fuzz.corpus.files import find_scenarios
from fuzz.paths import KNOWN_DIR
from fuzz.targets.hyp_copy_option import check_option, choose_copy
from fuzz.targets.runner import Boot, Runs
from harness.arch.cpu_models import Cpu, cpu_model
from harness.errors import InputError, TargetError, VmLost
from harness.findings.check import check
from harness.findings.known_divergences import Catalogue
from harness.report import terminal
from harness.report.replay_json import document
from harness.report.replay_result import Job, Lost, Ran, TargetResult, exit_status
from harness.report.sites import sites
from harness.report.terminal import Style
from harness.report.trace_text import trace_lines
from harness.scenario.scenario import Scenario, load
from harness.trace.events import Trace
from harness.vm.build.prepare import PreparedTarget, prepare, read_image
from harness.vm.config import DEFAULT_TARGET, MachineConfig, list_configs, load_config
from harness.vm.target import boot

EPILOG = """\
examples:
  shadowfuzz replay corpus/seeds/mmio_load_signed_byte_x.scn
      one scenario on the default target
  shadowfuzz replay corpus/seeds --all-targets --json > replay.json
      every seed on every target, as one JSON object (keys: harness/report/replay_json.py)
  shadowfuzz replay finding.scn --repeat 20 --kernel ./Image
      twenty times, each in a fresh VM, on a kernel image of your own
  shadowfuzz replay corpus/seeds/protected_vm.scn --target kvm-7.3-protected
      with what pKVM loads and saves, in memory that its host cannot read, beside what the host has (--no-hyp-copy:
      without)
  shadowfuzz replay finding.scn --deterministic --trace
      interrupts included, the same trace whenever and wherever this is run

the table of a divergence: "before" is a register at the exit, "host" what KVM and userspace left there,
"predicted" what the model says the guest sees next, "observed" what the guest really sees; ^ marks digits that
differ.  Relation switch has "entry", "expected" and "observed": what went into the guest and what came out.

exit status: 0 nothing unexplained, 1 an unexplained divergence, 2 bad usage or input, 3 a target was lost
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """A replay that has nothing wrong in it: jobs in order, and what to check them with."""

    jobs: tuple[Job, ...]
    configs: tuple[MachineConfig, ...]
    cpus: Mapping[str, Cpu]
    kernel: Path | None
    level: str
    catalogue: Catalogue
    same_vm: bool = False
    deterministic: bool = False
    hyp_copy: bool | None = False


def add_parser(subparsers: Subparsers) -> None:
    """Add ``replay``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "replay",
        help="run scenario files on real KVM and show what differs",
        description="Run each scenario in a fresh VM on each target, and show every difference side by side.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_paths(parser)
    add_subject(parser, several=True)
    add_deterministic(parser)
    add_hyp_copy(parser)
    add_number(parser, "--repeat", 1, "run each scenario N times", most=999_999)
    parser.add_argument("--same-vm", action="store_true", help="one KVM VM for all, in their order, as in a campaign")
    parser.add_argument("-v", "--known", action="store_true", help="show known divergences too, each with its reason")
    parser.add_argument("--trace", action="store_true", help="print each recorded event, with what changed")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run_replay)


def run_replay(args: argparse.Namespace) -> int:
    """Plan, run, print; errors are raised for the caller to show, a lost target becomes status 3."""
    plan = make_plan(args)
    output = None if args.json else _Text(sys.stdout, style_of(sys.stdout, os.environ), plan.level, args)
    keep = args.json and args.trace
    results = tuple(_target(config, plan, output, keep) for config in plan.configs)
    if output is None:
        print(json.dumps(document(results, plan.level, traces=args.trace), indent=1))
    else:
        print("\n" + terminal.summary(results, plan.level, output.style, known=args.known))
    return exit_status(results)


def make_plan(args: argparse.Namespace) -> Plan:
    """Read everything that the arguments name.  InputError, before anything is built or booted."""
    files = find_scenarios(args.paths)
    scenarios = [(str(path), load(path)) for path in files]
    names = list_configs() if args.all_targets else tuple(dict.fromkeys(args.target or (DEFAULT_TARGET,)))
    configs = tuple(load_config(name) for name in names)
    twice = [name for name, count in Counter(config.name for config in configs).items() if count > 1]
    if twice:
        raise InputError(twice[0], None, "two targets of this name; their results could not be told apart")
    if args.kernel is not None:
        read_image(args.kernel)
    check_option(args.hyp_copy, configs)
    return Plan(
        _jobs(scenarios, args.repeat),
        configs,
        {config.name: cpu_model(config.cpu) for config in configs},
        args.kernel,
        args.level,
        Catalogue.load(KNOWN_DIR, args.level),
        args.same_vm,
        args.deterministic,
        args.hyp_copy,
    )


def _jobs(scenarios: Sequence[tuple[str, Scenario]], repeat: int) -> tuple[Job, ...]:
    names = Counter(Path(path).name for path, _ in scenarios)
    return tuple(
        Job(path, path if names[Path(path).name] > 1 else Path(path).name, scenario, n + 1)
        for path, scenario in scenarios
        for n in range(repeat)
    )


class _Text:
    """Prints what happens as it happens."""

    def __init__(self, stream: TextIO, style: Style, level: str, args: argparse.Namespace) -> None:
        self.style = style
        self._stream, self._level = stream, level
        self._known: bool = args.known
        self._trace: bool = args.trace

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def target(self, name: str, prepared: PreparedTarget) -> None:
        self._print(self.style.paint("bold", f"{name}: Linux {prepared.kernel_release}"))
        self._print(terminal.header_line(self.style))

    def show(self, target: str, item: Ran | Lost) -> None:
        if isinstance(item, Lost):
            self._print(terminal.lost_line(target, item, self.style))
            return
        self._print(terminal.status_line(item, self.style))
        for line in terminal.sites(item, self._level, self.style, known=self._known):
            self._print(line)
        if self._trace:
            self._print("\n".join(trace_lines(item.trace)))


def _target(config: MachineConfig, plan: Plan, output: _Text | None, keep_traces: bool) -> TargetResult:
    prepared = prepare(config, kernel=plan.kernel, progress=saying("setup"))
    if output is not None:
        output.target(config.name, prepared)
    hyp_copy = choose_copy(plan.hyp_copy, config, prepared, saying("setup"))
    start = time.monotonic()
    boots = [0]
    done: list[Ran | Lost] = []

    def booted() -> AbstractContextManager[Runs]:
        boots[0] += 1
        return boot(config, prepared, deterministic=plan.deterministic, hyp_copy=hyp_copy)

    for item in run_jobs(plan, plan.cpus[config.name], booted):
        if output is not None:
            output.show(config.name, item)
        if isinstance(item, Ran) and not keep_traces:
            # Thousands of runs would fill the memory.
            item = replace(item, trace=replace(item.trace, events=(), hyp=(), lists=()))
        done.append(item)
    ran = tuple(item for item in done if isinstance(item, Ran))
    lost = tuple(item for item in done if isinstance(item, Lost))
    return TargetResult(config.name, prepared.kernel_release, boots[0], time.monotonic() - start, ran, lost)


def run_jobs(plan: Plan, cpu: Cpu, boot_target: Boot) -> Iterator[Ran | Lost]:
    """Run all jobs on one target, one boot for as long as it lives; a target that does not boot ends it."""
    waiting = list(reversed(plan.jobs))
    while waiting:
        job: Job | None = None
        try:
            with boot_target() as target:
                first = True
                while waiting:
                    job = waiting.pop()
                    trace = target.run(job.scenario, fresh_vm=first or not plan.same_vm)
                    first = False
                    yield judge(job, trace, plan, cpu)
        except TargetError as error:
            yield _lost(job, error)
            if job is None:
                return


def _lost(job: Job | None, error: TargetError) -> Lost:
    if isinstance(error, VmLost):
        return Lost(job, error.reason, error.console_tail)
    return Lost(job, str(error), "")


def judge(job: Job, trace: Trace, plan: Plan, cpu: Cpu) -> Ran:
    """Check a trace and find its divergent sites."""
    checked = check(job.scenario, trace, plan.level, cpu, plan.catalogue)
    return Ran(job, trace, checked, sites(job.scenario, trace, plan.level, checked.judged))
