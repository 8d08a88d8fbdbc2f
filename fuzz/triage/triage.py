# SPDX-License-Identifier: Apache-2.0
"""Minimise and confirm the findings of a campaign, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fuzz.store.database import Database
from fuzz.store.findings import FINDINGS, FRESH_QEMU, Store
from fuzz.store.kept_findings import story_of
from fuzz.targets.observation import Observation, clusters_of, leaders_of, texts_of
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import Side, TargetSet, open_targets
from fuzz.triage.confirm import stages_of
from fuzz.triage.kept_on_emulators import on_emulators
from fuzz.triage.minimise import minimise_on
from harness.errors import InputError
from harness.findings.checked import signature
from harness.findings.finding import MAX_DIVERGENCES, Finding, Tries, difference, finding_id, is_member, signature_text
from harness.report.finding_data import Kept


def triage(database: Database, targets: TargetSet[Side], runs: int, say: Callable[[str], None]) -> int:
    """Minimise and confirm what was found on the targets, new ones first; return how many findings were done.

    Each is kept before the next one begins.  TargetError: the machine was lost too often.
    """
    store, done = Store(database, FINDINGS), 0
    for story in sorted((story_of(store, id_) for id_ in store.ids()), key=lambda story: bool(story.like)):
        kept = story.kept
        if (
            kept.finding.kind != "divergence"
            or kept.finding.subject != targets.subject
            or kept.finding.other != targets.other
        ):
            continue
        if kept.scenario is None or kept.fresh_qemu is not None:
            continue
        done += 1
        say(f"{story.id}: {_one(store, kept, targets, runs)}")
    return done


def triage_campaign(
    database: Database, out: Path, options: TargetOptions, runs: int, say: Callable[[str], None]
) -> None:
    """Minimise and confirm all that a campaign found on targets, try it on other emulators, write its directories.

    InputError, SetupError: a name or the set-up is wrong.  TargetError: the machine was lost too often.
    """
    with open_targets(options, say) as targets:
        triage(database, targets, runs, say)
    on_emulators(options, say)(database, targets)
    Store(database, FINDINGS).export(out / FINDINGS)


def _one(store: Store, kept: Kept, targets: TargetSet[Side], runs: int) -> str:
    wanted = kept.finding.signature
    assert kept.scenario is not None
    try:
        least = minimise_on(targets, kept.scenario, wanted)
    except InputError:
        return f"{signature_text(wanted)} did not come back; left as it is"
    found = targets.run_and_check(least.scenario)
    members = [divergence for divergence in found.checked.unexplained if is_member(signature(divergence), wanted)]
    if not members:
        return f"{signature_text(wanted)} did not come back when all was done; left as it is"
    repeat, fresh, _ = stages_of(targets, least.scenario, (wanted,), runs, 0)[wanted]
    finding = replace(
        kept.finding,
        divergences=tuple(difference(divergence) for divergence in members[:MAX_DIVERGENCES]),
        divergence_count=len(members),
        same_vm=repeat.tries,
        fresh_vm=fresh.tries,
    )
    qemu = Tries(int(least.confirmed), 1)
    texts = {**texts_of(found), FRESH_QEMU: f"{qemu.hits} {qemu.runs}"}
    store.revise(finding, least.scenario, texts, _leader(found, kept.finding))
    before, after = len(kept.scenario.steps), len(least.scenario.steps)
    return f"{signature_text(wanted)}: {before} steps -> {after}, {least.tries} tries"


def _leader(found: Observation, finding: Finding) -> str:
    """Return the id of the cluster that a run which shows a finding shows first; empty if an erratum explains it."""
    key = found.subject, found.other, finding.signature
    leader = leaders_of(clusters_of((found,))).get(key)
    return "" if leader is None else finding_id("divergence", leader[2], *leader[:2])
