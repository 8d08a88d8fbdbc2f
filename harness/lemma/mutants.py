# SPDX-License-Identifier: Apache-2.0
"""Test the tests of the model by mutation: change one row of one level, and count the detectors that notice.

A mutant is a change to the syntax tree of one module of the model: a number plus one, another comparison, another
operator, a statement left out, two neighbours of a table swapped.  Each detector runs in a process of its own, which
loads the model afresh with the changed module.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import resource
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from harness.lemma.mutant_reach import PACKAGE, used_by_functions

MODULES = (
    "constants",
    "spec",
    "low",
    "body",
    "kernel",
    "machine",
    "machine_kernel",
    "locks",
    "paging",
    "paging_kernel",
)
_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
}
_OPERATOR: dict[type[ast.operator], type[ast.operator]] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.LShift: ast.RShift, ast.RShift: ast.LShift},
    **{ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult},
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the module, which node of its tree (in walk order), which position in it, and what is done."""

    module: str
    node: int
    position: int
    line: int
    what: str

    @property
    def name(self) -> str:
        """Return where it is and what it changes."""
        return f"{self.module}.py:{self.line}: {self.what}"


def mutants() -> tuple[Mutant, ...]:
    """Return every mutant of the model."""
    return tuple(m for module in MODULES for m in _mutants_of(module))


def _mutants_of(module: str) -> Iterator[Mutant]:
    tree = ast.parse(_source(module))
    for index, node in enumerate(ast.walk(tree)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and type(node.value) is int:
            yield Mutant(module, index, 0, line, f"{node.value} becomes {node.value + 1}")
        elif isinstance(node, ast.Compare):
            for i, op in enumerate(node.ops):
                if type(op) in _COMPARE:
                    new = _COMPARE[type(op)].__name__
                    yield Mutant(module, index, i, line, f"{type(op).__name__} becomes {new}")
        elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATOR and not _is_annotation(node):
            new = _OPERATOR[type(node.op)].__name__
            yield Mutant(module, index, 0, line, f"{type(node.op).__name__} becomes {new}")
        elif isinstance(node, ast.Tuple) and module == "constants":
            names = [isinstance(e, ast.Constant) and isinstance(e.value, str) for e in node.elts]
            for i in range(len(names) - 1):
                if names[i] and names[i + 1]:
                    yield Mutant(module, index, i, line, f"{_text(node.elts[i])} and {_text(node.elts[i + 1])} swapped")
        elif isinstance(node, ast.FunctionDef):
            for i, statement in enumerate(node.body):
                if _removable(statement):
                    yield Mutant(module, index, i, statement.lineno, f"left out: {ast.unparse(statement)[:60]}")


def _text(node: ast.expr) -> str:
    return ast.unparse(node)


def _is_annotation(node: ast.BinOp) -> bool:
    return any(isinstance(side, ast.Constant) and side.value is None for side in (node.left, node.right))


def _removable(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Call)
    return isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Subscript)


def apply(mutant: Mutant, source: str) -> ast.Module:
    """Return the changed tree."""
    tree = ast.parse(source)
    node: Any = next(n for i, n in enumerate(ast.walk(tree)) if i == mutant.node)
    if isinstance(node, ast.Constant):
        node.value = node.value + 1  # type: ignore[operator]
    elif isinstance(node, ast.Compare):
        node.ops[mutant.position] = _COMPARE[type(node.ops[mutant.position])]()
    elif isinstance(node, ast.BinOp):
        node.op = _OPERATOR[type(node.op)]()
    elif isinstance(node, ast.Tuple):
        i = mutant.position
        node.elts[i], node.elts[i + 1] = node.elts[i + 1], node.elts[i]
    else:
        node.body[mutant.position] = ast.copy_location(ast.Pass(), node.body[mutant.position])
    return ast.fix_missing_locations(tree)


def _source(module: str) -> str:
    spec = importlib.util.find_spec(f"{PACKAGE}.{module}")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text()


class Finder(importlib.abc.MetaPathFinder):
    """Loads one module of the model from a changed tree."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the changed module's spec; None for every other module."""
        if name != f"{PACKAGE}.{self._mutant.module}":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(name, spec.origin, self._mutant)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, mutant: Mutant) -> None:
        super().__init__(name, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        """Compile the changed code, without the cache."""
        source = Path(self.path).read_text()
        return compile(apply(self._mutant, source), self.path, "exec", dont_inherit=True)


UNIT_TESTS = "unit tests"
"""The detector that is the unit tests of the model; the others are those of :mod:`~harness.lemma.change_detection`."""
ANSWERS = ("stored clusters", "hypotheses", "verdicts", "campaign")
"""The detectors that look at the clusters, hypotheses and verdicts of docs/lemmas.md, or search for more of them."""
ON_PAGE = (*ANSWERS, "stored paths")
"""The detectors that look at what the generated pages show; the stored paths are the rows of docs/lemma-levels.md."""
PROVER = "equivalence"
"""The prover, which is asked about a mutant that changes no answer."""
TIMEOUT = 60
"""Seconds of CPU; a change that makes a detector run longer counts as noticed."""
PROVER_TIMEOUT = 600
"""Seconds of CPU where the prover runs: half a minute for the verdicts, two minutes for an equivalence."""
SLOW_TESTS = ("test_memoised_replay.py",)
"""Tests of the model's replay, which is about traces and not about one level."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The parameters of a mutation test.

    ``directory``: what is stored; ``cases``: random states for each question; ``seed``: of the random numbers;
    ``detectors``: each is asked by itself; ``tests``: the directory of the model's unit tests; ``prove``: ask the
    prover about a mutant that changes no answer.
    """

    directory: Path
    cases: int
    seed: int
    detectors: tuple[str, ...]
    tests: Path | None = None
    prove: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What was found of a mutant: by each detector (None: it did not notice), and in how many seconds.

    ``proof``: why it is not equivalent (empty: it is proved equivalent) and the paths run; None: it was not asked.
    """

    mutant: Mutant
    by: tuple[tuple[str, str | None], ...]
    seconds: float
    proof: tuple[str, int] | None = None

    @property
    def how(self) -> str | None:
        """Return what the first detector that noticed says; None for a survivor."""
        return next((how for _, how in self.by if how is not None), None)

    @property
    def equivalent(self) -> bool:
        """Return whether the mutant is proved to compute the same, and no detector but a unit test noticed it."""
        return self.proof is not None and not self.proof[0] and not self.noticed(ON_PAGE)

    def noticed(self, detectors: Sequence[str]) -> bool:
        """Return whether one of these detectors noticed."""
        return any(how is not None for name, how in self.by if name in detectors)


def try_mutant(mutant: Mutant, trial: Trial) -> Result:
    """Ask each detector in a process of its own, which loads the model afresh with the mutant; then the prover."""
    start = time.monotonic()
    by = tuple(
        (name, _by_tests(mutant, trial) if name == UNIT_TESTS else _detect(mutant, trial, name))
        for name in trial.detectors
    )
    result = Result(mutant, by, time.monotonic() - start)
    if not trial.prove or result.noticed(ANSWERS):
        return result
    proof = _in_child(mutant, trial, PROVER) or ["the prover was stopped", 0]
    return replace(result, seconds=time.monotonic() - start, proof=(proof[0], proof[1]))


def _by_tests(mutant: Mutant, trial: Trial) -> str | None:
    assert trial.tests is not None
    position = (mutant.module, str(mutant.node), str(mutant.position))
    tests = (str(trial.tests), *(f"--ignore={trial.tests / name}" for name in SLOW_TESTS))
    command = (sys.executable, "-m", "harness.lemma.mutants", *position, "-xq", "-p", "no:cacheprovider", *tests)
    done = subprocess.run(command, cwd=trial.tests.parents[3], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else next(iter(reversed(done.stdout.strip().splitlines())), "the tests fail")


def _limit_cpu(seconds: int) -> None:
    """Let the kernel end this process after so many seconds of CPU: a busy machine changes no result."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def _detect(mutant: Mutant, trial: Trial, detector: str) -> str | None:
    answer = _in_child(mutant, trial, detector)
    if answer is not None:
        return None if answer[0] is None else str(answer[0])
    # Without an answer there is no other verdict; elsewhere the change made the model run without end.
    return None if detector == "verdicts" else "the check was killed (too slow, or out of stack)"


def _in_child(mutant: Mutant, trial: Trial, detector: str) -> list[Any] | None:
    """Return the answer of a process of its own; None if it was ended before it answered."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(mutant, trial, detector, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        data = answer.readline()  # not to the end: a child that was forked meanwhile holds the pipe open too
    os.waitpid(child, 0)
    return list(json.loads(data)) if data else None


def _child(mutant: Mutant, trial: Trial, detector: str, writer: int) -> None:
    """Ask a detector, and answer through the pipe; does not return."""
    _limit_cpu(PROVER_TIMEOUT if detector in ("verdicts", PROVER) else TIMEOUT)
    try:
        os.write(writer, json.dumps(_asked(mutant, trial, detector)).encode() + b"\n")
    finally:
        os._exit(0)


def _asked(mutant: Mutant, trial: Trial, detector: str) -> list[Any]:
    try:
        if detector == PROVER:
            proof = importlib.import_module("harness.lemma.equivalence").equivalent(mutant)
            return [proof.why, proof.paths]
        _load_afresh(mutant)
        found = importlib.import_module("harness.lemma.change_detection")
        used = used_by_functions(mutant.module, mutant.line)
        return [found.find_change(found.Check(trial.directory, trial.cases, trial.seed, used), (detector,))]
    except Exception as error:
        return [f"does not load: {error!r}", 0]


def _load_afresh(mutant: Mutant) -> None:
    """Forget every module that knows the model: the next import takes the changed one."""
    for name in [n for n in sys.modules if n.startswith((PACKAGE, "harness.lemma")) and n != __name__]:
        del sys.modules[name]
    sys.meta_path.insert(0, Finder(mutant))


def sample(count: int, seed: int) -> tuple[Mutant, ...]:
    """Draw ``count`` mutants with ``seed``."""
    return tuple(random.Random(seed).sample(mutants(), count))


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Return a JSON object: by detector, how many of the mutants that are not equivalent it noticed; and every mutant.

    ``answers``: those that change a verdict, a hypothesis, a cluster or what a search finds; ``page``: those that
    change one of these or a row of a level.
    """
    counted = [r for r in results if not r.equivalent]
    killed = sum(r.how is not None for r in counted)
    by: dict[str, list[bool]] = {}
    for name, how in (row for r in counted for row in r.by):
        by.setdefault(name, []).append(how is not None)
    return {
        "mutants": len(results),
        "equivalent": [[r.mutant.name, r.proof[1]] for r in results if r.equivalent and r.proof is not None],
        "killed": killed,
        "rate": round(killed / len(counted), 4) if counted else 0.0,
        "slowest_s": round(max((r.seconds for r in results), default=0.0), 1),
        "detectors": {name: [sum(noticed), len(noticed)] for name, noticed in by.items()},
        "answers": sum(r.noticed(ANSWERS) for r in counted),
        "page": sum(r.noticed(ON_PAGE) for r in counted),
        "survivors": [r.mutant.name for r in counted if r.how is None],
        "rows": [
            [r.mutant.name, [name for name, how in r.by if how is not None], r.proof and r.proof[0]] for r in results
        ],
    }


def main(arguments: Sequence[str]) -> None:
    """Run the tests that pytest's arguments name, with a mutant: module, node, position, then those arguments."""
    module, node, position, *rest = arguments
    _limit_cpu(TIMEOUT)
    mutant = next(m for m in mutants() if (m.module, m.node, m.position) == (module, int(node), int(position)))
    _load_afresh(mutant)
    sys.argv = ["pytest", *rest]
    runpy.run_module("pytest", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
