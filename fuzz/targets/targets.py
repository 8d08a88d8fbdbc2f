# SPDX-License-Identifier: Apache-2.0
"""What a scenario is run on: one target, or two that are compared with each other besides (release against release)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fuzz.paths import KNOWN_DIR
from fuzz.targets.hyp_copy_option import check_option, choose_copy
from fuzz.targets.observation import Seen, Watch
from fuzz.targets.runner import Runs
from harness.arch.cpu_models import Cpu, cpu_model
from harness.errors import InputError
from harness.findings import compare_releases
from harness.findings.check import check
from harness.findings.checked import CheckResult
from harness.findings.compare_releases import Versions
from harness.findings.finding import Subject
from harness.findings.intended_changes import Changes, between, load_changes
from harness.findings.known_divergences import Catalogue
from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from harness.vm.build.prepare import PreparedTarget, prepare
from harness.vm.clone import Clones
from harness.vm.config import MachineConfig, load_config
from harness.vm.executor import Executor
from harness.vm.plugins.edges import EdgeMap
from harness.vm.plugins.hyp_copy import HypCopy
from harness.vm.plugins.plugin import Plugin
from harness.vm.postmortem import PostMortem
from harness.vm.target import boot
from harness.vm.tools import Progress, quiet


@dataclass(frozen=True, slots=True)
class Side:
    """A prepared target, and what its traces are checked with; ``hyp_copy``, if so: its hypervisor's own vCPUs, too."""

    config: MachineConfig
    prepared: PreparedTarget
    subject: Subject
    cpu: Cpu
    catalogue: Catalogue
    hyp_copy: HypCopy | None = None

    def check(self, scenario: Scenario, trace: Trace) -> CheckResult:
        """Compare a trace with the model and with the architecture."""
        return check(scenario, trace, self.subject.level, self.cpu, self.catalogue)


@dataclass(frozen=True, slots=True)
class Bench:
    """One target, or two; ``changes`` are those that were meant between the two.

    ``dump`` names a file for the memory of a machine that is lost, None: it is not kept.  With ``clones``, machines are
    clones of a template; ``deterministic`` ones do the same after the same scenarios.
    """

    sides: tuple[Side, ...]
    changes: Changes
    versions: Versions
    dump: Callable[[], Path] | None = None
    clones: Clones | None = None
    deterministic: bool = False

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """What is tested."""
        return tuple(side.subject for side in self.sides)

    @contextmanager
    def boot(self, plugin: Plugin[EdgeMap] | None = None) -> Iterator[Watch]:
        """Boot all and yield what runs scenarios there; ``plugin`` watches the first target's KVM.

        VmLost, AgentProtocolError: a machine is gone.
        """
        with ExitStack() as stack:
            machines = [
                stack.enter_context(self._boot(side, self.dump, plugin if side is self.sides[0] else None))
                for side in self.sides
            ]
            yield lambda scenario, fresh: self.watch(machines, scenario, fresh)

    def boot_again(self, subject: Subject) -> AbstractContextManager[Runs]:
        """Boot one of the targets to see it lost once more: its memory is not kept."""
        return self._boot(next(side for side in self.sides if side.subject == subject), None, None)

    def _boot(
        self, side: Side, dump: Callable[[], Path] | None, plugin: Plugin[EdgeMap] | None
    ) -> AbstractContextManager[Executor]:
        examine = PostMortem(side.prepared.kernel, dump)
        return boot(
            *(side.config, side.prepared),
            post_mortem=examine,
            plugin=plugin,
            hyp_copy=side.hyp_copy,
            clones=self.clones,
            deterministic=self.deterministic,
        )

    def watch(self, machines: Sequence[Runs], scenario: Scenario, fresh_vm: bool) -> tuple[Seen, ...]:
        """Run a scenario on each machine; compare each trace with the model, then the two with each other."""
        traces = tuple(machine.run(scenario, fresh_vm=fresh_vm) for machine in machines)
        seen = [Seen(s.subject, s.check(scenario, t), (t,)) for s, t in zip(self.sides, traces, strict=True)]
        if len(traces) == 2:
            one, other = self.subjects
            seen.append(Seen(one, self.compare(scenario, *traces), traces, other))
        return tuple(seen)

    def compare(self, scenario: Scenario, one: Trace, other: Trace) -> CheckResult:
        """Compare what the two targets recorded."""
        return compare_releases.compare(scenario, one, other, self.changes, self.versions)


def open_bench(
    target: str,
    level: str,
    kernel: Path | None,
    other: str | None = None,
    progress: Progress = quiet,
    dump: Callable[[], Path] | None = None,
    clones: Clones | None = None,
    *,
    deterministic: bool = False,
    hyp_copy: bool | None = False,
) -> Bench:
    """Prepare a target, or two; ``kernel`` is the first one's.  InputError, SetupError: a name or set-up is wrong.

    ``hyp_copy``: with the hypervisor's own vCPUs beside; None: where a target has any.
    """
    catalogue = Catalogue.load(KNOWN_DIR, level)
    rows = load_changes(KNOWN_DIR)
    configs = [load_config(name) for name in (target, other) if name is not None]
    first, last = configs[0], configs[-1]
    if (first.mode, first.cpu) != (last.mode, last.cpu):
        raise InputError(last.name, None, f"another mode or CPU than {first.name}: everything would differ")
    check_option(hyp_copy, configs)
    sides: list[Side] = []
    for config in configs:
        prepared = prepare(config, kernel=kernel if config is first else None, progress=progress)
        subject = Subject(config.name, prepared.kernel_release, prepared.kernel_sha256, level)
        beside = choose_copy(hyp_copy, config, prepared, progress)
        sides.append(Side(config, prepared, subject, cpu_model(config.cpu), catalogue, beside))
    versions = Versions(sides[0].prepared.package_version, sides[-1].prepared.package_version)
    return Bench(tuple(sides), between(rows, versions.one, versions.other), versions, dump, clones, deterministic)
