# SPDX-License-Identifier: Apache-2.0
"""The ``shadowfuzz`` command: the one place where an error becomes a line on stderr and an exit status."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NoReturn

from fuzz.cli import (
    against,
    bench,
    bisect,
    check,
    ci,
    cmin,
    confirm,
    coverage,
    distil,
    export,
    findings,
    fuzz,
    kernels,
    lemma,
    matrix,
    minimise,
    reach,
    record,
    replay,
    report,
    setup,
    triage,
    trial,
)
from fuzz.cli.options import settle_targets
from harness.errors import InputError, ShadowfuzzError, VmLost

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

OK, DIVERGENT, USAGE, FAILED, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 130, 141
"""What the process returns; the last two are a shell's numbers for SIGINT and SIGPIPE."""

DESCRIPTION = "Trace-driven differential fuzzer for real KVM on AArch64, against SeKVM's verified vCPU layer."
EPILOG = """\
examples:
  shadowfuzz setup --all-targets            fetch kernels, build the recording module and the guest
  shadowfuzz doctor                         report what is installed, what is missing, how to get it
  shadowfuzz replay corpus/seeds            run scenario files, show each difference side by side
  shadowfuzz fuzz --seconds 60 --jobs 2     search for scenarios in which KVM and the model differ
  shadowfuzz minimise FILE                  write the simplest scenario that shows the same divergence
  shadowfuzz confirm FILE                   measure the reproduction rate, print a verdict
  shadowfuzz triage                         minimise and confirm all findings of a campaign
  shadowfuzz findings                       list findings: list, show ID, JSON, JUnit, SARIF
  shadowfuzz report --out report.html       write them as one HTML page (serve: live, on this machine)
  shadowfuzz export ID                      write a finding as a scenario and a standalone C program
  shadowfuzz lemma --seconds 60             compare the model's levels with each other, without a VM
  shadowfuzz record --linux --out TRACE     record every world switch of a Linux guest or a program
  shadowfuzz check TRACE                    compare the recording with the model, without a VM
  shadowfuzz distil TRACE --out DIR         make scenarios from what the recorded program did
  shadowfuzz bench                          measure exits per second: raw, recorded, checked
  shadowfuzz coverage                       show what a corpus reaches of KVM's own code and the model
  shadowfuzz reach                          count which steps, exits and relations a corpus exercises
  shadowfuzz cmin DIR OUT                   keep fewer, simpler scenarios with the same coverage
  shadowfuzz coverage-trial                 compare campaigns with and without guidance by KVM's code
  shadowfuzz kernels list                   list every kernel release that can be a target
  shadowfuzz matrix corpus/regressions      run scenarios on many releases, print a table
  shadowfuzz bisect FILE                    find the releases between which a finding changes
  shadowfuzz against TARGET TARGET FILE     compare two releases, without any model
  shadowfuzz ci --tree DIR                  show what a patch of your own changes in behaviour

`shadowfuzz COMMAND --help` has the details.

exit status: 0 nothing unexplained, 1 an unexplained divergence, 2 bad usage or input, 3 something is missing here or
a target was lost, 130 interrupted, 141 standard output was closed
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and whose help does not pretend to have been written."""

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        (sys.stdout if file is None else file).write(self.format_help())  # argparse's own ignores a full disk

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {one_line(message)} (see {self.prog} --help)\n")


def one_line(text: str) -> str:
    """Return text as one line that a terminal can be shown: control characters escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


BISECT: Mapping[int, int] = MappingProxyType({USAGE: 128, FAILED: 125})
"""With ``replay --bisect``, what git-bisect(1) understands: it takes 2 and 3 for bad commits."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status; nothing is raised for what input, disk or VM can cause."""
    status = _main(argv)
    # Not from the parsed arguments: there are none if they are wrong, which must not make a commit bad.
    bisecting = "--bisect" in (sys.argv[1:] if argv is None else argv)
    return BISECT.get(status, status) if bisecting else status


def _main(argv: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name need not be text
    try:
        status = _run(argv)
        sys.stdout.flush()  # here, where a full disk can still be reported
    except BrokenPipeError:
        _drop_stdout()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except InputError as error:
        return _fail(str(error), USAGE)
    except ShadowfuzzError as error:  # SetupError, TargetError
        return _fail(str(error), FAILED, error.console_tail if isinstance(error, VmLost) else "")
    except OSError as error:
        _drop_stdout()
        what = error.strerror or str(error)
        return _fail(what if error.filename is None else f"{error.filename}: {what}", FAILED)
    return status


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse: --help, --version, bad usage
        return stop.code if isinstance(stop.code, int) else OK
    settle_targets(args)
    status: int = args.run(args)
    return status


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every subcommand; each sets `run`."""
    parser: argparse.ArgumentParser = _Parser(
        prog="shadowfuzz",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"shadowfuzz {importlib.metadata.version('shadowfuzz')}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    setup.add_parsers(subparsers)
    report.add_parsers(subparsers)
    commands = (
        replay,
        fuzz,
        minimise,
        confirm,
        triage,
        findings,
        export,
        lemma,
        bench,
        coverage,
        reach,
        cmin,
        trial,
        kernels,
        matrix,
        bisect,
        against,
        ci,
        record,
        check,
        distil,
    )
    for command in commands:
        command.add_parser(subparsers)
    return parser


def _fail(message: str, status: int, tail: str = "") -> int:
    lines = [f"shadowfuzz: {one_line(message)}", *(f"    {one_line(line)}" for line in tail.splitlines())]
    with contextlib.suppress(OSError):  # else the error cannot be shown
        print("\n".join(lines), file=sys.stderr, flush=True)
    return status


def _drop_stdout() -> None:
    """Let nothing more be written: what is buffered would fail again at exit, with a traceback."""
    with contextlib.suppress(OSError, ValueError):  # not a file (a test's stand-in), or closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
