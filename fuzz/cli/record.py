# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz record``: every world switch of a program that uses /dev/kvm, to a file."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from fuzz.campaign.parent import until_signal
from fuzz.cli.options import TARGET_HELP, Subparsers, add_number
from fuzz.cli.progress import progress_printer, say
from harness.errors import InputError, VmLost
from harness.report.recording import end_text
from harness.report.terminal import printable
from harness.vm.build.prepare import prepare
from harness.vm.build.programs import GUEST_LINE, build_programs, linux_guest, read_program
from harness.vm.config import DEFAULT_TARGET, load_config
from harness.vm.recorder import RING_MIB, Done, Tick, record

_say = progress_printer("record")

PROGRESS_SECONDS = 2.0
GUEST_WORDS = "console=ttyAMA0 panic=-1"
GUEST_MIB = 256
"""RAM of the Linux guest.  Half of it is enough up to 6.12; 7.3 runs out of memory before user space."""

EPILOG = """\
examples:
  shadowfuzz record --linux --out boot.trace
      boot the target's own kernel as a guest, to user space and off again
  shadowfuzz record --linux --cpus 2 --words "console=ttyAMA0 quiet" --target kvm-vhe --out smp.trace
      with two vCPUs, on a VHE host
  aarch64-linux-gnu-gcc -static -o vmm vmm.c && shadowfuzz record --out vmm.trace vmm --flag image
      a program of your own; options of record come before it
  shadowfuzz check boot.trace; shadowfuzz distil boot.trace --out seeds
      then compare it with the model, or make scenarios of it

what the program prints goes to stderr; docs/recording.md has the file format

Ctrl-C stops the recording; then, and if the target is lost, TRACE holds what was recorded until then

exit status: 0 recorded (whatever the program's own status was), 2 bad usage or input, 3 something is missing here, the
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
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="PROGRAM [ARG...]", help="what to run")
    parser.add_argument("--linux", action="store_true", help="boot the target's kernel as a guest, in place of PROGRAM")
    parser.add_argument("--out", required=True, type=Path, metavar="TRACE", help="the file to write")
    parser.add_argument("--target", default=DEFAULT_TARGET, metavar="NAME", help=f"{TARGET_HELP} ({DEFAULT_TARGET})")
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
    config = load_config(args.target)
    program = None if args.linux else read_program(Path(args.program[0]), tuple(args.program[1:]), _files(args.file))
    prepared = prepare(config, progress=_say)
    built = build_programs(_say)
    if program is None:
        program = linux_guest(prepared, built, cpus=args.cpus, memory_mib=args.memory, words=args.words)
    _say(f"{config.name}: booting, then {printable(program.title)}")
    progress = _Progress()
    with until_signal() as stopped:
        done = record(
            config,
            prepared,
            program,
            built,
            args.out,
            seconds=args.seconds,
            ring_mib=args.ring,
            tick=progress.tick,
            stopped=stopped,
        )
        interrupted = stopped()
    progress.end()
    size = args.out.stat().st_size
    print(json.dumps(_json(args.out, size, done), indent=1) if args.json else _text(args.out, size, done))
    if done.lost is not None:
        raise done.lost
    if interrupted:
        raise KeyboardInterrupt
    if args.linux and done.end.status == "exited" and GUEST_LINE not in done.console:
        raise VmLost(config.name, "the Linux guest ended before user space", done.console)
    return 3 if done.end.dropped else 0


def _files(items: list[str]) -> Mapping[str, Path]:
    files: dict[str, Path] = {}
    for item in items:
        name, equals, path = item.partition("=")
        where = Path(path if equals else item)
        name = name if equals else where.name
        if not name or "/" in name or name in files:
            raise InputError(item, None, "expected NAME=PATH or PATH, each name once and without a slash")
        files[name] = where
    return files


class _Progress:
    """Shows what the machine prints as it comes, and now and then how far the recording is."""

    def __init__(self) -> None:
        self._begin = self._shown = time.monotonic()
        self._before: Mapping[str, int] = {}
        self._rest = ""

    def tick(self, tick: Tick) -> None:
        """Show what is new; a line that is not finished waits."""
        *lines, self._rest = (self._rest + tick.printed.replace("\r", "")).split("\n")
        for line in lines:
            say(f"  | {printable(line)}")
        now = time.monotonic()
        if now - self._shown > PROGRESS_SECONDS:
            new = Counter(tick.exits) - Counter(self._before)
            rate = f"{new.total() / (now - self._shown):.0f} exits a second"
            often = ", ".join(f"{name} {100 * count // new.total()} %" for name, count in new.most_common(3))
            total = sum(tick.exits.values())
            _say(f"{now - self._begin:.0f} s, {total} exits, now {rate}{f' ({often})' if often else ''}")
            self._shown, self._before = now, dict(tick.exits)

    def end(self) -> None:
        """Show the line that was never finished."""
        if self._rest:
            say(f"  | {printable(self._rest)}")


def _text(out: Path, size: int, done: Done) -> str:
    end = done.end
    each = f", {size / end.exits:.1f} an exit" if end.exits else ""
    lines = [
        f"{out}: {end.records} records, {end.exits} exits, {size} bytes{each}, {done.seconds:.1f} s",
        f"the program {end_text(end)}",
    ]
    if end.dropped:
        lines.append(f"{end.dropped} records are missing: they could not be told apart or read")
    if end.waits:
        lines.append(f"the target waited {end.waits} times for room (--ring)")
    return "\n".join(lines)


def _json(out: Path, size: int, done: Done) -> dict[str, object]:
    return {
        "file": str(out),
        "bytes": size,
        "seconds": round(done.seconds, 3),
        "end": asdict(done.end),
        "console": done.console.splitlines(),
    }
