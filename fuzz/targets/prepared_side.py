# SPDX-License-Identifier: Apache-2.0
"""One prepared target: boot its machines, and check their traces."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from fuzz.paths import KEPT, KNOWN_DIR
from fuzz.targets.fast_qemu import choose_qemu
from fuzz.targets.hyp_copy_option import choose_copy
from fuzz.targets.options import TargetOptions
from harness.arch.cpu_models import Cpu, cpu_model
from harness.findings.check import check
from harness.findings.checked import CheckResult, ComparisonListener
from harness.findings.finding import Subject
from harness.findings.known_divergences import Catalogue
from harness.findings.regressions import errata_of, load_regressions
from harness.relations.errata import NO_ERRATA, TargetErrata
from harness.scenario.scenario import Scenario
from harness.trace.events import Trace
from harness.vm.build.prepare import PreparedTarget, prepare
from harness.vm.cache import Cache, default_root
from harness.vm.clone import Clones
from harness.vm.config import MachineConfig
from harness.vm.executor import Executor
from harness.vm.plugins.edges import EdgeMap
from harness.vm.plugins.hyp_copy import HypCopy
from harness.vm.plugins.plugin import Plugin
from harness.vm.postmortem import PostMortem
from harness.vm.target import boot
from harness.vm.tools import Progress, quiet


@dataclass(frozen=True, slots=True)
class MachineOptions:
    """How the machines of a target are made.

    With ``clones``, they are clones of a template.  ``deterministic``: the same scenarios give the same traces.
    ``plugin`` records which of KVM's code is executed.  With ``examine``, a lost machine is examined, and ``dump``
    names a file for its memory (None: no dump).
    """

    clones: Clones | None = None
    deterministic: bool = False
    plugin: Plugin[EdgeMap] | None = None
    examine: bool = False
    dump: Callable[[], Path] | None = None


@dataclass(frozen=True, slots=True)
class PreparedSide:
    """One prepared target, with the model and the catalogue for checking its traces.

    ``hyp_copy`` gives access to the vCPUs of the target's own hypervisor; None: they are not compared.  ``errata`` are
    the kept findings of this target.  ``own`` is the same target on Debian's own QEMU, if ``prepared`` is on the fast
    one.
    """

    config: MachineConfig
    prepared: PreparedTarget
    subject: Subject
    cpu: Cpu
    catalogue: Catalogue
    hyp_copy: HypCopy | None = None
    errata: TargetErrata = NO_ERRATA
    machines: MachineOptions = field(default_factory=MachineOptions)
    own: PreparedTarget | None = None

    def boot(self) -> AbstractContextManager[Executor]:
        """Boot a machine, which ends with the block.  VmLost, AgentProtocolError: the machine was lost."""
        how = self.machines
        return boot(
            *(self.config, self.prepared),
            post_mortem=PostMortem(self.prepared.kernel, how.dump) if how.examine else None,
            plugin=how.plugin,
            hyp_copy=self.hyp_copy,
            clones=how.clones,
            deterministic=how.deterministic,
        )

    def boot_again(self) -> AbstractContextManager[Executor]:
        """Boot a machine to reproduce a loss: on Debian's own QEMU, without a plugin and without a memory dump."""
        return self.on_own_qemu().made_with(replace(self.machines, dump=None, plugin=None)).boot()

    def on_own_qemu(self) -> PreparedSide:
        """Return the same target on Debian's own QEMU."""
        return self if self.own is None else replace(self, prepared=self.own, own=None)

    def made_with(self, machines: MachineOptions) -> PreparedSide:
        """Return the same target with other options for its machines."""
        return replace(self, machines=machines)

    def check(self, scenario: Scenario, trace: Trace, listener: ComparisonListener | None = None) -> CheckResult:
        """Compare a trace with the model and with the architecture; ``listener`` gets each comparison."""
        return check(scenario, trace, self.subject.level, self.cpu, self.catalogue, listener, self.errata)


def prepare_side(
    config: MachineConfig, options: TargetOptions, progress: Progress = quiet, cache: Cache | None = None
) -> PreparedSide:
    """Prepare one target; names in ``options`` are ignored.

    ``cache`` has its kernel (None: that of this user).  InputError, SetupError: a value or the set-up is wrong.
    """
    cpu, catalogue = cpu_model(config.cpu), Catalogue.load(KNOWN_DIR, options.level)
    own = prepare(config, kernel=options.kernel, progress=progress, cache=cache)
    fast = config.fast_qemu if options.fast_qemu is None else options.fast_qemu
    prepared = choose_qemu(config, own, progress) if fast else own
    subject = Subject(config.name, prepared.kernel_release, prepared.kernel_sha256, options.level)
    hyp_copy = choose_copy(options.hyp_copy, config, prepared, progress)
    clones = None if options.cold else Clones(Cache(default_root(os.environ)), progress)
    return PreparedSide(
        *(config, prepared, subject, cpu, catalogue, hyp_copy),
        errata=errata_of(load_regressions(KEPT), config.name),
        machines=MachineOptions(clones, options.deterministic),
        own=None if prepared is own else own,
    )
