# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz bench``: how near the checked exit rate is to KVM's own, as ratios taken in one run."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from typing import TYPE_CHECKING

from fuzz.bench import MODES, Plan, Result, run_bench
from harness.model import LEVEL_NAMES
from harness.vm.build import prepare
from harness.vm.config import DEFAULT_TARGET, PROJECT, load_config

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_HELP = """\
Run the same scenarios three times in one run: bare (raw), with every world switch recorded, and checked as in a
campaign (mutated, recorded, replayed on the model, compared).

examples:
  shadowfuzz bench                          two workers on the default target, ten seconds a mode
  shadowfuzz bench --jobs 1 --json          one worker, as one JSON object

JSON keys: target, kernel_release, level, jobs, seed, raw_exits_per_s, recorded_exits_per_s, checked_exits_per_s,
recorded_over_raw, checked_over_raw, start_s, memory_mib, samples[] (mode, exits, scenarios, seconds, cpu_seconds).
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``bench``; `run` takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "bench",
        help="measure exits a second: raw, recorded, checked",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--target", default=DEFAULT_TARGET, metavar="NAME", help=f"default: {DEFAULT_TARGET}")
    parser.add_argument("--level", choices=LEVEL_NAMES, default="spec", help="the model's level (default: spec)")
    parser.add_argument("--jobs", type=_positive, default=2, metavar="N", help="workers (default: 2)")
    parser.add_argument("--seconds", type=_positive, default=10, metavar="N", help="for each mode (default: 10)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the scenarios (default: random, printed)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run)


def _positive(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 1 to 86400")
    return value


def run(args: argparse.Namespace) -> int:
    """Measure and print; errors are raised for the caller to show."""
    config = load_config(args.target)
    seed = args.seed if args.seed is not None else secrets.randbits(32)

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    prepared = prepare(config, progress=progress)
    progress(f"{len(MODES)} modes of {args.seconds} s with {args.jobs} workers on {config.name}")
    catalogue = PROJECT / "corpus" / "known"
    result = run_bench(Plan(config, prepared, catalogue, args.level, args.jobs, args.seconds, seed))
    facts = {
        "target": config.name,
        "kernel_release": prepared.kernel_release,
        "level": args.level,
        "jobs": args.jobs,
        "seed": seed,
        **{f"{mode}_exits_per_s": round(result.rate(mode), 1) for mode in MODES},
        "recorded_over_raw": round(result.ratio("recorded"), 3),
        "checked_over_raw": round(result.ratio("checked"), 3),
        "start_s": round(result.start_s, 2),
        "memory_mib": round(result.memory_mib, 1),
    }
    print(json.dumps(facts | {"samples": _samples(result)}, indent=2) if args.json else _text(facts, result))
    return 0


def _samples(result: Result) -> list[dict[str, object]]:
    return [
        {
            "mode": s.mode,
            "exits": s.exits,
            "scenarios": s.scenarios,
            "seconds": round(s.seconds, 3),
            "cpu_seconds": round(s.cpu_seconds, 3),
        }
        for s in result.samples
    ]


def _text(facts: dict[str, object], result: Result) -> str:
    lines = [
        f"target {facts['target']}, Linux {facts['kernel_release']}, level {facts['level']}, "
        f"{facts['jobs']} workers, seed {facts['seed']}",
        f"{'mode':10} {'exits/s':>9} {'over raw':>9} {'exits/scenario':>15} {'our CPU us/exit':>16}",
    ]
    for mode in MODES:
        samples = [s for s in result.samples if s.mode == mode]
        exits = max(1, sum(s.exits for s in samples))
        each = exits / max(1, sum(s.scenarios for s in samples))
        cpu = 1e6 * sum(s.cpu_seconds for s in samples) / exits
        lines.append(f"{mode:10} {result.rate(mode):9.0f} {result.ratio(mode):9.2f} {each:15.1f} {cpu:16.1f}")
    lines.append(f"boot to ready {facts['start_s']} s; largest worker without QEMU {facts['memory_mib']} MiB")
    return "\n".join(lines)
