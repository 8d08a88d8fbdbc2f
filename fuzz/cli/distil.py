# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz distil``: scenarios of what a recorded program did, one for each kind of exit."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fuzz.cli.options import TARGET_HELP, Subparsers
from fuzz.cli.progress import progress_printer
from fuzz.corpus.extract_seeds import ExtractedSeeds, Seed, extract_seeds
from fuzz.targets.observation import signatures
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import Side, TargetSet, open_targets
from harness.errors import InputError
from harness.findings.finding import signature_text
from harness.report.terminal import printable
from harness.scenario.scenario import format_scenario
from harness.trace.recorded_rounds import excerpt
from harness.trace.recording import Reader, Recorded, rewrite
from harness.vm.config import DEFAULT_TARGET

_say = progress_printer("distil")

PROGRESS_SECONDS = 2.0
TRIES = 3
"""Runs that a scenario has to show its exit: on a busy machine interrupts of the host may end one too early."""

EPILOG = """\
examples:
  shadowfuzz distil boot.trace --out seeds
      write seeds/recorded_*.scn, without any VM
  shadowfuzz distil boot.trace --out seeds --verify --excerpt small.trace
      run each first, and keep only those that show the exit that they were made of; and keep the first turns of each
      kind of exit as a recording that `shadowfuzz check` takes

kinds of exits: class, syndrome, the model's decisions, exception level; what no step can reproduce is listed, counted

exit status: 0 nothing unexplained, 1 --verify saw an unexplained divergence, 2 bad usage or input, 3 target lost
"""


@dataclass(frozen=True, slots=True)
class Tried:
    """What a seed did on a target: whether it shows the recorded exit, and what is unexplained."""

    shows: bool
    status: str
    unexplained: tuple[str, ...]


def add_parser(subparsers: Subparsers) -> None:
    """Add ``distil``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "distil",
        help="make scenarios of a recording",
        description="Write the smallest scenario for each kind of exit that a recording shows.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trace", type=Path, metavar="TRACE", help="a file of `shadowfuzz record`")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where to write; existing files stay")
    parser.add_argument("--verify", action="store_true", help="run each on the target, write those that show the exit")
    parser.add_argument("--excerpt", type=Path, metavar="FILE", help="write the first turns of each kind, too")
    parser.add_argument("--target", default=DEFAULT_TARGET, metavar="NAME", help=f"{TARGET_HELP} ({DEFAULT_TARGET})")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run_distil)


def run_distil(args: argparse.Namespace) -> int:
    """Distil, verify, write, print; errors are raised for the caller to show."""
    reader = Reader(args.trace)
    result = extract_seeds(_watched(reader), reader.head.program)
    clashes = [seed.name for seed in result.seeds if _path(args.out, seed).exists()]
    if clashes:
        raise InputError(str(args.out), None, f"{clashes[0]}.scn is there already: expected a directory without it")
    tried: dict[str, Tried] = {}
    if args.verify:
        with open_targets(TargetOptions(args.target, "spec"), _say) as targets:
            for number, seed in enumerate(result.seeds, 1):
                tried[seed.name] = _try(targets, seed)
                if not number % 20:
                    _say(f"{number} of {len(result.seeds)} scenarios run")
    if args.excerpt is not None:
        again = Reader(args.trace)
        rewrite(args.excerpt, again, excerpt(again, result.spans))
    kept = tuple(seed for seed in result.seeds if seed.name not in tried or tried[seed.name].shows)
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in kept:
        _path(args.out, seed).write_text(format_scenario(seed.scenario))
    print(json.dumps(_json(result, tried), indent=1) if args.json else _text(result, tried, args.out, len(kept)))
    return 1 if any(each.unexplained for each in tried.values()) else 0


def _path(directory: Path, seed: Seed) -> Path:
    return directory / f"{seed.name}.scn"


def _try(targets: TargetSet[Side], seed: Seed) -> Tried:
    for _ in range(TRIES):
        found = targets.run_and_check(seed.scenario)
        if shows := seed.shown_by(found.trace):
            break
    return Tried(shows, found.checked.status, tuple(signature_text(key) for key in signatures(found.checked)))


def _watched(reader: Reader) -> Iterator[Recorded]:
    shown = time.monotonic()
    for number, recorded in enumerate(reader, 1):
        yield recorded
        if not number % 1024 and time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            _say(f"{number} records")


def _text(result: ExtractedSeeds, tried: dict[str, Tried], out: Path, kept: int) -> str:
    lines = [f"{'exits':>8}  scenario"]
    for seed in result.seeds:
        lines.append(f"{seed.count:8}  {seed.name}{_remark(tried.get(seed.name))}")
    lines += [f"{count:8}  no scenario: {why}" for why, count in result.unsupported.most_common()]
    covered = result.exits - result.unsupported.total()
    lines.append(f"{kept} scenarios in {printable(str(out))}, for {covered} of {result.exits} exits")
    return "\n".join(lines)


def _remark(tried: Tried | None) -> str:
    if tried is None:
        return ""
    if not tried.shows:
        return "  (does not show that exit here: not written)"
    return f"  ({', '.join(tried.unexplained)})" if tried.unexplained else ""


def _json(result: ExtractedSeeds, tried: dict[str, Tried]) -> dict[str, object]:
    return {
        "exits": result.exits,
        "scenarios": [_seed_json(seed, tried.get(seed.name)) for seed in result.seeds],
        "unsupported": dict(result.unsupported),
    }


def _seed_json(seed: Seed, tried: Tried | None) -> dict[str, object]:
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
