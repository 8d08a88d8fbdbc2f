# SPDX-License-Identifier: Apache-2.0
"""A target to try scenarios on: booted when first needed, booted again when lost, a fresh KVM VM for each try."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from harness.check import Checked, check, signature
from harness.errors import TargetError
from harness.findings import Signature, Subject
from harness.known import Catalogue
from harness.masks import Cpu, cpu_model
from harness.scenario import Scenario
from harness.trace import Trace
from harness.vm.build import prepare
from harness.vm.config import PROJECT, load_config
from harness.vm.target import boot

MAX_LOSSES = 5
"""So many machines lost in a row, and there is no point in another one."""


class Runs(Protocol):
    """What a booted target does."""

    def run(self, scenario: Scenario, *, fresh_vm: bool = True) -> Trace:
        """Run a scenario and return its trace."""
        ...


Boot = Callable[[], AbstractContextManager[Runs]]


class Lab:
    """One target under one level of the model; a context manager, the machine ends with it."""

    def __init__(self, start: Boot, subject: Subject, cpu: Cpu, catalogue: Catalogue) -> None:
        self.subject = subject
        self.cpu = cpu
        self.catalogue = catalogue
        self._start = start
        self._machine = ExitStack()
        self._runs: Runs | None = None
        self._losses = 0
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

    def observe(self, scenario: Scenario, *, fresh_vm: bool = True) -> tuple[Trace, Checked]:
        """Run and check a scenario.  TargetError: the machine was lost; the next call boots another."""
        try:
            if self._runs is None:
                self.boots += 1
                self._runs = self._machine.enter_context(self._start())
            trace = self._runs.run(scenario, fresh_vm=fresh_vm)
        except TargetError:
            self.restart()
            raise
        return trace, check(scenario, trace, self.subject.level, self.cpu, self.catalogue)

    def shows(self, scenario: Scenario, wanted: Signature, *, fresh_vm: bool = True) -> bool:
        """Tell whether a scenario shows a signature.

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
        return checked.status == "ok" and wanted in signatures(checked)


def signatures(checked: Checked) -> tuple[Signature, ...]:
    """Return the signatures of what is unexplained, each once, in the order of the trace."""
    return tuple(dict.fromkeys(signature(divergence) for divergence in checked.unexplained))


def open_lab(target: str, level: str, kernel: Path | None, progress: Callable[[str], None]) -> Lab:
    """Prepare a target by name.  InputError, SetupError: a name or the set-up is wrong."""
    config = load_config(target)
    cpu, catalogue = cpu_model(config.cpu), Catalogue.load(PROJECT / "corpus" / "known", level)
    prepared = prepare(config, kernel=kernel, progress=progress)
    subject = Subject(config.name, prepared.kernel_release, prepared.kernel_sha256, level)
    return Lab(lambda: boot(config, prepared), subject, cpu, catalogue)
