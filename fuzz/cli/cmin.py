# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz cmin``: a corpus distilled to the simplest scenarios that still reach all that it reaches."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from fuzz.cli.options import Subparsers, add_number, add_subject, subject_of
from fuzz.cli.progress import say
from fuzz.corpus.coverage_survey import Survey, open_watched, survey
from fuzz.corpus.files import Corpus, read_corpus
from fuzz.corpus.minimise import count_goals, minimise_corpus
from harness.coverage.kvm_code import Covered
from harness.errors import InputError
from harness.scenario.simplify import order

OK, FAILED = 0, 3

_HELP = """\
Run every scenario of a directory on the target, note which edges of KVM's own code and which decisions of the model it
reaches, and copy to OUT the simplest ones that reach all of it together.  What a scenario reaches in one run and not
in another is noise: nothing is kept for it.  The machine is deterministic: the same corpus gives the same OUT.

example:
  shadowfuzz cmin out/campaign/corpus out/small

exit status: 0 done, 2 bad usage or input, 3 a machine was lost (its scenarios are copied, too), or something is missing
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``cmin``; `run` takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "cmin",
        help="distil a corpus: fewer, simpler scenarios with the same coverage",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="a corpus, such as a campaign's")
    parser.add_argument("out", type=Path, metavar="OUT", help="where to copy what is kept; new, or empty")
    add_subject(parser)
    add_number(parser, "--repeat", 2, "run each N times; what all runs reach counts", most=100)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, choose, copy; errors are raised for the caller to show."""
    if not args.directory.is_dir():
        raise InputError(str(args.directory), None, "expected a directory with scenarios")
    _make_room(args.out)
    corpus = read_corpus([args.directory])
    watched = open_watched(args.target, args.level, args.kernel, say)
    say(f"{len(corpus.scenarios)} scenarios on {watched.targets.subject.target}, {args.repeat} times each")
    with watched.targets:
        named = [(str(path), scenario) for path, scenario in corpus.scenarios]
        found = survey(watched, named, repeat=args.repeat, progress=say)
    kept = choose(corpus, found)
    # Nobody knows what a scenario would have reached at which the machine was lost.
    names = [one.name for one in kept] + sorted(found.lost)
    _copy(names, args.out)
    facts: dict[str, object] = {
        **subject_of(watched),
        "scenarios": len(corpus.scenarios),
        "kept": len(kept),
        "lost": dict(found.lost),
        "invalid_files": len(corpus.invalid),
        "noise": len(found.noise),
        "reached": count_goals(found.covered),
        "reached_by_kept": count_goals(kept),
        "out": str(args.out),
    }
    print(json.dumps(facts, indent=1) if args.json else _text(facts))
    return FAILED if found.lost else OK


def choose(corpus: Corpus, found: Survey) -> tuple[Covered, ...]:
    """Return what is kept of a corpus that was measured, the simplest first; nothing is kept for noise."""
    scenarios = {str(path): scenario for path, scenario in corpus.scenarios}
    return minimise_corpus(
        found.covered, lambda one: one.goals - found.noise, lambda one: (order(scenarios[one.name]), one.name)
    )


def _make_room(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise InputError(str(out), None, "is not empty: expected a directory that is new or empty")
    except OSError as error:
        raise InputError(str(out), None, f"cannot be written to: {error.strerror}") from error


def _copy(names: Sequence[str], out: Path) -> None:
    """Copy files; two of one name get a number."""
    for name in names:
        source = Path(name)
        place, number = out / source.name, 2
        while place.exists():
            place, number = out / f"{source.stem}-{number}{source.suffix}", number + 1
        shutil.copyfile(source, place)


def _text(facts: dict[str, object]) -> str:
    reached, kept = facts["reached"], facts["reached_by_kept"]
    assert isinstance(reached, dict) and isinstance(kept, dict) and isinstance(facts["lost"], dict)
    lines = [f"{facts['kept']} of {facts['scenarios']} scenarios kept in {facts['out']}"]
    lines += [f"{name}: {kept[name]} of {count}" for name, count in reached.items()]
    lines.append(f"noise, for which nothing was kept: {facts['noise']}")
    lines += [f"machine lost at {name} (copied, too): {why}" for name, why in facts["lost"].items()]
    return "\n".join(lines)
