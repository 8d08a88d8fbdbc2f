# SPDX-License-Identifier: Apache-2.0
"""Run the confirmed divergences of a campaign on other emulators, unless they were run there before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fuzz.store.database import Database
from fuzz.store.emulator_results import to_text
from fuzz.store.findings import ELSEWHERE, FINDINGS, Store
from fuzz.store.kept_findings import read_stories
from fuzz.targets.emulators import emulators_here
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import PreparedTargets
from fuzz.triage.other_emulators import EmulatorQuery, EmulatorSweep, measure_on_emulators, variant
from harness.findings.finding import Subject
from harness.report.finding_data import Story
from harness.vm.qemu_versions import Emulator


def measure_kept(
    database: Database, subject: Subject, sweep: EmulatorSweep, here: Sequence[Emulator], say: Callable[[str], None]
) -> int:
    """Run a subject's confirmed divergences on other emulators and store the results; return the number of divergences.

    This requires a second installed QEMU: a campaign does not fetch one.  Earlier results are kept until a simpler
    scenario replaces the finding's scenario.
    """
    store = Store(database, FINDINGS)
    new = [
        (story.id, query)
        for story in read_stories(store)[0]
        if story.kept.finding.subject == subject
        and story.kept.elsewhere is None
        and (query := _query(story)) is not None
    ]
    if not new:
        return 0
    if len(here) == 1:
        say(f"{len(new)} divergences not run on another QEMU: none is installed (shadowfuzz setup --emulators)")
        return 0
    say(f"trying {len(new)} divergences on other -cpu models and versions of QEMU")
    for (id_, _), found in zip(new, measure_on_emulators(sweep, [query for _, query in new], here, say), strict=True):
        store.annotate(id_, ELSEWHERE, to_text(found))
    return len(new)


def on_emulators(options: TargetOptions, say: Callable[[str], None]) -> Callable[[Database, PreparedTargets], None]:
    """Return a function that runs a campaign's confirmed divergences on other emulators, not deterministically."""

    def measure_all(database: Database, targets: PreparedTargets) -> None:
        how = replace(options, deterministic=False, hyp_copy=targets.has_hyp_copy)
        sweep = EmulatorSweep(targets.sides[0].config, how)
        measure_kept(database, targets.subject, sweep, emulators_here(), say)

    return measure_all


def _query(story: Story) -> EmulatorQuery | None:
    """Return the query for a finding: its scenario, and its divergence in the recorded trace."""
    if story.kept.scenario is None or story.ran is None:
        return None
    key = story.kept.finding.signature
    return EmulatorQuery(story.kept.scenario, key, frozenset({variant(story.ran.checked, key)}))
