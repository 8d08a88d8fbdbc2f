# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz against``: run every scenario on two targets and show where what they recorded differs."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fuzz.against import Difference, compare, intended, not_comparable
from fuzz.matrix import Runs
from fuzz.mutate import crossover, generate, mutate
from fuzz.replay_cli import find_scenarios
from harness.errors import InputError, VmLost
from harness.scenario import Scenario, format_scenario, load
from harness.vm.build import prepare
from harness.vm.config import PROJECT, load_config
from harness.vm.target import boot

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

MOST_LOSSES = 5

EPILOG = """\
examples:
  shadowfuzz against kvm-nvhe@6.12.117 kvm-nvhe@7.3 --seconds 600

A difference counts if it comes back in fresh VMs on both; the first scenario of each kind is kept in --out.

exit status: 0 only intended differences, 1 another one, 2 bad usage or input, 3 a target was lost
"""


@dataclass(slots=True)
class Tally:
    """What a comparison has found so far; clusters by signature."""

    ignored: frozenset[str] = frozenset()
    runs: int = 0
    exits: int = 0
    lost: int = 0
    not_again: int = 0
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    first: dict[tuple[str, str], tuple[Difference, Scenario]] = field(default_factory=dict)


def add_parser(subparsers: Subparsers) -> None:
    """Add ``against``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "against",
        help="release against release: where two targets' traces differ",
        description="Run every scenario on two targets and compare what was recorded; no model has a say.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs=2, metavar="TARGET", help="two targets with the same CPU and mode")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="compare so long (60)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the random numbers (1)")
    parser.add_argument("--out", type=Path, default=Path("out/against"), metavar="DIR", help="(out/against)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run_against)


def run_against(args: argparse.Namespace) -> int:
    """Compare until the time is over, then print the clusters."""
    one, other = (load_config(name) for name in args.targets)
    if (one.mode, one.cpu) != (other.mode, other.cpu):
        raise InputError(other.name, None, f"another mode or CPU than {one.name}: everything would differ")
    prepared = [prepare(config, progress=_progress) for config in (one, other)]
    corpus = [load(path) for path in find_scenarios([PROJECT / "corpus" / n for n in ("seeds", "regressions")])]
    scenarios = stream(corpus, random.Random(args.seed))
    releases = (prepared[0].package_version, prepared[1].package_version)
    tally = Tally(ignored=not_comparable(releases))
    deadline = time.monotonic() + args.seconds
    reported = time.monotonic()
    while time.monotonic() < deadline and tally.lost < MOST_LOSSES:
        try:
            with ExitStack() as stack:
                machines = [stack.enter_context(boot(c, p)) for c, p in zip((one, other), prepared, strict=True)]
                while time.monotonic() < deadline:
                    step(machines, next(scenarios), tally)
                    if time.monotonic() - reported > 10:
                        reported = time.monotonic()
                        _progress(f"{tally.runs} scenarios, {tally.exits} exits, {len(tally.counts)} kinds")
        except VmLost as error:
            tally.lost += 1
            _progress(str(error))
    keep(args.out, tally)
    rows = list(clusters(tally, releases))
    if args.json:
        print(json.dumps({"targets": [one.name, other.name], "kernels": releases, "runs": tally.runs,
                          "exits": tally.exits, "lost": tally.lost, "not_again": tally.not_again,
                          "clusters": rows}, indent=1))  # fmt: skip
    else:
        print("\n".join(lines(tally, rows, releases)))
    if tally.lost:
        return 3
    return 1 if any(not row["intended"] for row in rows) else 0


def stream(corpus: Sequence[Scenario], rng: random.Random) -> Iterator[Scenario]:
    """Yield the corpus, then for ever what its mutation makes of it."""
    yield from corpus
    while True:
        kind = rng.random()
        if kind < 0.2:
            yield generate(rng)
        elif kind < 0.4:
            yield crossover(rng.choice(corpus), rng.choice(corpus), rng)
        else:
            yield mutate(rng.choice(corpus), rng)


def step(machines: Sequence[Runs], scenario: Scenario, tally: Tally) -> None:
    """Run one scenario on both; a difference counts if fresh VMs show the same."""
    traces = [machine.run(scenario, fresh_vm=False) for machine in machines]
    tally.runs += 1
    tally.exits += sum(len(trace.events) for trace in traces[:1]) // 2
    found = compare(traces[0], traces[1], tally.ignored)
    if not found:
        return
    fresh = [machine.run(scenario, fresh_vm=True) for machine in machines]
    again = compare(fresh[0], fresh[1], tally.ignored)
    both = {d.signature for d in again}
    if not both & {d.signature for d in found}:
        tally.not_again += 1
    for difference in again:
        if difference.signature in {d.signature for d in found}:
            tally.counts[difference.signature] = tally.counts.get(difference.signature, 0) + 1
            tally.first.setdefault(difference.signature, (difference, scenario))


def keep(out: Path, tally: Tally) -> None:
    """Write the first scenario of each cluster."""
    out.mkdir(parents=True, exist_ok=True)
    for key, (_, scenario) in tally.first.items():
        (out / file_name(key)).write_text(format_scenario(scenario))


def file_name(signature: tuple[str, str]) -> str:
    """Return the name of a cluster's scenario."""
    return f"{'-'.join(part for part in signature if part)}.scn".replace("/", "_")


def clusters(tally: Tally, releases: tuple[str, str]) -> Iterator[dict[str, object]]:
    """Yield each cluster as plain data, the most frequent first."""
    for key in sorted(tally.counts, key=lambda key: (-tally.counts[key], key)):
        difference, _ = tally.first[key]
        yield {
            "what": key[0],
            "exit_class": key[1],
            "count": tally.counts[key],
            "values": list(difference.values),
            "step": difference.step,
            "scenario": file_name(key),
            "intended": intended(difference, releases),
        }


def lines(tally: Tally, rows: Sequence[dict[str, object]], releases: tuple[str, str]) -> Iterator[str]:
    """Yield the report's lines."""
    for row in rows:
        first, second = row["values"] if isinstance(row["values"], list) else ("", "")
        yield f"{row['count']:6} {row['what']}/{row['exit_class']}: {first} and {second} ({row['scenario']})"
        if row["intended"]:
            yield f"       intended: {row['intended']}"
    yield (
        f"{releases[0]} and {releases[1]}: {tally.runs} scenarios, {tally.exits} exits each, {len(rows)} kinds of "
        f"difference; {tally.not_again} did not come back, {tally.lost} machines lost"
    )


def _progress(line: str) -> None:
    print(f"against: {line}", file=sys.stderr, flush=True)
