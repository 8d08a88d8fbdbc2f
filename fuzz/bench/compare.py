# SPDX-License-Identifier: Apache-2.0
"""Compare variants of this program on one machine: all booted at once, in interleaved slices of the same scenarios.

A single run is not enough: on a shared machine one variant differs from itself by a seventh.  So each round runs one
slice on every variant, in random order, a ratio is that of two slices of one round, and the median of the rounds
counts.  The first variant is there twice: its ratio to itself says how far the others' can be trusted.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fuzz.compiled.use import PURE, find_build
from harness.errors import InputError, SetupError, TargetError

WARM_UP = 3
"""Rounds before the first that counts."""
STAGE_ROUNDS = 3
PROCESS = Path(__file__).with_name("checked_campaign.py")
VARIANTS: Mapping[str, Mapping[str, str]] = {"pure": {PURE: "1"}, "compiled": {PURE: ""}}
"""The variants of this checkout, by name: what is added to their environment."""
HERE = Path(__file__).resolve().parents[2]
FAST = "+fast-qemu"
"""Ends the name of a variant whose machine runs on the fast QEMU."""
AGAIN = " again"
"""Marks the second process of the first variant, the control."""
NOT_COMPILED = "the checker is not compiled for these sources: run shadowfuzz setup"
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Variant:
    """A checkout of this project, an environment, and which QEMU: what one process measures."""

    name: str
    tree: Path
    environment: Mapping[str, str]
    fast_qemu: bool = False


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """What to measure: ``rounds`` of ``scenarios`` each; of a pair ``seed`` gives the same inputs to every variant."""

    target: str
    level: str
    rounds: int
    scenarios: int
    seed: int


@dataclass(frozen=True, slots=True)
class Slice:
    """What a variant did in one round: checked exits, wall seconds, CPU seconds of its process and of its QEMU."""

    exits: int
    wall: float
    cpu: float
    qemu: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The slices of a variant, round by round, and the CPU microseconds of the parts of an exit."""

    name: str
    slices: tuple[Slice, ...]
    stages: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Compared:
    """All variants, the control among them, and the load of the machine (1 minute) when it began and ended."""

    variants: tuple[Measured, ...]
    load: tuple[float, float]


def parse_variant(word: str, environ: Mapping[str, str]) -> Variant:
    """Return the variant that a word names: one of :data:`VARIANTS` or the directory of a checkout, then :data:`FAST`.

    InputError: neither.  SetupError: there is no build for ``compiled``.
    """
    name, fast = word.removesuffix(FAST), word.endswith(FAST)
    if name in VARIANTS:
        if name == "compiled" and find_build({**environ, PURE: ""}) is None:
            raise SetupError(NOT_COMPILED)
        return Variant(word, HERE, VARIANTS[name], fast)
    tree = Path(name)
    if not (tree / "fuzz" / "cli" / "main.py").is_file():
        raise InputError(
            "variant", None, f"{name!r} is neither {' nor '.join(VARIANTS)} nor a checkout of this project"
        )
    return Variant(word, tree.resolve(), {}, fast)


class _Process:
    """One variant's process; a context manager, the process and its machine end with it."""

    def __init__(self, variant: Variant, plan: ComparisonPlan, place: Path) -> None:
        self._name = variant.name
        place.mkdir()
        environment = {**os.environ, "PYTHONPATH": str(variant.tree), **variant.environment}
        argv = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-P", str(PROCESS)]
        self._process = subprocess.Popen(
            argv, cwd=variant.tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        job = {"target": plan.target, "level": plan.level, "place": str(place)}
        self._send({**job, "fast_qemu": True} if variant.fast_qemu else job)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # its QEMU dies with it
        self._process.communicate()

    def _send(self, order: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise TargetError(f"{self._name}: its process died") from None

    def answer(self) -> dict[str, Any]:
        """Return the answer to what was sent last.  TargetError: there is none."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise TargetError(f"{self._name}: its process died, status {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise TargetError(f"{self._name}: {found['error']}")
        return found

    def ask(self, order: Mapping[str, object]) -> dict[str, Any]:
        """Send an order and return the answer."""
        self._send(order)
        return self.answer()


def compare(variants: Sequence[Variant], plan: ComparisonPlan, progress: Progress) -> Compared:
    """Measure variants, the first one twice.  TargetError: a machine did not boot, was lost, or a process died."""
    names = [*(variant.name for variant in variants), variants[0].name + AGAIN]
    rng, load = random.Random(plan.seed), os.getloadavg()[0]
    slices: dict[str, list[Slice]] = {name: [] for name in names}
    parts: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="shadowfuzz-bench-") as place, ExitStack() as stack:
        processes = {
            name: stack.enter_context(_Process(variant, plan, Path(place) / str(number)))
            for number, (name, variant) in enumerate(zip(names, [*variants, variants[0]], strict=True))
        }
        for name, process in processes.items():
            if not process.answer()["compiled"] and name.startswith("compiled"):
                raise SetupError(NOT_COMPILED)
        for number in range(plan.rounds + WARM_UP):
            seed = rng.getrandbits(32)
            for name in rng.sample(names, len(names)):
                found = processes[name].ask({"seed": seed, "scenarios": plan.scenarios})
                if number >= WARM_UP:
                    slices[name].append(Slice(found["exits"], found["wall"], found["cpu"], found["qemu"]))
            progress(f"round {number + 1} of {plan.rounds + WARM_UP}")
        for _ in range(STAGE_ROUNDS):
            seed = rng.getrandbits(32)
            for name in rng.sample(names, len(names)):
                parts[name].append(processes[name].ask({"stages": seed}))
    measured = (Measured(name, tuple(slices[name]), _medians(parts[name])) for name in names)
    return Compared(tuple(measured), (load, os.getloadavg()[0]))


def _medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def us(measured: Measured, *fields: str) -> float:
    """Return the median microseconds of a checked exit, the sum of some fields of :class:`Slice`."""
    return statistics.median(1e6 * _cost(each, fields) for each in measured.slices)


def ratio(one: Measured, base: Measured, *fields: str) -> float:
    """Return how many times as many checked exits a second ``one`` makes, by the time in some fields: a median."""
    pairs = zip(one.slices, base.slices, strict=True)
    return statistics.median(_cost(other, fields) / _cost(each, fields) for each, other in pairs)


def _cost(each: Slice, fields: Sequence[str]) -> float:
    seconds: float = sum(getattr(each, name) for name in fields)
    return max(1e-9, seconds) / max(1, each.exits)
