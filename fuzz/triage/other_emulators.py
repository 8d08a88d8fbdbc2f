# SPDX-License-Identifier: Apache-2.0
"""Run divergences on other emulators: other ``-cpu`` models with the same mode, and every other installed QEMU.

One boot per emulator serves all divergences; two machines run at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from fuzz.targets.options import TargetOptions
from fuzz.targets.prepared_side import prepare_side
from fuzz.targets.runner import MACHINES
from fuzz.targets.target_set import Side, TargetSet
from harness.arch.cpu_models import CPUS
from harness.errors import ShadowfuzzError, VmLost
from harness.findings.checked import CheckResult, signature
from harness.findings.finding import Signature, Tries, is_member
from harness.findings.verdict import EmulatorResult
from harness.relations import hyp_copy as beside
from harness.scenario.scenario import Scenario
from harness.vm.config import MachineConfig, Mode, emulated
from harness.vm.qemu_versions import Emulator, begins

RUNS = 10
VARIANT_RUNS = 5

Variant = frozenset[tuple[str, int, str, str]]
"""The divergences of one signature in a run: register, step, expected and observed value of each."""


@dataclass(frozen=True, slots=True)
class EmulatorQuery:
    """A divergence to search for: ``variants`` are its forms on its own target."""

    scenario: Scenario
    signature: Signature
    variants: frozenset[Variant]


def variant(checked: CheckResult, wanted: Signature) -> Variant:
    """Return the divergences of a signature in a run; empty if there are none."""
    found = (d for d in checked.unexplained if is_member(signature(d), wanted))
    return frozenset((d.register, d.step, str(d.expected), str(d.observed)) for d in found)


def emulator_names(config: MachineConfig, here: Sequence[Emulator]) -> tuple[str, ...]:
    """Return the other emulators for a machine: CPU models that have its mode, then the QEMUs that it does not use."""
    cpus = (name for name, model in CPUS.items() if name != config.cpu and (model.vhe or config.mode is not Mode.VHE))
    used = config.qemu or here[0].version
    return (*cpus, *(emulator.name for emulator in here if not begins(emulator.version, used)))


def queries_of(targets: TargetSet[Side], scenario: Scenario, wanted: Sequence[Signature]) -> tuple[EmulatorQuery, ...]:
    """Return queries for signatures, with every variant that a few runs on their own target show.

    TargetError: the machine was lost.
    """
    results = [targets.run_and_check(scenario).checked for _ in range(VARIANT_RUNS)]
    return tuple(
        EmulatorQuery(scenario, key, frozenset(variant(r, key) for r in results) - {frozenset()}) for key in wanted
    )


@dataclass(frozen=True, slots=True)
class EmulatorSweep:
    """The common settings of all emulators: the machine, its options, and the number of runs on each.

    The names in ``options`` are ignored.  With ``options.hyp_copy``, the hypervisor's own vCPUs are compared, too,
    which is necessary to find their divergences.
    """

    config: MachineConfig
    options: TargetOptions
    runs: int = RUNS


def measure_on_emulators(
    sweep: EmulatorSweep, queries: Sequence[EmulatorQuery], here: Sequence[Emulator], say: Callable[[str], None]
) -> tuple[tuple[EmulatorResult, ...], ...]:
    """Run each scenario on every other emulator; return the results of all emulators for each divergence.

    An emulator on which the machine does not boot, or is lost, is not measured; its result has the reason.
    """
    names = emulator_names(sweep.config, here)

    def at(name: str) -> tuple[EmulatorResult, ...]:
        found = _at(sweep, name, queries)
        say(f"{name}: {sum(place.same.hits == place.same.runs > 0 for place in found)} of {len(found)} as before")
        return found

    # A machine ends with the thread that started it, so each is booted and stopped within one call.
    with ThreadPoolExecutor(MACHINES) as pool:
        rows = list(pool.map(at, names))
    return tuple(tuple(row[i] for row in rows) for i in range(len(queries)))


def _at(sweep: EmulatorSweep, name: str, queries: Sequence[EmulatorQuery]) -> tuple[EmulatorResult, ...]:
    done: list[EmulatorResult] = []
    needed = bool(sweep.options.hyp_copy) or any(each.signature[0] in beside.RELATIONS for each in queries)
    try:
        config = emulated(sweep.config, [name], sweep.config.name)
        with TargetSet([prepare_side(config, replace(sweep.options, cold=True, hyp_copy=needed))]) as targets:
            for each in queries:
                results = [targets.run_and_check(each.scenario).checked for _ in range(sweep.runs)]
                # On a busy machine interrupts end some runs too early: these do not count.
                seen = [(variant(checked, each.signature), checked.status) for checked in results]
                runs = [found for found, status in seen if found or status == "ok"]
                lacks = why_not_comparable(config, sweep.config)
                done.append(replace(compare_runs(name, each, runs), unlike=lacks))
    except ShadowfuzzError as error:
        why = error.reason if isinstance(error, VmLost) else str(error)
        done += [EmulatorResult(name, Tries(0, 0), why=why)] * (len(queries) - len(done))
    return tuple(done)


def why_not_comparable(config: MachineConfig, own: MachineConfig) -> str:
    """Return why a CPU model is not comparable: with fewer address bits, some valid addresses of the other fault."""
    bits, wanted = CPUS[config.cpu].pa_bits, CPUS[own.cpu].pa_bits
    return f"{bits} address bits, not {wanted}" if bits < wanted else ""


def compare_runs(name: str, query: EmulatorQuery, runs: Sequence[Variant]) -> EmulatorResult:
    """Return the result of the runs on an emulator for a divergence.

    Values are compared only if they were equal in all runs on the own target; otherwise any divergence with the
    signature counts as the same.
    """
    exact = len(query.variants) == 1
    same = sum(run in query.variants if exact else bool(run) for run in runs)
    why = "" if runs else "no run ended without an error"
    return EmulatorResult(name, Tries(same, len(runs)), sum(map(bool, runs)) - same, why)
