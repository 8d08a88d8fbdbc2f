# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz record``: every world switch of a program that uses /dev/kvm, to a file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fuzz.campaign.parent import until_signal
from fuzz.cli.options import Subparsers, add_kernel, add_number, add_target
from fuzz.cli.progress import progress_printer, say
from fuzz.targets.record_program import (
    LinuxGuest,
    RecordOptions,
    check_guest,
    named_files,
    record_program,
    recording_json,
    recording_text,
)
from harness.errors import InputError
from harness.vm.recorder import RING_MIB

_say = progress_printer("record")

GUEST_WORDS = "console=ttyAMA0 panic=-1"
GUEST_MIB = 256
"""RAM of the Linux guest.  Half of it is enough up to 6.12; 7.3 runs out of memory before user space."""


EPILOG = """\
examples:
  shadowfuzz record --linux --out boot.trace
      boot the target's own kernel as a guest, to user space, and power it off
  shadowfuzz record --linux --cpus 2 --words "console=ttyAMA0 quiet" --target kvm-vhe --out smp.trace
      with two vCPUs, on a VHE host
  aarch64-linux-gnu-gcc -static -o vmm vmm.c && shadowfuzz record --out vmm.trace vmm --flag image
      a program of your own; options of record come before it
  shadowfuzz check boot.trace; shadowfuzz distil boot.trace --out seeds
      compare the recording with the model, or make scenarios from it

The program's output goes to stderr.  docs/recording.md has the file format.

Ctrl-C stops the recording.  TRACE then holds what was recorded so far, also if the target is lost.

exit status: 0 recorded (with any exit status of the program), 2 bad usage or input, 3 something is missing here, the
target was lost, records were lost, or the Linux guest ended before user space, 130 interrupted
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``record``; it sets `run`, which takes the arguments and returns the exit status."""
    parser = subparsers.add_parser(
        "record",
        help="record every world switch of a program that uses /dev/kvm",
        description="Run a static arm64 program, or a Linux guest, in a target and record every world switch.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "program", nargs=argparse.REMAINDER, metavar="PROGRAM [ARG...]", help="the program to run, and its arguments"
    )
    parser.add_argument("--linux", action="store_true", help="boot the target's kernel as a guest instead of PROGRAM")
    parser.add_argument("--out", required=True, type=Path, metavar="TRACE", help="the file to write")
    add_target(parser)
    add_kernel(parser)
    add_number(parser, "--smp", 1, "CPUs of the target", most=8)
    parser.add_argument(
        "--file", action="append", default=[], metavar="[NAME=]PATH", help="a file that PROGRAM finds in its directory"
    )
    add_number(parser, "--seconds", 300, "stop recording then")
    add_number(parser, "--ring", RING_MIB, "room for records", most=256, unit="MIB")
    add_number(parser, "--cpus", 1, "of the Linux guest", most=8)
    add_number(parser, "--memory", GUEST_MIB, "of the Linux guest", 64, 256, unit="MIB")
    parser.add_argument("--words", default=GUEST_WORDS, metavar="TEXT", help=f"its command line ({GUEST_WORDS!r})")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(run=run_record)


def run_record(args: argparse.Namespace) -> int:
    """Record and print how it went; errors are raised for the caller to show."""
    if bool(args.program) == args.linux:
        raise InputError("record", None, "expected either --linux or a program")
    if not args.out.parent.is_dir():
        raise InputError(str(args.out), None, "its directory does not exist")
    options = RecordOptions(
        *(args.target, args.out, args.seconds, args.ring),
        program=tuple(args.program),
        files={} if args.linux else named_files(args.file),
        guest=LinuxGuest(args.cpus, args.memory, args.words) if args.linux else None,
        kernel=args.kernel,
        smp=args.smp,
    )
    with until_signal() as stopped:
        done = record_program(options, stopped, _say, lambda line: say(f"  | {line}"))
        interrupted = stopped()
    size = args.out.stat().st_size
    print(
        json.dumps(recording_json(args.out, size, done), indent=1)
        if args.json
        else recording_text(args.out, size, done)
    )
    if done.lost is not None:
        raise done.lost
    if interrupted:
        raise KeyboardInterrupt
    check_guest(options, done)
    return 3 if done.end.dropped else 0
