# SPDX-License-Identifier: Apache-2.0
"""Measure a machine: cold boot, template and clone; and the rates of a deterministic and a default machine."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from fuzz.targets.prepared_side import MachineOptions, PreparedSide
from harness.scenario.scenario import Scenario
from harness.vm.cache import Cache
from harness.vm.clone import Clones
from harness.vm.executor import Executor
from harness.vm.target import machine_of

BOOTS, CLONES = 3, 5


def measure_machines(side: PreparedSide, scenarios: Sequence[Scenario], seconds: float) -> Mapping[str, float]:
    """Measure machines: median times in seconds, memory in MiB, rates in recorded exits per second.

    The template is made in an empty cache, so that no existing template is used.  The two rates are measured in turns,
    on the same scenarios.  VmLost: a machine did not boot or was lost.
    """

    def start(clones: Clones | None = None, *, deterministic: bool = False) -> AbstractContextManager[Executor]:
        return side.made_with(MachineOptions(clones, deterministic)).boot()

    with tempfile.TemporaryDirectory(prefix="shadowfuzz-bench-") as place:
        clones = Clones(Cache(Path(place)))
        begin = time.monotonic()
        clones.template(machine_of(side.config, side.prepared), side.prepared.kernel_sha256)
        template = time.monotonic() - begin
        with start(clones) as executor:
            private = _private_mib(executor.pid)
        clone = _median_s(lambda: start(clones), CLONES)
        cold = _median_s(start, BOOTS)
    with start() as default, start(deterministic=True) as deterministic:
        rates: dict[str, list[float]] = {"default": [], "deterministic": []}
        for _ in range(3):
            for name, executor in (("default", default), ("deterministic", deterministic)):
                rates[name].append(_rate(executor, scenarios, seconds / 6))
    one, other = (statistics.median(rates[name]) for name in ("default", "deterministic"))
    return {
        "cold_boot_s": cold,
        "template_s": template,
        "clone_s": clone,
        "clone_private_mib": private,
        "default_exits_per_s": one,
        "deterministic_exits_per_s": other,
        "deterministic_over_default": other / one if one else 0.0,
    }


def _median_s(start: Callable[[], AbstractContextManager[Executor]], times: int) -> float:
    taken = []
    for _ in range(times):
        begin = time.monotonic()
        with start():
            taken.append(time.monotonic() - begin)
    return statistics.median(taken)


def _rate(executor: Executor, scenarios: Sequence[Scenario], seconds: float) -> float:
    exits, begin, count = executor.exits, time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        executor.run_bare(scenarios[count % len(scenarios)], fresh_vm=False, record=True)
        count += 1
    return (executor.exits - exits) / (time.monotonic() - begin)


def _private_mib(pid: int) -> float:
    """Return the memory that a process shares with no other (proc(5), smaps_rollup)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
