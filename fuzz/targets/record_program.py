# SPDX-License-Identifier: Apache-2.0
"""Record a program, or a Linux guest, in a target; show the progress and the result."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.errors import InputError, VmLost
from harness.report.recording import end_text
from harness.report.replay_json import alarm_json
from harness.report.terminal import printable
from harness.vm.alarms import once_each
from harness.vm.build.prepare import prepare
from harness.vm.build.programs import GUEST_LINE, build_programs, linux_guest, read_program
from harness.vm.config import load_config
from harness.vm.recorder import FinishedRecording, RecordingProgress, record

PROGRESS_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class LinuxGuest:
    """A Linux guest to record: the target's own kernel, with its number of vCPUs, its RAM and its command line."""

    cpus: int
    memory_mib: int
    cmdline: str


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """What to record on which target.

    ``program`` is a file and its arguments, ``files`` are the files in its directory, by name.  ``guest`` is a Linux
    guest to run instead.  ``seconds`` limit the recording, ``ring_mib`` is the size of the ring of records.  ``kernel``
    is an image for the target (None: its own), ``smp`` its number of CPUs.
    """

    target: str
    out: Path
    seconds: int
    ring_mib: int
    program: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    guest: LinuxGuest | None = None
    kernel: Path | None = None
    smp: int = 1


def named_files(items: Sequence[str]) -> Mapping[str, Path]:
    """Return files by their names in the program's directory, from NAME=PATH or PATH.  InputError: a wrong item."""
    files: dict[str, Path] = {}
    for item in items:
        name, equals, path = item.partition("=")
        where = Path(path if equals else item)
        name = name if equals else where.name
        if not name or "/" in name or name in files:
            raise InputError(item, None, "expected NAME=PATH or PATH, each name once and without a slash")
        files[name] = where
    return files


def record_program(
    options: RecordOptions, stopped: Callable[[], bool], progress: Callable[[str], None], show: Callable[[str], None]
) -> FinishedRecording:
    """Record to ``options.out`` until the program ends, or ``stopped`` returns true.

    ``progress`` gets lines of progress, ``show`` lines that the machine printed.  InputError, SetupError: a name or the
    set-up is wrong.  The result reports a lost machine.
    """
    config = load_config(options.target)
    guest = options.guest
    program = None
    if guest is None:
        program = read_program(Path(options.program[0]), options.program[1:], options.files)
    prepared = prepare(config, kernel=options.kernel, progress=progress)
    built = build_programs(progress)
    if program is None:
        assert guest is not None
        program = linux_guest(prepared, built, cpus=guest.cpus, memory_mib=guest.memory_mib, words=guest.cmdline)
    progress(f"{config.name}: booting, then {printable(program.title)}")
    watch = _Progress(progress, show)
    done = record(
        *(config, prepared, program, built, options.out),
        seconds=options.seconds,
        ring_mib=options.ring_mib,
        cpus=options.smp,
        tick=watch.tick,
        stopped=stopped,
    )
    watch.end()
    return done


def check_guest(options: RecordOptions, done: FinishedRecording) -> None:
    """Check that a Linux guest reached user space, according to its console.  VmLost: it did not."""
    if options.guest is not None and done.end.status == "exited" and GUEST_LINE not in done.console:
        name = load_config(options.target).name
        raise VmLost(name, "the Linux guest ended before user space", done.console)


class _Progress:
    """Shows the machine's output, and from time to time the progress of the recording."""

    def __init__(self, progress: Callable[[str], None], show: Callable[[str], None]) -> None:
        self._progress, self._show = progress, show
        self._begin = self._shown = time.monotonic()
        self._before: Mapping[str, int] = {}
        self._rest = ""

    def tick(self, tick: RecordingProgress) -> None:
        """Show new output; an unfinished line is shown later."""
        *lines, self._rest = (self._rest + tick.printed.replace("\r", "")).split("\n")
        for line in lines:
            self._show(printable(line))
        now = time.monotonic()
        if now - self._shown > PROGRESS_SECONDS:
            new = Counter(tick.exits) - Counter(self._before)
            rate = f"{new.total() / (now - self._shown):.0f} exits a second"
            often = ", ".join(f"{name} {100 * count // new.total()} %" for name, count in new.most_common(3))
            total = sum(tick.exits.values())
            self._progress(f"{now - self._begin:.0f} s, {total} exits, now {rate}{f' ({often})' if often else ''}")
            self._shown, self._before = now, dict(tick.exits)

    def end(self) -> None:
        """Show the last, unfinished line."""
        if self._rest:
            self._show(printable(self._rest))


def recording_text(out: Path, size: int, done: FinishedRecording) -> str:
    """Return the result of a recording as text; ``size`` is that of its file in bytes."""
    end = done.end
    each = f", {size / end.exits:.1f} an exit" if end.exits else ""
    lines = [
        f"{out}: {end.records} records, {end.exits} exits, {size} bytes{each}, {done.seconds:.1f} s",
        f"the program {end_text(end)}",
    ]
    if end.dropped:
        lines.append(f"{end.dropped} records are missing: they could not be distinguished or read")
    if end.waits:
        lines.append(f"the target waited {end.waits} times for room (--ring)")
    for alarm, count in once_each(done.alarms).values():
        lines.append(f"alarm of the kernel{f', {count} times' if count > 1 else ''}: {printable(alarm.sentence)}")
    return "\n".join(lines)


def recording_json(out: Path, size: int, done: FinishedRecording) -> dict[str, object]:
    """Return the result of a recording as plain data for :mod:`json`."""
    return {
        "file": str(out),
        "bytes": size,
        "seconds": round(done.seconds, 3),
        "end": asdict(done.end),
        "console": done.console.splitlines(),
        "alarms": [alarm_json(alarm) for alarm in done.alarms],
    }
