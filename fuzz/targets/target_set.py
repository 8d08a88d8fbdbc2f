# SPDX-License-Identifier: Apache-2.0
"""One target or two: boot them, run scenarios on each, check the traces, compare two targets with each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from fuzz.paths import KNOWN_DIR
from fuzz.targets.hyp_copy_option import check_option
from fuzz.targets.observation import Observation, is_alarm, signatures_shown
from fuzz.targets.options import TargetOptions
from fuzz.targets.prepared_side import PreparedSide, prepare_side
from fuzz.targets.runner import MAX_LOSSES, ScenarioRunner
from harness.errors import InputError, TargetError
from harness.findings import compare_releases
from harness.findings.asserted_alarms import sort_alarms
from harness.findings.checked import CheckResult
from harness.findings.compare_releases import Versions
from harness.findings.finding import Signature, Subject, is_member
from harness.findings.intended_changes import between, load_changes
from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from harness.vm.alarms import Alarm
from harness.vm.cache import Cache
from harness.vm.config import load_config
from harness.vm.config_text import OTHER_TARGET, TARGET, format_config
from harness.vm.plugins.edges import EdgeMap
from harness.vm.plugins.plugin import Plugin
from harness.vm.tools import Progress, quiet

OK_STATUSES = frozenset({"ok"})
"""The statuses of traces without an error."""


class Side(Protocol):
    """The interface of one target in a set; :class:`fuzz.targets.prepared_side.PreparedSide` implements it."""

    @property
    def subject(self) -> Subject:
        """Return the tested subject."""
        ...

    def boot(self) -> AbstractContextManager[ScenarioRunner]:
        """Boot a machine, which ends with the block.  TargetError: the machine was lost."""
        ...

    def boot_again(self) -> AbstractContextManager[ScenarioRunner]:
        """Boot a machine to reproduce a loss."""
        ...

    def check(self, scenario: Scenario, trace: Trace, /) -> CheckResult:
        """Compare a trace with the model and with the architecture."""
        ...


S_co = TypeVar("S_co", bound=Side, covariant=True)
Compare = Callable[[Scenario, Trace, Trace], CheckResult]
"""Compares the traces of two targets with each other."""


class TargetSet(Generic[S_co]):
    """One target or two, with their machines; a context manager, whose end stops the machines.

    The machines are booted at the first run, and again after a loss.  Every run is made on all of them.  ``compare`` is
    required for two targets.
    """

    def __init__(self, sides: Sequence[S_co], compare: Compare | None = None) -> None:
        self.sides = tuple(sides)
        self._compare = compare
        self._machines = ExitStack()
        self._running: tuple[ScenarioRunner, ...] = ()
        self._losses = 0
        self._alarms: tuple[tuple[Alarm, ...], ...] = ()
        self.boots = 0
        """Number of times that the machines were booted."""
        self.alarms_at_boot: dict[Subject, tuple[Alarm, ...]] = {}
        """The alarms of each target's kernel during its last boot; they belong to no scenario."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Return the tested subjects, one or two."""
        return tuple(side.subject for side in self.sides)

    @property
    def subject(self) -> Subject:
        """Return the first tested subject."""
        return self.sides[0].subject

    @property
    def other(self) -> Subject | None:
        """Return the second subject, or None."""
        return self.sides[1].subject if len(self.sides) > 1 else None

    @property
    def running(self) -> bool:
        """Return whether the machines are booted."""
        return bool(self._running)

    # ---- machines

    def start(self) -> None:
        """Boot the machines, unless they are booted.  TargetError: one does not boot."""
        if self._running:
            return
        self.boots += 1
        try:
            self._running = tuple([self._machines.enter_context(side.boot()) for side in self.sides])
            each = zip(self.sides, self._running, strict=True)
            self.alarms_at_boot = {side.subject: machine.boot_alarms for side, machine in each}
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the machines; the next run boots new ones."""
        self._running = ()
        self._machines.close()

    def boot_again(self, subject: Subject) -> AbstractContextManager[ScenarioRunner]:
        """Boot an additional machine of a target, to reproduce a loss."""
        return next(side for side in self.sides if side.subject == subject).boot_again()

    # ---- runs

    def run_on_all(self, scenario: Scenario, *, fresh_vm: bool = True) -> tuple[Trace, ...]:
        """Run a scenario on every target.  TargetError: a machine was lost; the next call boots new ones."""
        self.start()
        self._alarms = ()
        try:
            traces = tuple([machine.run(scenario, fresh_vm=fresh_vm) for machine in self._running])
            self._alarms = tuple([machine.alarms() for machine in self._running])
            return traces
        except TargetError:
            self.stop()
            raise

    def run(self, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
        """Run a scenario and return the first target's trace.  TargetError: as :meth:`run_on_all`."""
        return self.run_on_all(scenario, fresh_vm=fresh_vm)[0]

    @property
    def boot_alarms(self) -> tuple[Alarm, ...]:
        """Return the alarms of the first target's kernel while it booted."""
        return self.alarms_at_boot.get(self.subject, ())

    def alarms(self) -> tuple[Alarm, ...]:
        """Return the alarms of the first target's kernel in the last run."""
        return self._alarms[0] if self._alarms else ()

    def run_and_check(self, scenario: Scenario, *, fresh_vm: bool = True) -> Observation:
        """Run a scenario; compare the first target's trace with the model, and the two traces with each other.

        One result has the divergences of both comparisons.  TargetError: as :meth:`run_on_all`.
        """
        traces = self.run_on_all(scenario, fresh_vm=fresh_vm)
        checked = self.sides[0].check(scenario, traces[0])
        if self._compare is not None:
            beside = self._compare(scenario, *traces)
            judged, unchecked = checked.judged + beside.judged, {**checked.unchecked, **beside.unchecked}
            checked = replace(checked, judged=judged, unchecked=unchecked)
        alarms = sort_alarms(self.alarms(), traces[0])
        return Observation(self.subject, checked, traces, self.other, *alarms)

    def run_and_check_each(self, scenario: Scenario, *, fresh_vm: bool = True) -> tuple[Observation, ...]:
        """Run a scenario; return a result for each target alone, then one for the comparison of two.

        TargetError: as :meth:`run_on_all`.
        """
        traces = self.run_on_all(scenario, fresh_vm=fresh_vm)
        each = zip(self.sides, traces, self._alarms, strict=True)
        found = [Observation(s.subject, s.check(scenario, t), (t,), None, *sort_alarms(a, t)) for s, t, a in each]
        if self._compare is not None:
            found.append(Observation(self.subject, self._compare(scenario, *traces), traces, self.other))
        return tuple(found)

    def compare_traces(self, scenario: Scenario, *, fresh_vm: bool = True) -> CheckResult:
        """Run a scenario on two targets; compare their traces with each other only.

        TargetError: as :meth:`run_on_all`.
        """
        assert self._compare is not None, "there are two targets"
        return self._compare(scenario, *self.run_on_all(scenario, fresh_vm=fresh_vm))

    def reproduces(
        self, scenario: Scenario, wanted: Signature, *, fresh_vm: bool = True, ends: frozenset[str] = OK_STATUSES
    ) -> bool:
        """Return whether a scenario shows a signature and its trace has a status of ``ends``.

        An alarm is searched in newly booted machines, because a kernel may report it only once per boot (WARN_ONCE).  A
        run that loses its machine shows nothing; MAX_LOSSES of them in a row raise TargetError.
        """
        if is_alarm(wanted):
            self.stop()
        try:
            found = self.run_and_check(scenario, fresh_vm=fresh_vm)
        except TargetError:
            self._losses += 1
            if self._losses >= MAX_LOSSES:
                raise
            return False
        self._losses = 0
        return found.checked.status in ends and any(is_member(each, wanted) for each in signatures_shown(found))


class PreparedTargets(TargetSet[PreparedSide]):
    """A set of real targets."""

    def __init__(self, sides: Sequence[PreparedSide], compare: Compare | None = None) -> None:
        super().__init__(sides, compare)

    @property
    def has_hyp_copy(self) -> bool:
        """Return whether the first target's traces also have the vCPUs of its own hypervisor."""
        return self.sides[0].hyp_copy is not None

    def described(self) -> Mapping[str, str]:
        """Return the descriptions of the targets that are stored with their findings."""
        configs = (side.config for side in self.sides)
        return {name: format_config(config) for name, config in zip((TARGET, OTHER_TARGET), configs, strict=False)}

    def watched_by(self, plugin: Plugin[EdgeMap] | None) -> PreparedTargets:
        """Return the same targets, not booted, with a plugin for coverage of the first target's KVM."""
        first, *rest = self.sides
        return PreparedTargets([first.made_with(replace(first.machines, plugin=plugin)), *rest], self._compare)

    @property
    def is_fast(self) -> bool:
        """Whether a target runs on the fast QEMU: what it shows is to be confirmed on Debian's own."""
        return any(side.own is not None for side in self.sides)

    def on_own_qemu(self) -> PreparedTargets:
        """Return the same targets, none of them booted, on Debian's own QEMU; nothing watches or examines them."""
        sides = [side.on_own_qemu() for side in self.sides]
        plain = [side.made_with(replace(side.machines, plugin=None, examine=False, dump=None)) for side in sides]
        return PreparedTargets(plain, self._compare)

    def examined(self, dump: Callable[[], Path] | None = None) -> PreparedTargets:
        """Return the same targets, not booted, whose machines are examined when they are lost.

        ``dump`` names a file for the memory of a lost machine; None: no dump.
        """
        how = [replace(side.machines, examine=True, dump=dump) for side in self.sides]
        sides = [side.made_with(machines) for side, machines in zip(self.sides, how, strict=True)]
        return PreparedTargets(sides, self._compare)


def open_targets(options: TargetOptions, progress: Progress = quiet, cache: Cache | None = None) -> PreparedTargets:
    """Prepare one target or two, without booting them; their kernels are in ``cache`` (None: that of this user).

    InputError, SetupError: a name or the set-up is wrong, or the two differ in mode or CPU.
    """
    rows = load_changes(KNOWN_DIR)
    configs = [load_config(name) for name in options.names]
    first, last = configs[0], configs[-1]
    if (first.mode, first.cpu) != (last.mode, last.cpu):
        raise InputError(last.name, None, f"its mode or CPU differs from {first.name}, so every trace would differ")
    if options.against is not None and options.kernel is None and first.name == last.name:
        raise InputError(last.name, None, "the two targets are the same")
    check_option(options.hyp_copy, configs)
    sides = [prepare_side(first, options, progress, cache)]
    if options.against is None:
        return PreparedTargets(sides)
    sides.append(prepare_side(last, replace(options, kernel=None), progress, cache))
    versions = Versions(*(side.prepared.package_version for side in sides))
    changes = between(rows, versions.one, versions.other)

    def compare(scenario: Scenario, one: Trace, other: Trace) -> CheckResult:
        return compare_releases.compare(scenario, one, other, changes, versions)

    return PreparedTargets(sides, compare)
