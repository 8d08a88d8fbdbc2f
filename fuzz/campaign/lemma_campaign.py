# SPDX-License-Identifier: Apache-2.0
"""The atheris entry point of the lemma campaign, and the parent that starts its worker processes.

``atheris.Fuzz()`` never returns, so a worker is a process of its own that dies with its parent.  It appends its results
to a file, one JSON object per line; the parent reads the files.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.campaign.engine import require_engine
from fuzz.campaign.libfuzzer_counters import Counters, key_index
from harness.errors import ShadowfuzzError
from harness.lemma.case import Case, case_of
from harness.lemma.compare_levels import EQUAL, INCONCLUSIVE, VACUOUS, Difference, Question, compare_on_case
from harness.lemma.generate import HEADER, MAX_OPS, SHARES, decode
from harness.model.state import Decision

COUNTERS = 1 << 13
REPORT_EVERY = 0.5  # seconds between a worker's statistics
PR_SET_PDEATHSIG = 1
FRESH = 0.4  # share of inputs that are generated instead of mutated: it bounds how rarely a row occurs
BETTER = 2  # how many shorter cases of a known goal a worker still sends


@dataclass(slots=True)
class Statistics:
    """The counts of one worker, or of all."""

    vacuous: int = 0
    equal: int = 0
    inconclusive: int = 0
    differ: int = 0

    @property
    def comparisons(self) -> int:
        """Return the number of compared cases."""
        return self.vacuous + self.equal + self.inconclusive + self.differ

    @property
    def defined_share(self) -> float:
        """Return the share of cases that are defined on the left side, 0 to 1."""
        return 1 - self.vacuous / self.comparisons if self.comparisons else 0.0


@dataclass(slots=True)
class Target:
    """The function that libFuzzer calls: decode a question and a case, compare, count decisions, send new results."""

    questions: tuple[Question, ...]
    counters: Counters
    send: Callable[[dict[str, Any]], object]
    clock: Callable[[], float] = time.monotonic
    statistics: Statistics = field(default_factory=Statistics)
    _edges: dict[tuple[str, tuple[Decision, ...]], tuple[int, ...]] = field(default_factory=dict)
    _known: dict[tuple[Question, str, frozenset[str]], tuple[int, int]] = field(default_factory=dict)
    _next_report: float = 0.0
    _shares: tuple[Question, ...] = ()

    def __post_init__(self) -> None:
        """Repeat each question according to its share."""
        self._shares = tuple(q for q in self.questions for _ in range(SHARES[q.function]))

    def __call__(self, data: bytes) -> None:
        """Run one input; its first byte selects the question."""
        if not data:
            return
        question = self._shares[data[0] % len(self._shares)]
        case = decode(data[1:], question.function)
        verdict, left, right = compare_on_case(question, case)
        for level, path in zip(question.pair, (left.path, right.path), strict=True):
            self._count(question.function + level, tuple(path))
        statistics = self.statistics
        if verdict == EQUAL:
            statistics.equal += 1
        elif verdict == VACUOUS:
            statistics.vacuous += 1
        elif verdict == INCONCLUSIVE:
            statistics.inconclusive += 1
        elif isinstance(verdict, Difference):
            statistics.differ += 1
            self._found(question, case, verdict)
        if statistics.comparisons & 255 == 0 and self.clock() >= self._next_report:
            self.report()

    def report(self) -> None:
        """Send the statistics to the parent."""
        self._next_report = self.clock() + REPORT_EVERY
        s = self.statistics
        self.send({"statistics": [s.vacuous, s.equal, s.inconclusive, s.differ, time.process_time()]})

    def _count(self, side: str, path: tuple[Decision, ...]) -> None:
        """Count each pair of consecutive decisions of one side."""
        edges = self._edges.get((side, path))
        if edges is None:
            steps = (("", False), *path)
            edges = tuple(key_index(side, *edge) for edge in zip(steps, path, strict=False))
            if len(self._edges) < 100_000:
                self._edges[side, path] = edges
        for edge in edges:
            self.counters.hit(edge)

    def _found(self, question: Question, case: dict[str, int], difference: Difference) -> None:
        branch = difference.branches()
        for goal in difference.goals():
            self.counters.hit(key_index(question.function, goal))
            size, sent = self._known.get((question, goal, branch), (1 << 30, 0))
            if len(case) < size and sent < BETTER:
                self._known[question, goal, branch] = (len(case), sent + 1)
                self.send({**_question_json(question), "goal": goal, "branch": sorted(branch), "case": case})


def _question_json(question: Question) -> dict[str, Any]:
    return {"pair": ":".join(question.pair), "function": question.function, "logs": question.logs}


def _question_of(row: dict[str, Any]) -> Question:
    left, _, right = row["pair"].partition(":")
    return Question((left, right), row["function"], row["logs"])


def work(questions: tuple[Question, ...], seed: int, seconds: float, out: Path) -> None:
    """Fuzz as a worker until the time is over; does not return."""
    import atheris

    counters = Counters(COUNTERS)
    counters.attach()
    with out.open("a", buffering=1) as lines:
        target = Target(questions, counters, lambda row: lines.write(f"{json.dumps(row)}\n"))
        # -max_total_time exits from C code; so the target sends its statistics periodically.
        options = [f"-seed={seed}", f"-max_len={1 + HEADER + 4 * MAX_OPS}", "-len_control=0", "-print_final_stats=0"]
        options += [
            f"-max_total_time={max(1, round(seconds))}",
            "-verbosity=0",
            "-rss_limit_mb=0",
            "-entropic_scale_per_exec_time=1",
        ]

        def mutate(data: bytes, max_size: int, seed: int) -> bytes:
            rng = random.Random(seed)
            if rng.random() < FRESH:
                return rng.randbytes(max_size)
            return bytes(atheris.Mutate(data, max_size))

        atheris.Setup([sys.executable, *options], target, custom_mutator=mutate)
        atheris.Fuzz()


@dataclass(frozen=True, slots=True)
class Find:
    """A goal that a worker reached, and a case that shows it."""

    question: Question
    goal: str
    case: Case


@dataclass(slots=True)
class Campaign:
    """The results that the workers of one run have sent so far."""

    statistics: Statistics = field(default_factory=Statistics)
    finds: dict[tuple[Question, str, tuple[str, ...]], Case] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    workers: int = 1

    @property
    def comparisons_per_s(self) -> float:
        """Return the comparisons per second of one worker."""
        return self.statistics.comparisons / self.seconds / self.workers if self.seconds else 0.0

    @property
    def comparisons_per_cpu_s(self) -> float:
        """Return the comparisons per second of CPU time: the rate on a machine with a core for each worker."""
        return self.statistics.comparisons / self.cpu_seconds if self.cpu_seconds else 0.0


def run_campaign(questions: tuple[Question, ...], seconds: float, jobs: int, seed: int, directory: Path) -> Campaign:
    """Run ``jobs`` workers from an empty corpus for ``seconds`` and collect what they found.

    SetupError: there is no fuzzing engine here.  ShadowfuzzError, with the end of its log: a worker failed, or did not
    end in time.
    """
    require_engine()
    campaign = Campaign(workers=jobs)
    outs = [directory / f"worker{i}.jsonl" for i in range(jobs)]
    with _workers(questions, seconds, seed, outs) as processes:
        deadline = time.monotonic() + seconds + 60
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(1.0, deadline - time.monotonic()))
        ends = [process.poll() for process in processes]
    for end, out in zip(ends, outs, strict=True):
        if end != 0 or not out.exists():
            tail = out.with_suffix(".log").read_text(errors="replace")[-2000:]
            how = "did not end in time" if end is None else f"failed with status {end}"
            raise ShadowfuzzError(f"a worker {how}: {tail.strip()}")
    campaign.seconds = seconds
    for out in outs:
        _collect(campaign, out)
    return campaign


def _collect(campaign: Campaign, out: Path) -> None:
    counts, cpu = [0, 0, 0, 0], 0.0
    for line in out.read_text().splitlines():
        row = json.loads(line)
        if "statistics" in row:
            *counts, cpu = row["statistics"]
            continue
        key, case = (_question_of(row), row["goal"], tuple(row["branch"])), case_of(row["case"])
        if key not in campaign.finds or len(case) < len(campaign.finds[key]):
            campaign.finds[key] = case
    s, campaign.cpu_seconds = campaign.statistics, campaign.cpu_seconds + cpu
    s.vacuous, s.equal = s.vacuous + counts[0], s.equal + counts[1]
    s.inconclusive, s.differ = s.inconclusive + counts[2], s.differ + counts[3]


@contextmanager
def _workers(
    questions: tuple[Question, ...], seconds: float, seed: int, outs: list[Path]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for i, out in enumerate(outs):
            job = {"questions": [_question_json(q) for q in questions], "seed": seed * 1000 + i + 1}
            job |= {"seconds": seconds, "out": str(out), "parent": os.getpid()}
            with out.with_suffix(".log").open("wb") as log:
                arguments = [sys.executable, "-m", "fuzz.campaign.lemma_campaign", json.dumps(job)]
                processes.append(
                    subprocess.Popen(arguments, stdout=log, stderr=log, cwd=out.parent, env=_environment())
                )
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    return {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}


def main(argument: str) -> None:
    """Run the worker that ``argument``, a JSON object, describes; it dies with its parent."""
    job = json.loads(argument)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != job["parent"]:
        return  # the parent died before PR_SET_PDEATHSIG was set
    work(tuple(_question_of(q) for q in job["questions"]), job["seed"], job["seconds"], Path(job["out"]))


if __name__ == "__main__":
    main(sys.argv[1])
