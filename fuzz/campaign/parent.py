# SPDX-License-Identifier: Apache-2.0
"""The parent process of a live campaign: prepares the directory, runs the workers, stops them at the deadline.

Workers are processes of their own because atheris exits the process without a Python exit handler; the parent keeps the
time and adds up the counts.  It does not depend on atheris or KVM: its caller gives it the workers' command lines.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from fuzz.campaign.counters_file import Stats, merge, read_stats
from fuzz.store.findings import FINDINGS, FLAKY
from harness.errors import InputError, SetupError
from harness.scenario.requirements import needs_protected
from harness.scenario.scenario import load

CORPUS, RUN, LOCK = "corpus", "run", "lock"
POLL_SECONDS = 0.1
GRACE_SECONDS = 3.0
"""Time in which a worker must end after SIGTERM."""
SHORT_LIFE_SECONDS = 10.0
MAX_SHORT_LIVES = 5
"""Number of consecutive deaths of workers with a short life that are a crash loop."""
GAVE_UP = 3
"""Exit status of a worker whose failure a new worker would repeat (fuzz.campaign.worker_process)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to fuzz and with how many workers; ``seconds`` count from the first worker that is ready."""

    seconds: float
    jobs: int
    out: Path


@dataclass(frozen=True, slots=True)
class Progress:
    """The status of a running campaign: seconds fuzzed (0 until a worker is ready) and left, workers alive, counts."""

    seconds: float
    left: float
    alive: int
    stats: Stats


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a campaign.

    ``seconds`` run from the first ready worker to the end; ``deaths`` has a sentence for each worker that died;
    ``failure`` is why the campaign ended early, empty if it did not; ``interrupted``: a signal ended it.  ``course``
    has pairs (seconds, coverage).
    """

    stats: Stats
    seconds: float
    deaths: tuple[str, ...]
    failure: str
    interrupted: bool
    course: tuple[tuple[float, int], ...] = ()


Launch = Callable[[int, int, Path], Sequence[str]]
"""Maps (worker, incarnation, file for its statistics) to a command line."""


@contextmanager
def campaign_directory(out: Path, seeds: Sequence[Path], *, protected: bool = False) -> Iterator[None]:
    """Create or reopen the directory ``out``, and lock it against other campaigns.

    ``seeds`` are directories whose scenarios are the initial corpus; those that need a protected VM are left out unless
    the target is ``protected``.  InputError: ``out`` cannot be used.
    """
    try:
        for name in (CORPUS, FINDINGS, FLAKY):
            (out / name).mkdir(parents=True, exist_ok=True)
        lock = os.open(out / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise InputError(str(out), None, f"cannot be the campaign's directory: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(str(out), None, "another campaign uses this directory right now") from None
        shutil.rmtree(out / RUN, ignore_errors=True)
        (out / RUN).mkdir()
        for seed, name in _named(seeds):
            place = out / CORPUS / name
            if not place.exists() and (protected or not _needs_protected(seed)):
                work = out / RUN / name
                shutil.copyfile(seed, work)
                work.rename(place)
        yield
    finally:
        os.close(lock)


def _named(seeds: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Yield the scenarios of directories, each with a unique name."""
    taken: set[str] = set()
    for number, directory in enumerate(seeds):
        for seed in sorted(path for path in directory.glob("*.scn") if path.is_file()):
            name = f"{directory.name}-{number}-{seed.name}" if seed.name in taken else seed.name
            taken.add(name)
            yield seed, name


def _needs_protected(seed: Path) -> bool:
    with suppress(InputError):  # the worker drops a file that is no scenario
        return needs_protected(load(seed))
    return False


@dataclass
class _Slot:
    """One worker of the campaign: its process, and the counts of its earlier processes."""

    index: int
    process: subprocess.Popen[bytes]
    stats: Path
    log: Path
    started: float
    incarnation: int = 0
    past: list[Stats] = field(default_factory=list)


class _Workers:
    """The worker processes of one campaign."""

    def __init__(self, plan: Plan, launch: Launch, clock: Callable[[], float]) -> None:
        self._plan, self._launch, self._clock = plan, launch, clock
        self._slots: list[_Slot] = []
        self._short_lives = 0
        self.deaths: list[str] = []
        self.failure = ""

    def start(self) -> None:
        for index in range(self._plan.jobs):
            self._slots.append(self._spawn(index, 0))

    def _spawn(self, index: int, incarnation: int) -> _Slot:
        run = self._plan.out / RUN
        stats, log = (run / f"worker-{index}-{incarnation}.{kind}" for kind in ("stats", "log"))
        # If the campaign dies, its workers die; if a worker dies, its QEMU dies.
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *self._launch(index, incarnation, stats)]
        try:
            with log.open("wb") as output:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # the campaign alone gets Ctrl-C
                )
        except FileNotFoundError as error:
            raise SetupError("setpriv is missing: install the Debian package util-linux") from error
        return _Slot(index, process, stats, log, self._clock(), incarnation)

    def stats(self) -> Stats:
        """Return the counts of all workers so far."""
        return merge(stats for slot in self._slots for stats in (*slot.past, read_stats(slot.stats)))

    @property
    def alive(self) -> int:
        return sum(slot.process.poll() is None for slot in self._slots)

    def tend(self) -> None:
        """Replace dead workers; set ``failure`` if a new worker would fail in the same way."""
        for i, slot in enumerate(self._slots):
            status = slot.process.poll()
            if status is None or self.failure:
                continue
            last = read_stats(slot.stats)
            why = _reason(slot, status, last)
            self.deaths.append(why)
            short = self._clock() - slot.started < SHORT_LIFE_SECONDS
            self._short_lives = self._short_lives + 1 if short else 0
            if status == GAVE_UP:
                self.failure = why
            elif self._short_lives >= MAX_SHORT_LIVES:
                self.failure = f"workers die as soon as they are started ({self._short_lives} in a row): {why}"
            else:
                new = self._spawn(slot.index, slot.incarnation + 1)
                new.past = [merge([*slot.past, last])]
                self._slots[i] = new

    def stop(self) -> None:
        """End all workers: by SIGTERM, then by SIGKILL; return when none is left."""
        for slot in self._slots:
            _signal(slot, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.01)
        self.kill()

    def kill(self) -> None:
        for slot in self._slots:
            _signal(slot, signal.SIGKILL)
        for slot in self._slots:
            slot.process.wait()


def _signal(slot: _Slot, number: signal.Signals) -> None:
    # Signal the process group: a worker may have children.  The leader is not reaped yet, so the id is still valid.
    if slot.process.returncode is None:
        with suppress(ProcessLookupError):  # the group does not exist between fork and setsid
            os.killpg(slot.process.pid, number)
        slot.process.send_signal(number)


def _reason(slot: _Slot, status: int, stats: Stats) -> str:
    errors = [name for (group, name) in stats.words if group == "error"]
    if errors:
        return errors[-1]
    how = f"signal {-status}" if status < 0 else f"status {status}"
    try:
        words = slot.log.read_text(errors="replace").splitlines()
    except OSError:
        words = []
    last = "".join(c for c in (words[-1] if words else "") if c.isprintable())[:200]
    return f"worker {slot.index} ended with {how}: {last or 'no last words'} ({slot.log})"


def run_campaign(
    plan: Plan,
    launch: Launch,
    tick: Callable[[Progress], None],
    stopped: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Fuzz until the time is over, ``stopped`` returns true, or new workers would fail in the same way.

    ``tick`` is called about once a second.  No process is left when this returns or raises.
    """
    workers = _Workers(plan, launch, clock)
    ready = 0.0
    next_tick = clock()
    interrupted = False
    course: list[tuple[float, int]] = []
    try:
        workers.start()
        while not workers.failure:
            now = clock()
            if now >= next_tick or not ready:
                stats = workers.stats()
                ready = stats.get("time", "ready") / 1e9
                if now >= next_tick:
                    next_tick = now + 1.0
                    seconds = now - ready if ready else 0.0
                    course.append((seconds, stats.coverage))
                    tick(Progress(seconds, max(0.0, plan.seconds - seconds), workers.alive, stats))
            if ready and now >= ready + plan.seconds:
                break
            if stopped():
                interrupted = True
                break
            workers.tend()
            time.sleep(POLL_SECONDS)
        workers.stop()
        end = clock()  # the time includes that of stopping, in which workers still count
    finally:
        workers.kill()
    stats = workers.stats()
    ready = stats.get("time", "ready") / 1e9
    seconds = max(0.0, end - ready) if ready else 0.0
    course.append((seconds, stats.coverage))
    return Outcome(stats, seconds, tuple(workers.deaths), workers.failure, interrupted, tuple(course))


@contextmanager
def until_signal() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGINT or SIGTERM arrived; the first of them has no other effect."""
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
