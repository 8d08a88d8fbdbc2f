# SPDX-License-Identifier: Apache-2.0
"""Find the functions of the levels that use the row that a mutant changes; every other one computes the same.

A function uses what its text names, and what that names in turn.  The result may be too large, never too small: every
function counts as using all that the state (:mod:`harness.model.state`) uses.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from harness.model import FUNCTIONS, LEVEL_NAMES

PACKAGE = "harness.model"
STATE = "state"
Name = tuple[str, str]
"""A module of the model, and a name at its top level."""


def row_of(module: str, line: int) -> tuple[Name, ...]:
    """Return the names that the statement at a line of a module defines; none if it defines no name."""
    for statement in _tree(module).body:
        if statement.lineno <= line <= (statement.end_lineno or statement.lineno):
            return tuple((module, name) for name in _defined(statement))
    return ()


def uses(name: Name, module: str, line: int) -> bool:
    """Return whether a name uses the row at a line of a module."""
    rows = row_of(module, line)
    return not rows or any(row in _used_by(name) for row in rows)


def used_by_functions(module: str, line: int) -> frozenset[Name]:
    """Return the functions of the levels that use the row at a line of a module."""
    functions = ((level, f.name) for level in LEVEL_NAMES for f in FUNCTIONS)
    return frozenset(name for name in functions if uses(name, module, line))


@cache
def _used_by(start: Name) -> frozenset[Name]:
    """Return every name that one uses, itself among them."""
    found: set[Name] = set()
    todo = [start, *((STATE, name) for name in _uses_of(STATE))]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += _uses_of(name[0]).get(name[1], ())
    return frozenset(found)


@cache
def _tree(module: str) -> ast.Module:
    spec = importlib.util.find_spec(f"{PACKAGE}.{module}")
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _defined(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        yield from (node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))


@cache
def _uses_of(module: str) -> Mapping[str, tuple[Name, ...]]:
    """Return what each name at the top level of a module uses."""
    modules, imported = _imports(module)
    own = {name for statement in _tree(module).body for name in _defined(statement)}
    found: dict[str, tuple[Name, ...]] = {}
    for statement in _tree(module).body:
        used: list[Name] = []
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                used.append((modules[node.value.id], node.attr))
            elif isinstance(node, ast.Name):
                used += [(module, node.id)] if node.id in own else imported.get(node.id, [])
        for name in _defined(statement):
            found[name] = tuple(used)
    # A name that is imported to be passed on.
    return found | {name: tuple(source) for name, source in imported.items() if name not in found}


def _imports(module: str) -> tuple[dict[str, str], dict[str, list[Name]]]:
    """Return the modules that a module imports and the names that it imports, each with its source."""
    modules: dict[str, str] = {}
    names: dict[str, list[Name]] = {}
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            source = (node.module or "").rpartition(".")[2]
            names |= {alias.asname or alias.name: [(source, alias.name)] for alias in node.names}
    return modules, names
