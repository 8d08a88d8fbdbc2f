# SPDX-License-Identifier: Apache-2.0
"""A target to try scenarios on: booted when first needed, booted again when lost, a fresh KVM VM for each try."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from fuzz.store.findings import OTHER_TRACE, TRACE
from fuzz.targets.runner import MAX_LOSSES, Boot, Runs
from fuzz.targets.targets import Bench, Side, open_bench
from harness.arch.cpu_models import Cpu
from harness.errors import TargetError
from harness.findings.check import check
from harness.findings.checked import CheckResult, signature
from harness.findings.finding import Signature, Subject
from harness.findings.known_divergences import Catalogue
from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from harness.trace.tracefile import format_trace
from harness.vm.cache import Cache, default_root
from harness.vm.clone import Clones
from harness.vm.target import boot

WELL = frozenset({"ok"})


@dataclass
class Twins:
    """Two machines that run every scenario, one after the other; what the second recorded last is in ``recorded``."""

    one: Runs
    other: Runs
    recorded: Trace | None = None

    def run(self, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
        """Run on both and return the first's trace."""
        trace = self.one.run(scenario, fresh_vm=fresh_vm)
        self.recorded = self.other.run(scenario, fresh_vm=fresh_vm)
        return trace


class Lab:
    """One target under one level of the model; a context manager, the machine ends with it.

    With ``pair``, ``start`` gives :class:`Twins`, and what they recorded is compared with each other, too; of the
    model's relations those on the first target count.
    """

    def __init__(
        self,
        start: Boot,
        subject: Subject,
        cpu: Cpu,
        catalogue: Catalogue,
        pair: Bench | None = None,
        *,
        hyp_copy: bool = False,
    ) -> None:
        self.subject = subject
        self._pair = pair
        self.cpu = cpu
        self.catalogue = catalogue
        self._start = start
        self._machine = ExitStack()
        self._runs: Runs | None = None
        self._losses = 0
        self.hyp_copy = hyp_copy
        """Whether the first target's traces have the hypervisor's own vCPUs beside."""
        self.boots = 0
        """Machines booted so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.restart()

    def restart(self) -> None:
        """End the machine; the next try boots another."""
        self._runs = None
        self._machine.close()

    def observe(self, scenario: Scenario, *, fresh_vm: bool = True) -> tuple[Trace, CheckResult]:
        """Run and check a scenario.  TargetError: the machine was lost; the next call boots another."""
        try:
            if self._runs is None:
                self.boots += 1
                self._runs = self._machine.enter_context(self._start())
            trace = self._runs.run(scenario, fresh_vm=fresh_vm)
        except TargetError:
            self.restart()
            raise
        checked = check(scenario, trace, self.subject.level, self.cpu, self.catalogue)
        if self._pair is not None and isinstance(self._runs, Twins) and self._runs.recorded is not None:
            beside = self._pair.compare(scenario, trace, self._runs.recorded)
            judged, unchecked = checked.judged + beside.judged, {**checked.unchecked, **beside.unchecked}
            checked = replace(checked, judged=judged, unchecked=unchecked)
        return trace, checked

    @property
    def other(self) -> Subject | None:
        """The second target, if there is one."""
        return None if self._pair is None else self._pair.subjects[1]

    def texts(self, trace: Trace) -> dict[str, str]:
        """Return what a finding keeps of the last run, by name."""
        recorded = self._runs.recorded if isinstance(self._runs, Twins) else None
        other = {} if recorded is None else {OTHER_TRACE: format_trace(recorded)}
        return {TRACE: format_trace(trace), **other}

    def shows(
        self, scenario: Scenario, wanted: Signature, *, fresh_vm: bool = True, ends: frozenset[str] = WELL
    ) -> bool:
        """Tell whether a scenario shows a signature and ends as one of ``ends``, statuses of a trace.

        A lost machine shows nothing, MAX_LOSSES of them in a row raise TargetError.
        """
        try:
            _, checked = self.observe(scenario, fresh_vm=fresh_vm)
        except TargetError:
            self._losses += 1
            if self._losses >= MAX_LOSSES:
                raise
            return False
        self._losses = 0
        return checked.status in ends and wanted in signatures(checked)


def signatures(checked: CheckResult) -> tuple[Signature, ...]:
    """Return the signatures of what is unexplained, each once, in the order of the trace."""
    return tuple(dict.fromkeys(signature(divergence) for divergence in checked.unexplained))


def open_lab(
    target: str,
    level: str,
    kernel: Path | None,
    progress: Callable[[str], None],
    against: str | None = None,
    *,
    cold: bool = False,
    deterministic: bool = False,
    hyp_copy: bool | None = False,
) -> Lab:
    """Prepare a target by name, or two; ``cold``: each machine is booted in full, none is a clone.

    ``deterministic``: machines that do the same after the same scenarios; ``hyp_copy`` as for a bench.

    InputError, SetupError: a name or the set-up is wrong.
    """
    clones = None if cold else Clones(Cache(default_root(os.environ)), progress)
    bench = open_bench(target, level, kernel, against, progress, hyp_copy=hyp_copy)
    first, last = bench.sides[0], bench.sides[-1]

    def start_one(side: Side) -> AbstractContextManager[Runs]:
        return boot(*(side.config, side.prepared), hyp_copy=side.hyp_copy, clones=clones, deterministic=deterministic)

    @contextmanager
    def start() -> Iterator[Runs]:
        with start_one(first) as one:
            if first is last:
                yield one
                return
            with start_one(last) as other:
                yield Twins(one, other)

    pair, beside = None if first is last else bench, first.hyp_copy is not None
    return Lab(start, first.subject, first.cpu, first.catalogue, pair, hyp_copy=beside)
