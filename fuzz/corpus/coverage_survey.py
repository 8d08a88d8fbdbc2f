# SPDX-License-Identifier: Apache-2.0
"""Run scenarios on a target with a coverage plugin and record the coverage of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fuzz.campaign.features import features
from fuzz.corpus.files import Corpus
from fuzz.paths import CORPUS
from fuzz.targets.options import TargetOptions
from fuzz.targets.runner import MAX_LOSSES
from fuzz.targets.target_set import PreparedTargets, open_targets
from harness.coverage.kvm_code import Covered, Decision, Goal
from harness.errors import TargetError
from harness.lemma.path_states import load_paths, outcome
from harness.scenario.scenario import Scenario
from harness.vm.plugins.edges import EdgeMap
from harness.vm.plugins.kvm_coverage import Coverage, prepare_coverage
from harness.vm.plugins.plugin import Plugin

PATHS = CORPUS / "lemmas" / "paths.json"


@dataclass(frozen=True, slots=True)
class Watched:
    """A target that runs scenarios (``targets``, a context manager), its kernel image, and its coverage plugin."""

    targets: PreparedTargets
    kernel: Path
    coverage: Coverage
    plugin: Plugin[EdgeMap]

    @property
    def facts(self) -> dict[str, str]:
        """Return the description of the target, as names and values."""
        subject = self.targets.subject
        return {"target": subject.target, "kernel_release": subject.kernel_release, "level": subject.level}


@dataclass(frozen=True, slots=True)
class Survey:
    """The coverage of scenarios.

    ``lost`` are the scenarios at which the machine was lost, each with the reason; ``sizes`` of blocks are in bytes;
    ``noise`` are goals that a scenario reached in one run and not in another.
    """

    covered: tuple[Covered, ...]
    lost: Mapping[str, str]
    sizes: Mapping[int, int]
    noise: frozenset[Goal]


def open_watched(options: TargetOptions, progress: Callable[[str], None]) -> Watched:
    """Prepare a target and its plugin.  InputError, SetupError: a name or the set-up is wrong."""
    targets = open_targets(replace(options, cold=True, deterministic=True), progress)
    prepared = targets.sides[0].prepared
    coverage = prepare_coverage(prepared, progress=progress)
    plugin = coverage.plugin()
    return Watched(targets.watched_by(plugin), prepared.kernel, coverage, plugin)


def survey_corpus(watched: Watched, corpus: Corpus, repeat: int, progress: Callable[[str], None]) -> Survey:
    """Boot a machine, run the scenarios of a corpus, and end the machine.  TargetError: as :func:`survey`."""
    progress(f"{len(corpus.scenarios)} scenarios on {watched.targets.subject.target}, {repeat} times each")
    with watched.targets:
        named = [(str(path), scenario) for path, scenario in corpus.scenarios]
        return survey(watched, named, repeat=repeat, progress=progress)


def survey(
    watched: Watched, scenarios: Sequence[tuple[str, Scenario]], *, repeat: int, progress: Callable[[str], None]
) -> Survey:
    """Run all scenarios in fresh KVM VMs ``repeat`` times, in alternating order.

    A scenario's coverage is what it reached in every run; this excludes the effects of host timer interrupts and of
    earlier scenarios.  The machine is deterministic, so that two surveys of one corpus are equal.  TargetError: the
    machine was lost repeatedly.
    """
    runs: dict[str, list[Covered]] = {}
    lost: dict[str, str] = {}
    losses = 0
    for turn in range(repeat):
        progress(f"run {turn + 1} of {repeat}")
        for name, scenario in scenarios[:: -1 if turn % 2 else 1]:
            if name in lost:
                continue
            try:
                runs.setdefault(name, []).append(_run(watched, name, scenario))
                losses = 0
            except TargetError as error:
                lost[name] = str(error)
                losses += 1
                if losses >= MAX_LOSSES:
                    raise
    whole = [runs[name] for name, _ in scenarios if name not in lost]
    noise = frozenset[Goal]().union(*(reached_sometimes(each) - reached_always(each).goals for each in whole))
    return Survey(tuple(map(reached_always, whole)), lost, watched.plugin.map.reached().blocks, noise)


def _run(watched: Watched, name: str, scenario: Scenario) -> Covered:
    found = watched.targets.run_and_check(scenario)
    checked, reached = found.checked, watched.plugin.map.reached()
    taken = frozenset(decision for _, path in checked.paths for decision in path)
    forged = any(step.kind == "forge" for step in scenario.steps)
    return Covered(name, frozenset(reached.edges), taken, frozenset(features(found.trace, checked)), forged)


def reached_always(runs: Sequence[Covered]) -> Covered:
    """Return the coverage that all runs of one scenario have in common."""
    return replace(
        runs[0],
        edges=frozenset.intersection(*(run.edges for run in runs)),
        decisions=frozenset.intersection(*(run.decisions for run in runs)),
        features=frozenset.intersection(*(run.features for run in runs)),
    )


def reached_sometimes(runs: Sequence[Covered]) -> frozenset[Goal]:
    """Return the goals that any run of one scenario reached."""
    return frozenset[Goal]().union(*(run.goals for run in runs))


def possible_decisions(level: str) -> frozenset[Decision]:
    """Return the decisions that a level of the model takes on the stored states; they have one state for each path."""
    rows = (row for row in load_paths(PATHS) if level in dict(row.outcomes))
    return frozenset(
        decision
        for row in rows
        for decision in outcome(level, row.function, row.coupled, dict(row.case))[1]
        if isinstance(decision, tuple)
    )
