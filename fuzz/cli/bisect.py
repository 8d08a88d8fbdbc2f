# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz bisect``: between which neighbouring kernels a finding appears or disappears."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fuzz.cli.options import Subparsers, add_campaign, add_deterministic, add_number
from fuzz.cli.progress import progress_printer
from fuzz.store.findings import FINDINGS, FLAKY, Store
from fuzz.store.kept_findings import find, open_database
from fuzz.triage.bisect import (
    Outcome,
    Search,
    _changelog,
    anchors,
    confidence,
    search,
    split_target,
    target_name,
)
from fuzz.triage.matrix import CLEAN, DIVERGES, Case, Cell, Work, load_cases, make_case, run_all
from harness.errors import InputError, SetupError
from harness.findings.release_history import CANNOT, HISTORY, SHOWS, SHOWS_NOT, Asked, history_text
from harness.relations import hyp_copy
from harness.report.finding_data import Story
from harness.vm.cache import Cache, default_root
from harness.vm.config import DEFAULT_TARGET, load_config
from harness.vm.debian.kernel_archive import Kernels
from harness.vm.kernels.fetch import load_kernels

_say = progress_printer("bisect")

FLAKY_RUNS = 30
"""How often a scenario is run that did not show the same in all of its first runs."""

EPILOG = """\
examples:
  shadowfuzz bisect corpus/regressions/mmio_load_signed_word.scn
      the first and last kernel of every series, then halving wherever the outcome changes
  shadowfuzz bisect finding.scn --good kvm-vhe@7.3 --bad kvm-vhe@6.12.117+deb12
      between these two only
  shadowfuzz bisect --finding d47d8f --out out/campaign
      a campaign's finding; its release history is kept with it, and its page shows it

exit status: 0 no change between kernels, 1 there is one, 2 bad usage or input, 3 nothing could run
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``bisect``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "bisect",
        help="between which neighbouring kernels a finding appears or disappears",
        description="Run a scenario on few kernels of the archive and find where what it shows changes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="a scenario")
    parser.add_argument("--finding", metavar="ID", help="instead of FILE: a campaign's finding, or its beginning")
    add_campaign(parser)
    parser.add_argument("--good", metavar="TARGET", help="a target CONFIG@VERSION at one end")
    parser.add_argument("--bad", metavar="TARGET", help="a target CONFIG@VERSION at the other end")
    parser.add_argument("--target", metavar="CONFIG", help=f"the configuration, without ends ({DEFAULT_TARGET})")
    add_number(parser, "--repeat", 5, "runs a kernel", most=100)
    add_deterministic(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run_bisect)


def run_bisect(args: argparse.Namespace) -> int:
    """Search, then print each change with its changelog."""
    case, story = _subject(args)
    cache = Cache(default_root(os.environ))
    kernels = load_kernels(cache, _say)
    config, versions, first = _range(args, kernels)
    cells: dict[str, Cell] = {}
    start = time.monotonic()

    def work(version: str, runs: int) -> Work:
        return Work(target_name(config, version), (case,), runs, args.deterministic)

    def probe(wanted: Sequence[str]) -> Mapping[str, Outcome | None]:
        run_all([work(v, args.repeat) for v in wanted], lambda found: keep(found))
        again = [v for v in wanted if 0 < cells[v].seen < cells[v].runs]
        if again:
            run_all([work(v, FLAKY_RUNS) for v in again], lambda found: keep(found))
        return {v: cells[v].findings if cells[v].verdict in (CLEAN, DIVERGES) else None for v in wanted}

    def keep(found: Sequence[Cell]) -> None:
        for cell in found:
            version = split_target(cell.target)[1]
            cells[version] = cell
            shown = ", ".join(cell.findings) or cell.why or "nothing"
            _say(f"{len(cells)}: {cell.target}: {shown} ({cell.seen} of {cell.runs} runs)")

    found = search(versions, first, probe)
    seconds = time.monotonic() - start
    if all(outcome is None for outcome in found.probed.values()):
        raise SetupError(f"no kernel could run: {next(iter(cells.values())).why}")
    if story is not None:
        _keep_history(args, story, config, found, cells)
    if args.json:
        print(json.dumps(_document(config, found, cells, seconds), indent=1))
    else:
        print("\n".join(_lines(config, found, cells, cache, kernels)))
        print(
            f"{len(found.probed)} of {len(versions)} kernels asked, {seconds:.0f} s; {args.repeat} runs each: "
            f"a finding that shows in every second run is seen with {confidence(args.repeat):.1%}"
        )
    return 1 if found.changes else 0


def _subject(args: argparse.Namespace) -> tuple[Case, Story | None]:
    """Return what to run: a file's scenario, or a finding's."""
    if (args.file is None) == (args.finding is None):
        raise InputError("bisect", None, "expected either a FILE or --finding")
    if args.finding is None:
        return load_cases([Path(args.file)])[0], None
    story = find(open_database(args.out, args.store), args.finding)
    finding, scenario = story.kept.finding, story.kept.scenario
    if scenario is None or finding.kind != "divergence" or finding.other is not None:
        raise InputError(story.id, None, "expected a divergence of one target, with its scenario")
    if hyp_copy.options(finding.signature):
        raise InputError(story.id, None, "kernels are asked without their hypervisor's own copies: none would show it")
    args.target = args.target or (None if args.good else finding.subject.target.partition("@")[0])
    return make_case(story.id, scenario), story


def _keep_history(
    args: argparse.Namespace, story: Story, config: str, found: Search, cells: Mapping[str, Cell]
) -> None:
    """Put with a finding which kernels show it."""
    name = ".".join(filter(None, story.kept.finding.signature[:2]))
    asked: list[Asked] = []
    for version, outcome in found.probed.items():
        answer = CANNOT if outcome is None else SHOWS if name in outcome else SHOWS_NOT
        asked.append(Asked(config, version, answer, cells[version].seen, cells[version].runs))
    shelf = FINDINGS if story.kept.confirmed else FLAKY
    Store(open_database(args.out, args.store), shelf).annotate(story.id, HISTORY, history_text(asked))


def _range(args: argparse.Namespace, kernels: Kernels) -> tuple[str, list[str], tuple[str, ...]]:
    """Return the configuration, the kernels between the ends, and those to ask first."""
    versions = [kernel.version for kernel in kernels.kernels]
    if bool(args.good) != bool(args.bad):
        raise InputError("--good, --bad", None, "give both ends or none")
    if not args.good:
        config = args.target or DEFAULT_TARGET
        load_config(config)
        return config, versions, anchors(versions)
    if args.target:
        raise InputError("--target", None, "the ends name the configuration")
    names = [split_target(end) for end in (args.good, args.bad)]
    if names[0][0] != names[1][0] or not all(version for _, version in names):
        raise InputError(f"{args.good}, {args.bad}", None, "expected two kernels of one configuration: CONFIG@VERSION")
    load_config(names[0][0])
    ends = sorted(versions.index(kernels.find(version).version) for _, version in names)
    between = versions[ends[0] : ends[1] + 1]
    return names[0][0], between, (between[0], between[-1])


def _lines(config: str, found: Search, cells: Mapping[str, Cell], cache: Cache, kernels: Kernels) -> Iterator[str]:
    for version, outcome in found.probed.items():
        cell = cells[version]
        shown = f"cannot run: {cell.why}" if outcome is None else ", ".join(outcome) or "nothing"
        part = f" ({cell.seen} of {cell.runs} runs)" if 0 < cell.seen < cell.runs else ""
        yield f"{target_name(config, version):34}  {shown}{part}"
    if not found.changes:
        yield "no change between the kernels that were asked"
    for change in found.changes:
        yield ""
        yield f"between {change.before} and {change.after}"
        if change.disappears:
            yield f"  disappears: {', '.join(change.disappears)}"
        if change.appears:
            yield f"  appears:    {', '.join(change.appears)}"
        yield from _changelog(change, cache, kernels)


def _document(config: str, found: Search, cells: Mapping[str, Cell], seconds: float) -> Mapping[str, object]:
    return {
        "config": config,
        "seconds": round(seconds, 1),
        "probed": {
            version: {"findings": outcome, "seen": cells[version].seen, "runs": cells[version].runs,
                      "why": cells[version].why}
            for version, outcome in found.probed.items()
        },
        "changes": [
            {"before": c.before, "after": c.after, "appears": c.appears, "disappears": c.disappears}
            for c in found.changes
        ],
    }  # fmt: skip
