# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz confirm``: how surely a divergence comes back, which levels side with KVM, and the verdict."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fuzz.cli.options import Subparsers, add_finding, add_number, targets_of
from fuzz.cli.progress import progress_printer
from fuzz.targets.observation import signatures
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import PreparedTargets, open_targets
from fuzz.triage.confirm import Confirmed, as_json, stages_of
from fuzz.triage.minimise import choose
from fuzz.triage.other_emulators import EmulatorQuery, EmulatorSweep, measure, places, queries_of
from harness.findings.finding import Signature, signature_text
from harness.findings.verdict import (
    Elsewhere,
    classify,
    evidence,
    first_of,
)
from harness.findings.verdict import verdict_lines as lines
from harness.scenario.scenario import load
from harness.vm.cache import Cache, default_root
from harness.vm.qemu_versions import present

_say = progress_printer("confirm")

EPILOG = """\
example:
  shadowfuzz confirm found.scn --runs 20 --boots 3
      for each unexplained divergence: 20 times in one KVM VM, 20 times in fresh ones, in 3 fresh QEMUs; then ten times
      on each other -cpu model that has the target's mode, and on each other version of QEMU that is here

verdicts (docs/spec/differential.md section 4): kvm, model, emulator, flaky, unexplained; abstraction is what the
catalogue explains.  emulator: it goes away, or changes, on another -cpu or another QEMU: there it shows in less than
half of the runs, and less often than here, both with a confidence of 95 per cent.  `shadowfuzz setup --emulators` gets
other versions of QEMU; without one, the output says so.

exit status: 0 nothing unexplained, 1 an unexplained divergence, 2 bad usage or input, 3 the target was lost
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``confirm``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "confirm",
        help="run a finding again and again, and give a verdict",
        description="Measure how often each unexplained divergence of a scenario comes back, and classify it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_finding(parser, signature="only this one (default: all)")
    add_number(parser, "--runs", 10, "runs in one VM, and in fresh ones")
    add_number(parser, "--boots", 1, "fresh QEMUs")
    parser.add_argument("--here", action="store_true", help="try no other -cpu model and no other QEMU")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run_confirm)


def run_confirm(args: argparse.Namespace) -> int:
    """Confirm and print; errors are raised for the caller to show."""
    scenario = load(args.file)
    with open_targets(targets_of(args), _say) as targets:
        first = targets.run_and_check(scenario)
        trace, checked = first.trace, first.checked
        wanted = signatures(checked)
        if args.signature is not None:
            wanted = (choose(wanted, args.signature, str(args.file)),)
        counts = stages_of(targets, scenario, wanted, args.runs, args.boots)
        # Two targets that differ from each other would both have to move.
        queries = () if args.here or args.against else queries_of(targets, scenario, wanted)
        targets.stop()  # its core is wanted
        abroad = _elsewhere(targets, replace(targets_of(args), hyp_copy=targets.has_hyp_copy), queries)
        found: list[Confirmed] = []
        for key in wanted:
            divergence = first_of(checked, key)
            assert divergence is not None
            known = evidence(trace, checked, divergence, counts[key], abroad.get(key, ()))
            found.append(Confirmed(key, known, classify(known)))
    if args.json:
        print(json.dumps({"file": str(args.file), "findings": [as_json(each) for each in found]}, indent=1))
    else:
        for each in found:
            print("\n    ".join((signature_text(each.signature), *lines(each.verdict, each.evidence))))
        if not found:
            print("nothing unexplained")
    return 1 if found else 0


def _elsewhere(
    targets: PreparedTargets, options: TargetOptions, queries: Sequence[EmulatorQuery]
) -> Mapping[Signature, tuple[Elsewhere, ...]]:
    """Return what other emulators show, by signature; empty if nothing is asked."""
    if not queries:
        return {}
    here = present(Cache(default_root(os.environ)))
    sweep = EmulatorSweep(targets.sides[0].config, options)
    _say(f"trying {', '.join(places(sweep.config, here))}")
    if len(here) == 1:
        _say(f"{here[0].name} is the only QEMU here; `shadowfuzz setup --emulators` gets others")
    return dict(zip((each.signature for each in queries), measure(sweep, queries, here, _say), strict=True))
