# SPDX-License-Identifier: Apache-2.0
"""Run scenarios on a watched target and note what each reached."""

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
    """A target that runs scenarios (``targets``, a context manager), its image, and the plugin that watches it."""

    targets: PreparedTargets
    kernel: Path
    coverage: Coverage
    plugin: Plugin[EdgeMap]

    @property
    def facts(self) -> dict[str, str]:
        """What is run, as names and values."""
        subject = self.targets.subject
        return {"target": subject.target, "kernel_release": subject.kernel_release, "level": subject.level}


@dataclass(frozen=True, slots=True)
class Survey:
    """What scenarios reached.

    ``lost`` are those at which the machine was lost, each with why; ``sizes`` of blocks, in bytes; ``noise`` is what
    some scenario reached in one run and not in another.
    """

    covered: tuple[Covered, ...]
    lost: Mapping[str, str]
    sizes: Mapping[int, int]
    noise: frozenset[Goal]


def open_watched(options: TargetOptions, progress: Callable[[str], None]) -> Watched:
    """Prepare a target and its plugin.  InputError, SetupError: a name is wrong, or something is missing here."""
    targets = open_targets(replace(options, cold=True, deterministic=True), progress)
    prepared = targets.sides[0].prepared
    coverage = prepare_coverage(prepared, progress=progress)
    plugin = coverage.plugin()
    return Watched(targets.watched_by(plugin), prepared.kernel, coverage, plugin)


def survey_corpus(watched: Watched, corpus: Corpus, repeat: int, progress: Callable[[str], None]) -> Survey:
    """Run the scenarios of a corpus, boot for it, and end the machine.  TargetError: as :func:`survey`."""
    progress(f"{len(corpus.scenarios)} scenarios on {watched.targets.subject.target}, {repeat} times each")
    with watched.targets:
        named = [(str(path), scenario) for path, scenario in corpus.scenarios]
        return survey(watched, named, repeat=repeat, progress=progress)


def survey(
    watched: Watched, scenarios: Sequence[tuple[str, Scenario]], *, repeat: int, progress: Callable[[str], None]
) -> Survey:
    """Run scenarios in fresh KVM VMs, all of them ``repeat`` times, forwards and backwards in turn.

    What a scenario reached is what it reached every time: not what a tick of the host's clock, or a scenario before it,
    adds.  The machine is a deterministic one, so that two surveys of one corpus are the same.  TargetError: the machine
    was lost again and again.
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
    """Return what all runs of one scenario reached."""
    return replace(
        runs[0],
        edges=frozenset.intersection(*(run.edges for run in runs)),
        decisions=frozenset.intersection(*(run.decisions for run in runs)),
        features=frozenset.intersection(*(run.features for run in runs)),
    )


def reached_sometimes(runs: Sequence[Covered]) -> frozenset[Goal]:
    """Return what any run of one scenario reached."""
    return frozenset[Goal]().union(*(run.goals for run in runs))


def possible_decisions(level: str) -> frozenset[Decision]:
    """Return the decisions that a level of the model takes on the stored states, which have one for each path."""
    rows = (row for row in load_paths(PATHS) if level in dict(row.outcomes))
    return frozenset(
        decision
        for row in rows
        for decision in outcome(level, row.function, row.coupled, dict(row.case))[1]
        if isinstance(decision, tuple)
    )
