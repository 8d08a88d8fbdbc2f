# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz recording record``: record every world switch of a program that uses /dev/kvm in a file."""

from __future__ import annotations

import click

from fuzz.cli.declare import Args, declare, flag, option
from fuzz.cli.options import json_flag, kernel, number, out_file, target
from fuzz.cli.output import print_json
from fuzz.cli.progress import progress_printer, say
from harness.errors import InputError
from harness.exit_status import ExitStatus
from harness.protocol import RING_MIB

_say = progress_printer("record")

GUEST_WORDS = "console=ttyAMA0 panic=-1"
GUEST_MIB = 256
"""RAM of the Linux guest.  Half of it is enough up to 6.12; 7.3 runs out of memory before user space."""


EPILOG = """\
examples:
  shadowfuzz recording record --linux --out boot.trace
      boot the target's own kernel as a guest, to user space, and power it off
  shadowfuzz recording record --linux --cpus 2 --words "console=ttyAMA0 quiet" --target kvm-vhe --out smp.trace
      with two vCPUs, on a VHE host
  aarch64-linux-gnu-gcc -static -o vmm vmm.c && shadowfuzz recording record --out vmm.trace vmm --flag image
      a program of your own; options of record come before it
  shadowfuzz recording check boot.trace; shadowfuzz recording distil boot.trace --out seeds
      compare the recording with the model, or make scenarios from it

The program's output goes to stderr.  docs/recording.md has the file format.

Ctrl-C stops the recording.  TRACE then has all records so far, also if the target is lost.

exit status: 0 recorded (with any exit status of the program), 2 bad usage or input, 3 something is missing here, the
target was lost, records were lost, or the Linux guest ended before user space, 130 interrupted
"""


@declare(
    "record",
    "Run a static arm64 program, or a Linux guest, in a target and record every world switch.",
    EPILOG,
    rest=True,
)
@click.argument(
    "program",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="[PROGRAM [ARG...]]",
    help="the program to run, and its arguments",
)
@flag("--linux", help="boot the target's kernel as a guest instead of PROGRAM")
@out_file("--out", "the file to write", metavar="TRACE", required=True)
@target
@kernel
@number("--smp", 1, "CPUs of the target", most=8)
@option("--file", multiple=True, metavar="[NAME=]PATH", help="a file to put into PROGRAM's directory")
@number("--seconds", 300, "stop recording after this time")
@number("--ring", RING_MIB, "room for records", most=256, unit="MIB")
@number("--cpus", 1, "of the Linux guest", most=8)
@number("--memory", GUEST_MIB, "of the Linux guest", 64, 256, unit="MIB")
@option("--words", type=str, default=GUEST_WORDS, metavar="TEXT", help=f"its command line ({GUEST_WORDS!r})")
@json_flag
def command(args: Args) -> int:
    """Record and print the result; raise errors for the caller to show."""
    from fuzz.campaign.parent import until_signal
    from fuzz.targets.record_program import (
        LinuxGuest,
        RecordOptions,
        check_guest,
        named_files,
        record_program,
        recording_json,
        recording_text,
    )

    if bool(args.program) == args.linux:
        raise InputError("record", None, "expected either --linux or a program")
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
    if args.json:
        print_json("recording record", recording_json(args.out, size, done))
    else:
        print(recording_text(args.out, size, done))
    if done.lost is not None:
        raise done.lost
    if interrupted:
        raise KeyboardInterrupt
    check_guest(options, done)
    return ExitStatus.FAILED if done.end.dropped else ExitStatus.OK
