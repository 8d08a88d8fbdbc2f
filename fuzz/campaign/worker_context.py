# SPDX-License-Identifier: Apache-2.0
"""What a worker of a campaign is given, and how it says that it cannot continue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from fuzz.campaign.counters_file import StatsWriter
from fuzz.store.dumps import Dumps
from fuzz.store.findings import Store
from fuzz.targets.target_set import Side, TargetSet
from harness.scenario.scenario import Scenario


class GiveUp(Exception):
    """The worker cannot continue; the text is the reason."""


@dataclass(frozen=True)
class WorkerContext:
    """The targets, counters and stores of a worker.

    ``targets`` are the one or two targets; they run and check scenarios.  ``count_coverage`` gets the index of a
    coverage counter.  ``on_run`` is called after an input has been run, before its divergences are confirmed.
    ``findings`` stores confirmed findings, ``flaky`` those that were not seen again, ``dumps`` the memory of lost
    machines.  ``now`` returns the date as ISO 8601, ``ticks`` the time of a clock that all processes share, in
    nanoseconds.  ``described`` are texts that describe the targets, stored with each finding.  ``own_qemu`` are the
    same targets on Debian's own QEMU, if these run on the fast one.  ``offer`` is called with each scenario and the
    indices of the coverage counters that it hit.
    """

    targets: TargetSet[Side]
    count_coverage: Callable[[int], None]
    on_run: Callable[[], None]
    stats: StatsWriter
    findings: Store
    flaky: Store
    dumps: Dumps
    now: Callable[[], str]
    ticks: Callable[[], int]
    described: Mapping[str, str] = field(default_factory=dict)
    own_qemu: TargetSet[Side] | None = None
    offer: Callable[[Scenario, AbstractSet[int]], None] = lambda _, __: None
