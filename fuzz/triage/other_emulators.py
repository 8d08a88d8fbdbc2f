# SPDX-License-Identifier: Apache-2.0
"""Divergences on other emulators: other ``-cpu`` models with the same mode, and every other QEMU that is here.

One boot a place serves all divergences; two machines at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from fuzz.paths import KNOWN_DIR
from fuzz.targets.runner import MACHINES
from fuzz.targets.session import Lab
from harness.arch.cpu_models import CPUS, cpu_model
from harness.errors import ShadowfuzzError, VmLost
from harness.findings.check import check
from harness.findings.checked import CheckResult, signature
from harness.findings.finding import Signature, Tries
from harness.findings.known_divergences import Catalogue
from harness.findings.verdict import Elsewhere
from harness.relations import hyp_copy as beside
from harness.scenario.scenario import Scenario
from harness.vm.build.prepare import prepare
from harness.vm.config import MachineConfig, Mode, emulated
from harness.vm.qemu_versions import Emulator, begins
from harness.vm.target import boot, hyp_copy_of

RUNS = 10
VARIANT_RUNS = 5

Shown = frozenset[tuple[str, int, str, str]]
"""What a run showed of one signature: register, step, expected and observed of each divergence."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A divergence to look for: ``shown`` is what its own target showed, one item for each variant that was seen."""

    scenario: Scenario
    signature: Signature
    shown: frozenset[Shown]


def shown(checked: CheckResult, wanted: Signature) -> Shown:
    """Return what a run showed of a signature; empty if nothing."""
    found = (d for d in checked.unexplained if signature(d) == wanted)
    return frozenset((d.register, d.step, str(d.expected), str(d.observed)) for d in found)


def places(config: MachineConfig, here: Sequence[Emulator]) -> tuple[str, ...]:
    """Return the other emulators for a machine: CPU models that have its mode, then the QEMUs that it does not use."""
    cpus = (name for name, model in CPUS.items() if name != config.cpu and (model.vhe or config.mode is not Mode.VHE))
    used = config.qemu or here[0].version
    return (*cpus, *(emulator.name for emulator in here if not begins(emulator.version, used)))


def asked_of(lab: Lab, scenario: Scenario, wanted: Sequence[Signature]) -> tuple[Asked, ...]:
    """Return what to look for, with every variant that a few runs on the lab's own target show.

    TargetError: the machine was lost.
    """
    results = [lab.observe(scenario)[1] for _ in range(VARIANT_RUNS)]
    return tuple(Asked(scenario, key, frozenset(shown(r, key) for r in results) - {frozenset()}) for key in wanted)


@dataclass(frozen=True, slots=True)
class Journey:
    """What all places have in common: the machine, the image it boots (None: its own), the level, runs a place.

    ``hyp_copy``: with the hypervisor's own vCPUs beside, without which a divergence of theirs shows nowhere.
    """

    config: MachineConfig
    kernel: Path | None
    level: str
    runs: int = RUNS
    deterministic: bool = False
    hyp_copy: bool = False


def measure(
    journey: Journey, asked: Sequence[Asked], here: Sequence[Emulator], say: Callable[[str], None]
) -> tuple[tuple[Elsewhere, ...], ...]:
    """Run each scenario on every other emulator; return for each divergence what each place showed.

    A place where the machine does not come up, or is lost, is not measured, and says why.
    """
    names = places(journey.config, here)
    catalogue = Catalogue.load(KNOWN_DIR, journey.level)

    def at(name: str) -> tuple[Elsewhere, ...]:
        found = _at(journey, name, asked, catalogue)
        say(f"{name}: {sum(place.same.hits == place.same.runs > 0 for place in found)} of {len(found)} as before")
        return found

    # A machine dies with the thread that started it: each is booted and left inside one call.
    with ThreadPoolExecutor(MACHINES) as pool:
        rows = list(pool.map(at, names))
    return tuple(tuple(row[i] for row in rows) for i in range(len(asked)))


def _at(journey: Journey, name: str, asked: Sequence[Asked], catalogue: Catalogue) -> tuple[Elsewhere, ...]:
    done: list[Elsewhere] = []
    try:
        config = emulated(journey.config, [name], journey.config.name)
        cpu = cpu_model(config.cpu)
        prepared = prepare(config, kernel=journey.kernel)
        needed = journey.hyp_copy or any(each.signature[0] in beside.RELATIONS for each in asked)
        hyp_copy = hyp_copy_of(config, prepared) if needed else None
        with boot(config, prepared, deterministic=journey.deterministic, hyp_copy=hyp_copy) as machine:
            for each in asked:
                results = [
                    check(each.scenario, machine.run(each.scenario), journey.level, cpu, catalogue)
                    for _ in range(journey.runs)
                ]
                # On a busy machine interrupts end some runs before anything can show: those say nothing.
                seen = [(shown(checked, each.signature), checked.status) for checked in results]
                runs = [found for found, status in seen if found or status == "ok"]
                done.append(replace(compare(name, each, runs), unlike=unlike(config, journey.config)))
    except ShadowfuzzError as error:
        why = error.reason if isinstance(error, VmLost) else str(error)
        done += [Elsewhere(name, Tries(0, 0), why=why)] * (len(asked) - len(done))
    return tuple(done)


def unlike(config: MachineConfig, own: MachineConfig) -> str:
    """Return what a CPU model lacks of another's: addresses that are an access on one are a fault on the other."""
    bits, wanted = CPUS[config.cpu].pa_bits, CPUS[own.cpu].pa_bits
    return f"{bits} address bits, not {wanted}" if bits < wanted else ""


def compare(name: str, asked: Asked, runs: Sequence[Shown]) -> Elsewhere:
    """Return what runs at a place say of a divergence.

    Values count only if they were the same in every run on its own target: else any of the signature is the same.
    """
    exact = len(asked.shown) == 1
    same = sum(run in asked.shown if exact else bool(run) for run in runs)
    why = "" if runs else "no run ended well"
    return Elsewhere(name, Tries(same, len(runs)), sum(map(bool, runs)) - same, why)
