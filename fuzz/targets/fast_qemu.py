# SPDX-License-Identifier: Apache-2.0
"""The fast QEMU under a target: compared with Debian's own before it is used, and used only then.

The comparison runs the corpus on two deterministic machines, one on each QEMU: they execute the same instructions at
the same times, so that what they record has to be the same, byte for byte.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from fuzz.paths import SEEDS
from harness.errors import AgentProtocolError, SetupError, TargetError
from harness.scenario.requirements import needs_protected
from harness.scenario.scenario import Scenario, load
from harness.vm.build.prepare import PreparedTarget
from harness.vm.cache import Cache, default_root
from harness.vm.clone import Clones
from harness.vm.config import MachineConfig
from harness.vm.fast_qemu.build import FastQemu, build_fast_qemu, find_fast_qemu
from harness.vm.fast_qemu.stamp import is_proven, keep_proof
from harness.vm.qemu_command import Machine
from harness.vm.target import boot, has_protected_vms, machine_of
from harness.vm.tools import Progress, quiet

MAX_DIFFERENCES = 3
"""So many scenarios that differ, and the rest need not be run."""
REPORT_SECONDS = 10.0
FALLS_BACK = "Debian's QEMU is used"


class Recorder(Protocol):
    """What the comparison needs of a machine; :class:`harness.vm.executor.Executor` is a real one."""

    def run_bare(self, scenario: Scenario, *, fresh_vm: bool, record: bool) -> None:
        """Run a scenario.  TargetError: the machine is gone."""
        ...

    def recorded(self) -> bytes:
        """Return what the last run recorded.  AgentProtocolError: it failed, or makes no sense."""
        ...

    @property
    def exits(self) -> int:
        """World switches out of a guest since the machine booted."""
        ...


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two machines recorded: ``scenarios`` that were run, ``exits`` of one of them, and names that differ."""

    scenarios: int
    exits: int
    seconds: float
    differ: tuple[str, ...]


def record(machine: Recorder, scenario: Scenario) -> tuple[str, int, bytes]:
    """Run a scenario in a VM of its own; return why it failed (empty: it did not), exits so far, and the record."""
    machine.run_bare(scenario, fresh_vm=True, record=True)
    try:
        return "", machine.exits, machine.recorded()
    except AgentProtocolError as error:
        return str(error), machine.exits, b""


def compare_machines(
    one: Recorder, other: Recorder, scenarios: Iterable[tuple[str, Scenario]], progress: Progress = quiet
) -> Comparison:
    """Run scenarios on two machines and compare what they record.  TargetError: a machine is gone."""
    rows, differ, begin, count = list(scenarios), [], time.monotonic(), 0
    report = begin + REPORT_SECONDS
    for count, (name, scenario) in enumerate(rows, 1):
        if record(one, scenario) != record(other, scenario):
            differ.append(name)
            if len(differ) >= MAX_DIFFERENCES:
                break
        if (now := time.monotonic()) >= report:
            report = now + REPORT_SECONDS
            progress(f"{count} of {len(rows)} scenarios compared with Debian's QEMU")
    return Comparison(count, one.exits, time.monotonic() - begin, tuple(differ))


def corpus_of(
    config: MachineConfig, prepared: PreparedTarget, places: Sequence[Path] = SEEDS
) -> Iterator[tuple[str, Scenario]]:
    """Yield the scenarios of the project's corpus that a target can run, with their names."""
    protected = has_protected_vms(config.mode, prepared.kernel_release)
    for path in (path for place in places for path in sorted(place.glob("*.scn"))):
        scenario = load(path)
        if protected or not needs_protected(scenario):
            yield path.name, scenario


def prove(
    config: MachineConfig, prepared: PreparedTarget, fast: FastQemu, cache: Cache, progress: Progress = quiet
) -> Comparison:
    """Compare a fast QEMU with Debian's own on a target.  SetupError: they differ, or a machine is lost."""
    clones = Clones(cache, progress)

    def start(target: PreparedTarget) -> AbstractContextManager[Recorder]:
        return boot(config, target, clones=clones, deterministic=True)

    try:
        with start(prepared) as own, start(on_fast(prepared, fast)) as other:
            found = compare_machines(own, other, corpus_of(config, prepared), progress)
    except TargetError as error:
        raise SetupError(f"{config.name}: a machine was lost while the fast QEMU was compared: {error}") from error
    if found.differ:
        raise SetupError(
            f"{config.name}: the fast QEMU records something else than Debian's in {', '.join(found.differ)} "
            f"(of {found.scenarios} scenarios)"
        )
    return found


def set_up(
    config: MachineConfig, prepared: PreparedTarget, progress: Progress = quiet, cache: Cache | None = None
) -> FastQemu:
    """Return the fast QEMU, built and compared on a target if that was not done.

    SetupError: it cannot be built, or it is not to be trusted on this target.
    """
    where = cache if cache is not None else Cache(default_root(os.environ))
    if config.qemu:
        raise SetupError(f"{config.name} names a QEMU; the fast one is of the version that is installed")
    fast = build_fast_qemu(where, progress)

    def compared() -> Mapping[str, object]:
        return {"target": config.name, **asdict(prove(config, prepared, fast, where, progress))}

    keep_proof(where, fast, _machine(config, prepared), compared)
    return fast


def choose_qemu(
    config: MachineConfig, prepared: PreparedTarget, progress: Progress = quiet, cache: Cache | None = None
) -> PreparedTarget:
    """Return a target on the fast QEMU, if there is one that was compared on it; else as it is, with a line why."""
    where = cache if cache is not None else Cache(default_root(os.environ))
    try:
        fast = None if config.qemu else find_fast_qemu(where)
        if fast is not None and is_compared(config, prepared, fast, where):
            return on_fast(prepared, fast)
        reason = (
            f"{config.name} names a QEMU"
            if config.qemu
            else "it is not built"
            if fast is None
            else f"it was not compared with Debian's on {config.name}"
        )
    except SetupError as error:
        reason = str(error)
    how = "" if config.qemu else f" (`shadowfuzz setup --fast-qemu --target {config.name}`)"
    progress(f"no fast QEMU: {reason}{how}; {FALLS_BACK}")
    return prepared


def is_compared(config: MachineConfig, prepared: PreparedTarget, fast: FastQemu, cache: Cache) -> bool:
    """Return whether a fast QEMU was compared with Debian's own on a target.  SetupError: a file of it is missing."""
    return is_proven(cache, fast, _machine(config, prepared))


def on_fast(prepared: PreparedTarget, fast: FastQemu) -> PreparedTarget:
    """Return a target that runs on the fast QEMU."""
    return replace(prepared, qemu=(str(fast.program),))


def _machine(config: MachineConfig, prepared: PreparedTarget) -> Machine:
    return machine_of(config, prepared, deterministic=True)
