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
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a mutant; ``how`` is None for a survivor."""

    mutant: Mutant
    how: str | None
    seconds: float


def check(mutant: Mutant, directory: Path, cases: int, seed: int, timeout: float = 60.0) -> Result:
    """Run the campaign's check with the mutant in a child process; longer than ``timeout`` counts as noticed."""
    start = time.monotonic()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(mutant, directory, cases, seed, writer, round(timeout))
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        data = answer.readline()  # not to the end: a child that was forked meanwhile holds the pipe open too
    os.waitpid(child, 0)
    how = json.loads(data) if data else "the check was killed (too slow, or out of stack)"
    return Result(mutant, how, time.monotonic() - start)


def _child(mutant: Mutant, directory: Path, cases: int, seed: int, writer: int, timeout: int) -> None:
    """Load the model afresh and answer through the pipe; does not return."""
    import signal

    signal.alarm(timeout)
    try:
        for name in [n for n in sys.modules if n.startswith((PACKAGE, "harness.lemma")) and n != __name__]:
            del sys.modules[name]
        sys.meta_path.insert(0, _Finder(mutant))
        try:
            notice = importlib.import_module("harness.lemma.change_detection").notice
            how = notice(directory, cases, seed)
        except Exception as error:
            how = f"does not load: {error!r}"
        os.write(writer, json.dumps(how).encode() + b"\n")
    finally:
        os._exit(0)


def run(directory: Path, chosen: Sequence[Mutant], cases: int, seed: int) -> tuple[Result, ...]:
    """Check these mutants one after the other."""
    return tuple(check(mutant, directory, cases, seed) for mutant in chosen)


def sample(count: int, seed: int) -> tuple[Mutant, ...]:
    """``count`` mutants, chosen by ``seed``."""
    return tuple(random.Random(seed).sample(mutants(), count))


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """A JSON object: the kill rate, by module too, and the survivors."""
    killed = [r for r in results if r.how is not None]
    modules = {m: [r for r in results if r.mutant.module == m] for m in MODULES}
    return {
        "mutants": len(results),
        "killed": len(killed),
        "rate": round(len(killed) / len(results), 4) if results else 0.0,
        "slowest_kill_s": round(max((r.seconds for r in killed), default=0.0), 1),
        "modules": {m: [sum(r.how is not None for r in rs), len(rs)] for m, rs in modules.items() if rs},
        "survivors": [f"{r.mutant.module}.py:{r.mutant.line}: {r.mutant.what}" for r in results if r.how is None],
    }
