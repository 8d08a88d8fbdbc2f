# SPDX-License-Identifier: Apache-2.0
"""Try the seeds of a recording on a target, write them, and format the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz.corpus.extract_seeds import ExtractedSeeds, Seed
from fuzz.targets.observation import signatures
from fuzz.targets.target_set import Side, TargetSet
from harness.errors import InputError
from harness.findings.finding import signature_text
from harness.report.terminal import printable
from harness.scenario.scenario import format_scenario

TRIES = 3
"""Maximum number of runs until a scenario shows its exit: host interrupts on a busy machine may end a run early."""


@dataclass(frozen=True, slots=True)
class SeedTrial:
    """The result of a seed on a target: whether it shows the recorded exit, and its unexplained signatures."""

    shows: bool
    status: str
    unexplained: tuple[str, ...]


Trials = Mapping[str, SeedTrial]
"""Results by the names of seeds; empty: no seed was tried."""


def check_room(seeds: Sequence[Seed], out: Path) -> None:
    """Check that no file is overwritten.  InputError: a seed's file exists already."""
    clashes = [seed.name for seed in seeds if _path(out, seed).exists()]
    if clashes:
        raise InputError(str(out), None, f"{clashes[0]}.scn is there already: expected a directory without it")


def try_seeds(targets: TargetSet[Side], seeds: Sequence[Seed], progress: Callable[[str], None]) -> Trials:
    """Run each seed until it shows its exit, at most :data:`TRIES` times.  TargetError: the machine was lost."""
    tried: dict[str, SeedTrial] = {}
    for number, seed in enumerate(seeds, 1):
        tried[seed.name] = _try(targets, seed)
        if not number % 20:
            progress(f"{number} of {len(seeds)} scenarios run")
    return tried


def _try(targets: TargetSet[Side], seed: Seed) -> SeedTrial:
    for _ in range(TRIES):
        found = targets.run_and_check(seed.scenario)
        if shows := seed.shown_by(found.trace):
            break
    return SeedTrial(shows, found.checked.status, tuple(signature_text(key) for key in signatures(found.checked)))


def write_seeds(result: ExtractedSeeds, tried: Trials, out: Path) -> int:
    """Write the seeds, except those that were tried and did not show their exit; return the number of files."""
    kept = [seed for seed in result.seeds if seed.name not in tried or tried[seed.name].shows]
    out.mkdir(parents=True, exist_ok=True)
    for seed in kept:
        _path(out, seed).write_text(format_scenario(seed.scenario))
    return len(kept)


def _path(directory: Path, seed: Seed) -> Path:
    return directory / f"{seed.name}.scn"


def seeds_text(result: ExtractedSeeds, tried: Trials, out: Path, kept: int) -> str:
    """Return the seeds of a recording as text; ``kept`` of them were written to ``out``."""
    lines = [f"{'exits':>8}  scenario"]
    for seed in result.seeds:
        lines.append(f"{seed.count:8}  {seed.name}{_remark(tried.get(seed.name))}")
    lines += [f"{count:8}  no scenario: {why}" for why, count in result.unsupported.most_common()]
    covered = result.exits - result.unsupported.total()
    lines.append(f"{kept} scenarios in {printable(str(out))}, for {covered} of {result.exits} exits")
    return "\n".join(lines)


def _remark(tried: SeedTrial | None) -> str:
    if tried is None:
        return ""
    if not tried.shows:
        return "  (does not show that exit here: not written)"
    return f"  ({', '.join(tried.unexplained)})" if tried.unexplained else ""


def seeds_json(result: ExtractedSeeds, tried: Trials) -> dict[str, object]:
    """Return the seeds of a recording as plain data for :mod:`json`."""
    return {
        "exits": result.exits,
        "scenarios": [_seed_json(seed, tried.get(seed.name)) for seed in result.seeds],
        "unsupported": dict(result.unsupported),
    }


def _seed_json(seed: Seed, tried: SeedTrial | None) -> dict[str, object]:
    row: dict[str, object] = {
        "name": seed.name,
        "exit_class": seed.exit_class,
        "exits": seed.count,
        "first_record": seed.record,
        "scenario": format_scenario(seed.scenario),
    }
    if tried is not None:
        row |= {"shows": tried.shows, "status": tried.status, "unexplained": list(tried.unexplained)}
    return row
