# SPDX-License-Identifier: Apache-2.0
"""Run the corpus on real targets: two machines at a time, one for each core."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from fuzz.paths import KEPT
from fuzz.targets.hyp_copy_option import choose_copy
from fuzz.targets.runner import run_to_end
from harness.arch.cpu_models import cpu_model
from harness.coverage.exercised_steps import Exercise
from harness.findings.check import check
from harness.findings.checked import CheckResult, Comparison, signature
from harness.findings.known_divergences import Catalogue
from harness.findings.regressions import errata_of, load_regressions
from harness.scenario.requirements import needs_protected
from harness.scenario.scenario import Scenario, load
from harness.trace.indexed import index_trace
from harness.vm.build.prepare import prepare
from harness.vm.config import PROJECT, load_config
from harness.vm.executor import Executor
from harness.vm.target import boot, has_protected_vms
from harness.vm.tools import quiet

T = TypeVar("T")
AGAIN = 3
"""How often an interrupted scenario is run again for its coverage."""
CORPUS = PROJECT / "corpus"
CATALOGUE = Catalogue.load(CORPUS / "known", "spec")


def scenarios(folder: str) -> Mapping[str, Scenario]:
    """Return the scenarios of a folder of the corpus, by name."""
    return {path.stem: load(path) for path in sorted((CORPUS / folder).glob("*.scn"))}


SEEDS = scenarios("seeds")
REGRESSIONS = scenarios("regressions")


def two_at_a_time(jobs: Iterable[Callable[[], T]]) -> list[T]:
    """Run the jobs; a machine is killed with the thread that started it, so each is booted and ended inside its job."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda job: job(), jobs))


def runnable(target: str, what: Mapping[str, Scenario]) -> dict[str, Scenario]:
    """Return the scenarios whose VMs a target supports."""
    config = load_config(target)
    protected = has_protected_vms(config.mode, prepare(config).kernel_release)
    return {name: scenario for name, scenario in what.items() if protected or not needs_protected(scenario)}


@contextmanager
def booted(target: str, kernel: Path | None = None) -> Iterator[Executor]:
    """Yield a running machine of a target, with another ``kernel`` if given, and with hyp copies if it has any."""
    config = load_config(target)
    prepared = prepare(config, kernel=kernel)
    with boot(config, prepared, hyp_copy=choose_copy(None, config, prepared, quiet)) as executor:
        yield executor


def check_all(
    target: str,
    what: Mapping[str, Scenario],
    executor: Executor,
    *,
    fresh_vm: bool,
    exercise: Exercise | None = None,
) -> dict[str, CheckResult]:
    """Run and check the supported scenarios on a running machine; ``exercise`` counts their coverage.

    Where an interrupt of the host ended a run of the guest, other exits are exercised: such a scenario is run again.
    """
    cpu, errata = cpu_model(load_config(target).cpu), errata_of(load_regressions(KEPT), target)
    results = {}
    for name, scenario in runnable(target, what).items():
        trace, compared = run_to_end(executor, scenario, fresh_vm=fresh_vm), list[Comparison]()
        results[name] = check(scenario, trace, "spec", cpu, CATALOGUE, compared.append, errata)
        if exercise is not None:
            exercise.add(scenario, index_trace(trace), compared)
            for _ in range(AGAIN if "IRQ" in results[name].exits else 0):
                exercise.add(scenario, index_trace(run_to_end(executor, scenario, fresh_vm=fresh_vm)), ())
    return results


def run_all(
    target: str, what: Mapping[str, Scenario], *, kernel: Path | None = None, exercise: Exercise | None = None
) -> dict[str, CheckResult]:
    """Boot a target, then run and check scenarios, each in a new VM."""
    with booted(target, kernel) as executor:
        return check_all(target, what, executor, fresh_vm=True, exercise=exercise)


def findings(checked: CheckResult) -> set[str]:
    """Return the names of unexplained divergences, with general-purpose registers as xN."""
    folded = (signature(divergence)[:2] for divergence in checked.unexplained)
    return {f"{relation}.{register}" if register else relation for relation, register in folded}
