# SPDX-License-Identifier: Apache-2.0
"""A mutation test over the model: change one row of one level, and see whether the campaign notices.

A mutant is a change to the syntax tree of one module of the model: a number plus one, another comparison, another
operator, a statement left out, two neighbours of a table swapped.  Each runs in a process of its own, which loads the
model afresh with the changed module.
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, MappingProxyType, ModuleType
from typing import Any

from harness.model import LEVEL_NAMES

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
PACKAGE = "harness.model"
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
        """Where it is and what it changes."""
        return f"{self.module}.py:{self.line}: {self.what}"


def mutants() -> tuple[Mutant, ...]:
    """Every mutant of the model."""
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
    """The changed tree."""
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


class _Finder(importlib.abc.MetaPathFinder):
    """Loads one module of the model from a changed tree."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The changed module's spec; None for every other module."""
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
        """The changed code; never cached."""
        source = Path(self.path).read_text()
        return compile(apply(self._mutant, source), self.path, "exec", dont_inherit=True)


UNIT_TESTS = "unit tests"
"""The detector that is the unit tests of the model; the others are those of :mod:`~harness.lemma.change_detection`."""
ON_PAGE = ("stored clusters", "hypotheses", "verdicts", "campaign")
"""The detectors that look at what docs/lemmas.md shows."""
TIMEOUT = 60
"""Seconds of CPU; a change that makes a detector run longer counts as noticed."""
PROVER_TIMEOUT = 600
"""Seconds of CPU of the detector ``verdicts``, which takes a minute where nothing changes."""
LEVELS_OF: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "low": ("low",),
        "body": ("body", "kernel"),  # kernel takes signed_bit from it
        **dict.fromkeys(("kernel", "machine_kernel", "paging_kernel"), ("kernel",)),
        **dict.fromkeys(("spec", "machine", "locks"), ("spec", "low", "body")),
        **dict.fromkeys(("constants", "paging"), LEVEL_NAMES),
    }
)
"""The levels that run code of a module; low and body call spec, and the kernel's paging takes functions of paging."""
SLOW_TESTS = ("test_memoised_replay.py",)
"""Tests of the model's replay, which is about traces and not about one level."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How mutants are tried: ``directory`` of what is stored, random ``cases`` for each question, the ``seed`` and the
    ``detectors``, each of which is asked by itself; ``tests``: the directory of the model's unit tests."""

    directory: Path
    cases: int
    seed: int
    detectors: tuple[str, ...]
    tests: Path | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a mutant: what each detector says (None: it did not notice), and the seconds of them all."""

    mutant: Mutant
    by: tuple[tuple[str, str | None], ...]
    seconds: float

    @property
    def how(self) -> str | None:
        """What the first detector that noticed says; None for a survivor."""
        return next((how for _, how in self.by if how is not None), None)


def check(mutant: Mutant, trial: Trial) -> Result:
    """Ask each detector in a process of its own, which loads the model afresh with the mutant."""
    start = time.monotonic()
    by = tuple(
        (name, _by_tests(mutant, trial) if name == UNIT_TESTS else _in_child(mutant, trial, name))
        for name in trial.detectors
    )
    return Result(mutant, by, time.monotonic() - start)


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


def _in_child(mutant: Mutant, trial: Trial, detector: str) -> str | None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(mutant, trial, detector, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        data = answer.readline()  # not to the end: a child that was forked meanwhile holds the pipe open too
    os.waitpid(child, 0)
    if not data and detector == "verdicts":
        return None  # no answer is no other verdict
    if not data:
        return "the check was killed (too slow, or out of stack)"
    how = json.loads(data)
    return None if how is None else str(how)


def _child(mutant: Mutant, trial: Trial, detector: str, writer: int) -> None:
    """Load the model afresh and answer through the pipe; does not return."""
    _limit_cpu(PROVER_TIMEOUT if detector == "verdicts" else TIMEOUT)
    try:
        _load_afresh(mutant)
        try:
            found = importlib.import_module("harness.lemma.change_detection")
            check = found.Check(trial.directory, trial.cases, trial.seed, LEVELS_OF[mutant.module])
            how = found.notice(check, (detector,))
        except Exception as error:
            how = f"does not load: {error!r}"
        os.write(writer, json.dumps(how).encode() + b"\n")
    finally:
        os._exit(0)


def _load_afresh(mutant: Mutant) -> None:
    """Forget every module that knows the model: the next import takes the changed one."""
    for name in [n for n in sys.modules if n.startswith((PACKAGE, "harness.lemma")) and n != __name__]:
        del sys.modules[name]
    sys.meta_path.insert(0, _Finder(mutant))


def sample(count: int, seed: int) -> tuple[Mutant, ...]:
    """``count`` mutants, chosen by ``seed``."""
    return tuple(random.Random(seed).sample(mutants(), count))


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """A JSON object: the kill rate, by detector and module too, and the survivors."""
    killed = [r for r in results if r.how is not None]
    modules = {m: [r for r in results if r.mutant.module == m] for m in MODULES}
    by: dict[str, list[bool]] = {}
    for name, how in (row for r in results for row in r.by):
        by.setdefault(name, []).append(how is not None)
    return {
        "mutants": len(results),
        "killed": len(killed),
        "rate": round(len(killed) / len(results), 4) if results else 0.0,
        "slowest_s": round(max((r.seconds for r in results), default=0.0), 1),
        "detectors": {name: [sum(noticed), len(noticed)] for name, noticed in by.items()},
        "page": sum(any(how is not None for name, how in r.by if name in ON_PAGE) for r in results),
        "modules": {m: [sum(r.how is not None for r in rs), len(rs)] for m, rs in modules.items() if rs},
        "survivors": [r.mutant.name for r in results if r.how is None],
        "missed": {
            name: [r.mutant.name for r in results if r.how is not None and dict(r.by)[name] is None] for name in by
        },
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
