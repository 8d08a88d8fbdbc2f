# SPDX-License-Identifier: Apache-2.0
"""Compare the runs of a trace, and the trace as a whole, once more with rules of errata switched on.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from harness.findings.attribution import NOTHING_DIFFERS, StillDiffers
from harness.guest.predict_run import PredictedRun
from harness.relations.divergence import Divergence
from harness.relations.errata import NONE
from harness.relations.evidence import TraceEvidence, predict_runs
from harness.relations.gic import GicMonitor
from harness.relations.registry import OF_A_RUN, OF_A_TRACE

_OF_A_RUN: Final = tuple(row for row in OF_A_RUN if row.by_rule)
_OF_A_TRACE: Final = tuple(row for row in OF_A_TRACE if row.by_rule)
Names = Mapping[int, frozenset[str]]
"""The names of the divergences at an event."""


class Again:
    """Compare a trace with some rules switched on; the results are kept, by the rules.

    Each run is predicted again from the first one on: the contents of the guest's memory depend on the rules, too.
    ``of_runs`` are the names that differ in the runs without rules: if rules leave a run undetermined, they predict
    none of them, and the other comparisons at its exit stay.
    """

    def __init__(self, whole: TraceEvidence, of_runs: Names) -> None:
        self._whole, self._of_runs = whole, of_runs
        self._found: dict[frozenset[str], Mapping[int, StillDiffers]] = {}

    def __call__(self, errata: frozenset[str]) -> Mapping[int, StillDiffers]:
        """Return what still differs, by event."""
        if errata not in self._found:
            self._found[errata] = self._compare(errata)
        return self._found[errata]

    def _compare(self, errata: frozenset[str]) -> Mapping[int, StillDiffers]:
        whole = self._whole
        assert whole.cpu is not None
        found: dict[int, StillDiffers] = {}
        runs: dict[int, PredictedRun] = {}
        gic = GicMonitor(whole.indexed.trace.lists) if whole.gic is not None else None
        for at in predict_runs(whole.indexed, whole.codes, whole.cpu, gic, errata):
            runs[at.run.event] = at.run
            names = frozenset(one.name for row in _OF_A_RUN for one in row.compare(at) if isinstance(one, Divergence))
            left_open = self._of_runs.get(at.run.event, NONE) if at.run.path.state is None else NONE
            if names or left_open:
                found[at.run.event] = StillDiffers(names | left_open, left_open)
        with_rules = replace(whole, runs=runs, gic=gic, errata=errata)
        for row in _OF_A_TRACE:
            if row.applies is not None and not row.applies(with_rules):
                continue
            for one in row.compare(with_rules):
                if isinstance(one, Divergence):
                    found[one.event] = found.get(one.event, NOTHING_DIFFERS).and_also(one.name)
        return found
