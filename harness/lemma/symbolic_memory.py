# SPDX-License-Identifier: Apache-2.0
"""Make memory symbolic for the stage-2 mapping: page records and tables are free functions of the index.

A read at an index that may be that of an earlier write branches on whether it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import z3

from harness.lemma.symbolic import INPUT_BITS, WIDTH, BranchingState, Explorer, Sym, SymState, Truth, term
from harness.lemma.symbolic_starts import variable
from harness.model.state import Npt


class Index(Sym):
    """A number that may be a key of a map: two are one key if they are the same object."""

    __slots__ = ()

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


class _Decided(Truth):
    """A condition that branches where the model's text uses it as a plain one."""

    __slots__ = ("_x",)

    def __init__(self, condition: Any, x: Explorer) -> None:
        super().__init__(condition)
        self._x = x

    def __bool__(self) -> bool:
        return self._x.branch(self.term, "a number in memory")


class _Stored(Sym):
    """A number that was read from memory."""

    __slots__ = ("_x",)
    __hash__ = None

    def __init__(self, t: Any, x: Explorer | None = None) -> None:
        super().__init__(t)
        self._x = x

    def __eq__(self, other: object) -> Any:
        equal = self.term == term(other)
        return Truth(equal) if self._x is None else _Decided(equal, self._x)


def index(name: str) -> Any:
    """Return a free index below 2^66."""
    return Index(variable(name).term)


def _terms(item: Any) -> tuple[Any, ...]:
    return tuple(term(part) for part in (item if isinstance(item, tuple) else (item,)))


class _Written:
    """What maps and sets share: whether an item is the one of an earlier write, on this path."""

    def __init__(self, x: Explorer, name: str) -> None:
        self._x, self._name = x, name

    def _is(self, item: Any, written: Any) -> bool:
        condition = z3.simplify(z3.And(*(a == b for a, b in zip(_terms(item), _terms(written), strict=True))))
        if z3.is_true(condition) or z3.is_false(condition):
            return bool(z3.is_true(condition))
        return self._x.branch(condition, self._name)

    def _function(self, item: Any, part: str, result: Any) -> Any:
        terms = _terms(item)
        made = z3.Function(f"{self._name}.{part}", *[z3.BitVecSort(WIDTH)] * len(terms), result)
        return made(*terms)


class SymbolicMap(_Written):
    """A map from an index to numbers: ``parts`` names them, ``writes`` is in order of time."""

    def __init__(self, x: Explorer, name: str, parts: tuple[str, ...], writes: Iterable[tuple[Any, Any]] = ()) -> None:
        super().__init__(x, name)
        self._parts, self.writes = parts, list(writes)

    def get(self, key: Any, default: object) -> Any:
        """Return the entry at ``key``."""
        for written, value in reversed(self.writes):
            if self._is(key, written):
                return value
        sort = z3.BitVecSort(INPUT_BITS)
        found = (self._function(key, part, sort) for part in self._parts)
        return tuple(_Stored(z3.ZeroExt(WIDTH - INPUT_BITS, value), self._x) for value in found)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.writes.append((key, value))

    def keys(self) -> list[Any]:
        """Return the indices written; ``dict`` asks for them when it copies the map."""
        return [key for key, _ in self.writes]

    def __getitem__(self, key: Any) -> Any:
        return next(value for written, value in reversed(self.writes) if written is key)


class SymbolicSet(_Written):
    """A set of indices, or of tuples of them: ``changes`` has what was added (True) and taken out, in order."""

    def __init__(self, x: Explorer, name: str, changes: tuple[tuple[bool, Any], ...] = ()) -> None:
        super().__init__(x, name)
        self.changes = changes

    def __contains__(self, item: Any) -> bool:
        for added, written in reversed(self.changes):
            if self._is(item, written):
                return bool(added)
        return bool(self._x.branch(self._function(item, "has", z3.BoolSort()), self._name))

    def __or__(self, items: Iterable[Any]) -> SymbolicSet:
        return SymbolicSet(self._x, self._name, (*self.changes, *((True, item) for item in items)))

    def __sub__(self, items: Iterable[Any]) -> SymbolicSet:
        return SymbolicSet(self._x, self._name, (*self.changes, *((False, item) for item in items)))


class MemoryState(BranchingState):
    """A symbolic state with symbolic page records, page contents and tables."""

    __slots__ = ()

    def npt(self, vmid: int) -> Npt:
        """Return the stage-2 map of a VM; its content is free before the first write."""
        name, found = f"npt{vmid}", self.npts.get(vmid)
        parts = ("pfn", "level", "pte")
        made: Any
        if found is not None:
            written: Any = found.pt
            if not isinstance(written, SymbolicMap):
                made = SymbolicMap(self.x, name, parts, written.items())
                found = replace(found, pt=made)
            return found
        made = SymbolicMap(self.x, name, parts)
        tables: Any = tuple(SymbolicSet(self.x, f"{name}.{level}") for level in ("pgd", "pud", "pmd"))
        return Npt(made, *tables, *(variable(f"{name}.{level}_next") for level in ("pgd", "pud", "pmd")))

    def with_memory(self) -> None:
        """Make page records and page contents symbolic."""
        pages: Any = SymbolicMap(self.x, "s2page", ("owner", "count", "gfn"))
        contents: Any = SymbolicMap(self.x, "flatmem", ("content",))
        self.s2page, self.flatmem = pages, contents


def memory_of(d: SymState) -> Iterator[tuple[str, Any]]:
    """Yield every write to symbolic memory in order of time, as nested tuples by name."""
    for name in ("s2page", "flatmem"):
        yield name, tuple(getattr(d, name).writes)
    for vmid, npt in sorted(d.npts.items()):
        written: Any = npt.pt
        entries = written.writes if isinstance(written, SymbolicMap) else list(written.items())
        yield f"npt{vmid}.pt", tuple(entries)
        for level in ("pgd", "pud", "pmd"):
            yield f"npt{vmid}.{level}_t", getattr(npt, f"{level}_t").changes
            yield f"npt{vmid}.{level}_next", getattr(npt, f"{level}_next")
