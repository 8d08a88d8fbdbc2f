# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz findings``: what campaigns found, as a list, one by one, or for machines."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator, Sequence

from fuzz.cli.options import Subparsers, add_campaign
from fuzz.cli.output import style_of
from fuzz.store.kept_findings import find, open_database, stories
from fuzz.triage.report_page import write_report
from harness.errors import InputError
from harness.findings.regressions import NEW, likeness, new_text
from harness.findings.release_history import sentences
from harness.findings.verdict import rate_text, together, verdict_lines
from harness.report import crash, exchange_formats, terminal
from harness.report.finding_data import Group, Story, groups, replay_command
from harness.report.glossary import in_words
from harness.report.terminal import Style, printable
from harness.report.trace_text import trace_lines
from harness.scenario.scenario import format_scenario

EPILOG = """\
examples:
  shadowfuzz findings
      the clusters of out/campaign: how often, new or not, verdict, where, what
  shadowfuzz findings --new
      only those that are like no kept regression (corpus/regressions/expected.toml) on their target: a night's news
  shadowfuzz findings show d47d8f
      one finding in full: its scenario, what differs side by side, the verdict and what it rests on
  shadowfuzz findings list --out out/vhe --format sarif > findings.sarif
      for machines: json, junit, sarif
  shadowfuzz findings open
      all of it as a page in the browser (`shadowfuzz report` writes the file only)

An id may be shortened, with or without its kind.  `like A`: the kept regression A shows the same relation, register
class, exit class and helper on this target; the cause may be another one all the same.

exit status: 0 no findings (list), shown or opened, 1 there are confirmed findings (list; with --new: new ones), 2 bad
usage or input
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``findings``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "findings",
        help="list and show what campaigns found",
        description="List the findings of a campaign's directory or database, or show one of them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", nargs="?", choices=("list", "show", "open"), default="list", help="(list)")
    parser.add_argument("id", nargs="?", metavar="ID", help="which one to show")
    add_campaign(parser)
    parser.add_argument("--format", choices=("text", "json", "junit", "sarif"), default="text", help="(text)")
    parser.add_argument("--new", action="store_true", help="list: only what is like no kept regression")
    parser.add_argument("--trace", action="store_true", help="show: print each recorded event as well")
    parser.set_defaults(run=run_findings)


def run_findings(args: argparse.Namespace) -> int:
    """List or show; errors are raised for the caller to show."""
    if (args.action == "show") != (args.id is not None):
        raise InputError("findings", None, "`show` takes an id, `list` and `open` take none")
    if args.new and args.action != "list":
        raise InputError("--new", None, "only `list` takes it")
    database = open_database(args.out, args.store)
    if args.action == "open":
        return write_report(database, args.out, args.out / "report.html", show=True)
    found = (find(database, args.id),) if args.id else stories(database)
    if args.new:
        found = tuple(story for story in found if not story.like)
    style = style_of(sys.stdout, os.environ)
    if args.format != "text":
        print(machine(found, args.format), end="")
    elif args.id:
        print("\n".join(show(found[0], style, str(args.out), trace=args.trace)))
    else:
        print("\n".join(overview(found, style, "new findings" if args.new else "findings")))
    return 0 if args.id or not any(story.kept.confirmed for story in found) else 1


def machine(found: Sequence[Story], form: str) -> str:
    """Return findings in a format for machines."""
    if form == "junit":
        return exchange_formats.junit(found)
    version = importlib.metadata.version("shadowfuzz")
    data = exchange_formats.sarif(found, version) if form == "sarif" else exchange_formats.findings_json(found)
    return json.dumps(data, indent=1) + "\n"


def overview(found: Sequence[Story], style: Style, what: str = "findings") -> Iterator[str]:
    """Yield a line for each cluster, then one for each of its findings; ``what`` they are called if there are none."""
    confirmed = groups(story for story in found if story.kept.confirmed)
    flaky = groups(story for story in found if not story.kept.confirmed)
    if not found:
        yield f"no {what}"
    for title, some in (("confirmed", confirmed), ("flaky: did not come back when run again", flaky)):
        if some:
            many = f"{len(some)} {'cluster' if len(some) == 1 else 'clusters'} "
            news = f", {new_text(sum(group.new for group in some))}"
            yield style.paint("bold", f"{many}{title}{news}" if some is confirmed else title)
        for group in some:
            yield from _group(group, style)


def _group(group: Group, style: Style) -> Iterator[str]:
    verdicts = ", ".join(dict.fromkeys(story.verdict.name for story in group.stories))
    head = f"{group.count:6}x  {NEW if group.new else '':3}  {verdicts:12} {printable(group.name)}"
    yield style.paint("red" if verdicts in ("kvm", "crash") else "yellow", head)
    for story in group.stories:
        kernel = story.kept.finding.subject
        where = f"{kernel.target}, Linux {kernel.kernel_release}"
        yield style.paint("dim", f"         {story.id}  {where}, {likeness(story.like)}")
        yield f"         {printable(story.title)}"


def show(story: Story, style: Style, out: str, *, trace: bool = False) -> Iterator[str]:
    """Yield one finding in full."""
    kept, finding = story.kept, story.kept.finding
    subject = finding.subject
    yield style.paint("bold", f"{story.id}: {printable(story.title)}")
    if words := in_words(finding):
        yield f"  {printable(words)}"
    yield f"  seen on   {subject.target}, Linux {subject.kernel_release}, level {subject.level}"
    if finding.other is not None:
        yield f"  against   {finding.other.target}, Linux {finding.other.kernel_release}"
    yield f"  seen      {kept.count} times, first {finding.first_seen}, last {kept.last_seen}"
    if story.like:
        yield f"  like      {', '.join(story.like)}: the same signature, which does not prove the same cause"
    else:
        yield f"  new       no kept regression shows this signature on {finding.where}"
    if story.evidence is None:
        yield f"  verdict {story.verdict.name}: {story.verdict.why}"
    else:
        yield from (f"  {line}" for line in verdict_lines(story.verdict, story.evidence))
        yield f"  reproduced {rate_text(together(story.evidence.stages))}"
    if story.crash is not None:
        yield from (f"  {name:13} {printable(words)}" for name, words in crash.facts(story.crash))
    yield from (f"  releases  {sentence}" for sentence in sentences(kept.history))
    yield f"  replay    {replay_command(kept, out, story.crash)}"
    if kept.scenario is not None:
        yield style.paint("bold", "scenario")
        yield from (f"    {line}" for line in format_scenario(kept.scenario).splitlines())
    if story.ran is not None:
        yield style.paint("bold", "what differs")
        yield from terminal.sites(story.ran, subject.level, style)
        if trace:
            yield style.paint("bold", "trace")
            yield from trace_lines(story.ran.trace)
    if finding.other is not None:
        yield style.paint("bold", "what differs, on the one and on the other")
        yield from (f"    {d.register} at {d.exit_class}: {d.expected} and {d.observed}" for d in finding.divergences)
    if story.crash is not None and story.crash.remains.registers:
        yield style.paint("bold", "registers")
        yield from (f"    {line}" for line in crash.register_lines(story.crash))
    for name, text in kept.texts.items():
        yield style.paint("bold", name)
        yield from (f"    | {printable(line)}" for line in text.splitlines())
