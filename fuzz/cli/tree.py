# SPDX-License-Identifier: Apache-2.0
"""The table of all commands; a command is imported when it is called or its help is shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from fuzz.cli.declare import Args, Group, Row, Run, Table

MAX_WIDTH = 102
"""Width of the help in columns; two of them stay empty."""
DESCRIPTION = "Trace-driven differential fuzzer for real KVM on AArch64, against SeKVM's verified vCPU layer."
EPILOG = """\
examples:
  shadowfuzz setup --all-targets            fetch kernels, build the recording module and the guest
  shadowfuzz doctor                         report what is installed, what is missing, how to get it
  shadowfuzz fuzz --seconds 60 --jobs 2     search for scenarios in which KVM and the model differ
  shadowfuzz replay corpus/seeds            run scenario files, show each difference side by side
  shadowfuzz lint FILE                      check a scenario without a VM: errors, and what is probably not intended
  shadowfuzz minimise FILE                  write the simplest scenario that shows the same divergence
  shadowfuzz confirm FILE                   measure the reproduction rate, print a verdict
  shadowfuzz triage                         minimise and confirm all findings of a campaign
  shadowfuzz findings                       list findings; show, export or mark one
  shadowfuzz report --out report.html       write them as one HTML page (report serve: live)
  shadowfuzz kernels list                   list every kernel release that can be a target
  shadowfuzz ci --tree DIR                  show what a patch of your own changes in behaviour
  shadowfuzz recording record --linux --out TRACE
                                            record every world switch of a Linux guest or a program
  shadowfuzz corpus coverage                show what a corpus reaches of KVM's own code and the model
  shadowfuzz lemma --seconds 60             compare the model's levels with each other, without a VM
  shadowfuzz bench                          measure exits per second: raw, recorded, checked

`shadowfuzz COMMAND --help` has the details.  Completion: eval "$(_SHADOWFUZZ_COMPLETE=bash_source shadowfuzz)", or
zsh_source, fish_source.

exit status: 0 nothing unexplained, 1 an unexplained divergence, an expected value that was not seen or an alarm, 2 bad
usage or input, 3 something is missing here or a target was lost, 130 interrupted, 141 standard output was closed
"""

COMMANDS = Table(
    {
        "Set up": (
            Row("setup", "fuzz.cli.setup:setup", "fetch kernels; build the recording module and the guest image"),
            Row("doctor", "fuzz.cli.setup:doctor", "report what is installed, what is missing, and how to get it"),
        ),
        "Search": (
            Row("fuzz", "fuzz.cli.fuzz:command", "search for scenarios in which real KVM and the model differ"),
            Row("replay", "fuzz.cli.replay:command", "run scenario files on real KVM and show the differences"),
            Row("lint", "fuzz.cli.lint:command", "check scenario files without a VM"),
        ),
        "Findings": (
            Row("minimise", "fuzz.cli.minimise:command", "make the scenario of a finding as simple as possible"),
            Row(
                "confirm",
                "fuzz.cli.confirm:command",
                "measure the reproduction rate, compare with every model level, print a verdict",
            ),
            Row("triage", "fuzz.cli.triage:command", "minimise and confirm all findings of a campaign"),
            Row("findings", "fuzz.cli.tree:FINDINGS", "list the findings of a campaign; show, export or mark one"),
            Row("report", "fuzz.cli.tree:REPORT", "write all findings as one HTML file, or serve them"),
        ),
        "Kernels": (
            Row("kernels", "fuzz.cli.tree:KERNELS", "list and fetch kernels; compare them, bisect between them"),
            Row(
                "ci",
                "fuzz.cli.ci:command",
                "show the changes of a kernel: run the corpus and a short campaign, compare with a base",
            ),
        ),
        "Recordings and corpora": (
            Row("recording", "fuzz.cli.tree:RECORDING", "record programs that use /dev/kvm; check, distil recordings"),
            Row(
                "corpus",
                "fuzz.cli.tree:CORPUS",
                "measure the coverage of a corpus; minimise it with the same coverage",
            ),
        ),
        "The model and the tool itself": (
            Row("lemma", "fuzz.cli.lemma:command", "fuzz the model's levels against each other, or prove them equal"),
            Row("bench", "fuzz.cli.tree:BENCH", "measure exits per second; compare the modes of guidance"),
        ),
    },
    old=(
        Row("serve", "fuzz.cli.report:serve", "report serve"),
        Row("export", "fuzz.cli.export:old_command", "findings export"),
        Row("matrix", "fuzz.cli.matrix:command", "kernels matrix"),
        Row("bisect", "fuzz.cli.bisect:command", "kernels bisect"),
        Row("against", "fuzz.cli.against:command", "kernels against"),
        Row("record", "fuzz.cli.record:command", "recording record"),
        Row("check", "fuzz.cli.check:command", "recording check"),
        Row("distil", "fuzz.cli.distil:command", "recording distil"),
        Row("coverage", "fuzz.cli.coverage:command", "corpus coverage"),
        Row("reach", "fuzz.cli.reach:command", "corpus reach"),
        Row("cmin", "fuzz.cli.cmin:old_command", "corpus cmin"),
        Row("coverage-trial", "fuzz.cli.trial:command", "bench trial"),
    ),
)
"""The commands of ``shadowfuzz``; ``old`` are the names of version 0.1, kept for one release."""


def _group(name: str, rows: tuple[Row, ...], about: str, examples: str, default: str = "") -> Group:
    """Return a group of commands; ``default`` is the command that runs if none is named."""
    status = f"exit status: that of the command; `shadowfuzz {name} COMMAND --help` has it"
    table = Table({"Commands": rows}, default=default)
    return Group(name, table, help=about, epilog=f"examples:\n{examples}\n{status}\n")


FINDINGS = _group(
    "findings",
    (
        Row("list", "fuzz.cli.findings:list_command", "list the problems, and the errata that occurred again"),
        Row("show", "fuzz.cli.findings:show_command", "show one finding in full"),
        Row("set", "fuzz.cli.finding_marks:set_command", "store a status and a note of a finding"),
        Row("open", "fuzz.cli.finding_marks:open_command", "show all findings as a page in the browser"),
        Row("export", "fuzz.cli.export:command", "write a finding as a scenario, C program, mail or KVM selftest"),
    ),
    "List the findings of a campaign; show, export or mark one.  Without a command: list.",
    """\
  shadowfuzz findings
      list the problems of out/campaign (new findings, grouped by probable cause), and the errata that occurred again
  shadowfuzz findings show d47d8f
      show one finding in full
  shadowfuzz findings export d47d8f --out handover
      write it as files to hand over

An id may be shortened: give its beginning, with or without the kind.
""",
    default="list",
)
REPORT = _group(
    "report",
    (
        Row("write", "fuzz.cli.report:write", "write all findings as one HTML file"),
        Row("serve", "fuzz.cli.report:serve", "serve the report live on 127.0.0.1"),
    ),
    "Write the findings and runs of a campaign as one page, or serve it.  Without a command: write.",
    """\
  shadowfuzz report --out report.html
      write the findings of out/campaign as one file
  shadowfuzz report serve
      serve the same page to the browser, updated when the database changes
""",
    default="write",
)
KERNELS = _group(
    "kernels",
    (
        Row("list", "fuzz.cli.kernels:list_command", "list the kernels of the archive, and those in the cache"),
        Row("fetch", "fuzz.cli.kernels:fetch_command", "fetch kernels with their headers"),
        Row("config", "fuzz.cli.kernels:config_command", "print the configuration that a kernel of your own needs"),
        Row("matrix", "fuzz.cli.matrix:command", "run scenarios on many targets, one verdict per cell"),
        Row(
            "bisect",
            "fuzz.cli.bisect:command",
            "find the neighbouring kernels between which a finding appears or disappears",
        ),
        Row(
            "against",
            "fuzz.cli.against:command",
            "compare two releases: differences between two targets' traces of a scenario",
        ),
    ),
    "List and fetch the arm64 cloud kernels of Debian's archive, and compare results of scenarios on them.",
    """\
  shadowfuzz kernels list
      list every kernel that can be a target
  shadowfuzz kernels fetch 7.3 && shadowfuzz replay corpus/seeds --target kvm-nvhe@7.3
      fetch one, and run scenarios on it
  shadowfuzz kernels bisect finding.scn
      find the neighbouring kernels between which a finding appears or disappears
""",
)
RECORDING = _group(
    "recording",
    (
        Row("record", "fuzz.cli.record:command", "record every world switch of a program that uses /dev/kvm"),
        Row("check", "fuzz.cli.check:command", "compare recordings of whole programs with the model, offline"),
        Row("distil", "fuzz.cli.distil:command", "make scenarios from a recording"),
    ),
    "Record programs that use /dev/kvm, compare recordings with the model, make scenarios from them.",
    """\
  shadowfuzz recording record --linux --out boot.trace
      record the boot of a Linux guest
  shadowfuzz recording check boot.trace
      compare it with the model
  shadowfuzz recording distil boot.trace --out seeds
      make scenarios from it
""",
)
CORPUS = _group(
    "corpus",
    (
        Row("coverage", "fuzz.cli.coverage:command", "show what a corpus reaches of KVM's code and the model"),
        Row("reach", "fuzz.cli.reach:command", "count steps by exits by relations by targets"),
        Row("cmin", "fuzz.cli.cmin:command", "select fewer, simpler scenarios with the same coverage"),
    ),
    "Measure what scenarios reach, and make a corpus smaller.",
    """\
  shadowfuzz corpus coverage out/campaign/corpus
      show what a campaign reached of KVM's own code
  shadowfuzz corpus reach
      count which steps, exits and relations the project's scenarios exercise
  shadowfuzz corpus cmin out/campaign/corpus --out out/small
      keep fewer scenarios with the same coverage
""",
)
BENCH = _group(
    "bench",
    (
        Row("exits", "fuzz.cli.bench:command", "measure exits per second: raw, recorded, checked"),
        Row("compare", "fuzz.cli.bench_compare:command", "compare variants of this program, interleaved"),
        Row("trial", "fuzz.cli.trial:command", "compare the modes of guidance; write a page and a plot"),
    ),
    "Measure the speed of the fuzzer, and the benefit of guidance by coverage.  Without a command: exits.",
    """\
  shadowfuzz bench --quick
      measure the rates of the three modes, two seconds each
  shadowfuzz bench compare pure compiled
      measure what the compiled checker gains
  shadowfuzz bench trial --runs 5 --seconds 60 --out docs
      compare campaigns with and without guidance by KVM's code
""",
    default="exits",
)
GROUPS = (FINDINGS, REPORT, KERNELS, RECORDING, CORPUS, BENCH)


def leaves() -> Iterator[tuple[str, Row, click.Command]]:
    """Yield every shown command: its words after ``shadowfuzz``, its row, the command itself."""
    for words, row, found in _below((), COMMANDS):
        yield " ".join(words), row, found


def _below(words: tuple[str, ...], table: Table) -> Iterator[tuple[tuple[str, ...], Row, click.Command]]:
    for row in (row for section in table.sections.values() for row in section):
        found, here = row.load(), (*words, row.name)
        if isinstance(found, Group):
            yield from _below(here, found.table)
        else:
            yield here, row, found


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version  # its import is slow, and needed here only

        click.echo(f"shadowfuzz {version('shadowfuzz')}", color=ctx.color)
        ctx.exit()


ROOT = Group(
    "shadowfuzz",
    COMMANDS,
    help=DESCRIPTION,
    epilog=EPILOG,
    params=[
        click.Option(
            ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version, help="print the version"
        )
    ],
)


def context_of(argv: Sequence[str], execute: Callable[[Run, Args], Any]) -> click.Context:
    """Return the context of a command line; ``execute`` is called with the command's function and its values."""
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return ROOT.make_context(
        "shadowfuzz",
        list(argv),
        obj=execute,
        color=False if plain else None,
        max_content_width=MAX_WIDTH,
        help_option_names=["-h", "--help"],
    )
