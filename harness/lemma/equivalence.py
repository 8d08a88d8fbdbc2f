# SPDX-License-Identifier: Apache-2.0
"""Prove that a mutant of the model is equivalent: every function of every level computes the same.

The original and the changed function run symbolically on the same start: on each path both are defined or neither is,
and no field of the state differs.  :data:`DOMAIN` says on which states.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import harness
from harness import model
from harness.lemma.compare_levels import Question
from harness.lemma.mutant_reach import PACKAGE, used_by_functions, uses
from harness.lemma.mutants import Finder, Mutant
from harness.lemma.prove import same, unequal
from harness.lemma.register_loop import open_rounds
from harness.lemma.symbolic import BranchingState, Explorer, OpenBranch, SymState, Truth, choose
from harness.lemma.symbolic_memory import MemoryState, index, memory_of
from harness.lemma.symbolic_starts import Start, repair_starts, start_state, starts, variable
from harness.model import FUNCTION
from harness.model.constants import FP, INFO_ID, KERNEL_ONLY, NPT_ID, PAGE_SIZE, S2PAGE_ID, phys_page
from harness.model.state import Undefined

DOMAIN = (
    "numbers below 2^66; the ids, lock states and panics of the starts; at most two boot images; any number of marked "
    "registers of sync_dirty_to_shadow at body and kernel, at most two at spec and low, at most one within restore; a "
    "mapping by itself with free page records and tables, one of 512 pages run as one of two"
)
MAPPING, MAPPINGS = "prot_and_map_vm_s2pt", ("paging", "paging_kernel")
"""The mapping is a black box within the ten functions, and runs by itself if the mutant changes it."""
Function = Callable[..., None]


class _Different(Exception):
    """The two may differ; the text says where."""


@dataclass(frozen=True, slots=True)
class Equivalence:
    """What the prover found of a mutant: ``why`` it is not proved equivalent (empty: it is), and the paths run."""

    mutant: Mutant
    why: str
    paths: int


@contextmanager
def changed_modules(mutant: Mutant) -> Iterator[Mapping[str, ModuleType]]:
    """Yield the modules of the model with the mutant, by their short names; the model itself stays as it is."""
    saved = {name: found for name, found in sys.modules.items() if name.startswith(PACKAGE)}
    for name in saved:
        del sys.modules[name]
    finder = Finder(mutant)
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module(PACKAGE)
        made = {name: found for name, found in sys.modules.items() if name.startswith(PACKAGE)}
    finally:
        sys.meta_path.remove(finder)
        for name in [n for n in sys.modules if n.startswith(PACKAGE)]:
            del sys.modules[name]
        sys.modules.update(saved)
        harness.model = saved[PACKAGE]
    yield {name.rpartition(".")[2]: found for name, found in made.items()}


def equivalent(mutant: Mutant) -> Equivalence:
    """Run every function of every level that may have changed, and the mapping if it may have."""
    paths = [0]
    try:
        with changed_modules(mutant) as changed:
            used = used_by_functions(mutant.module, mutant.line)
            for level, function in sorted(used, key=lambda name: (FUNCTION[name[1]].layer == "VCPUOps", name)):
                if mutant.module not in MAPPINGS:
                    _function(level, function, changed["model"].CODE, paths)
            for module in MAPPINGS:
                if uses((module, MAPPING), mutant.module, mutant.line):
                    _mapping(module, changed[module], paths)
    except (OpenBranch, _Different) as reason:
        return Equivalence(mutant, str(reason), paths[0])
    except Exception as error:  # a changed level may do anything
        return Equivalence(mutant, f"raised {error!r}", paths[0])
    return Equivalence(mutant, "", paths[0])


def _function(level: str, function: str, code: Mapping[tuple[str, str], Function], paths: list[int]) -> None:
    question = Question((level, level), function)
    pair = model.CODE[level, function], code[level, function]
    for start in _starts(question):
        _same_on_every_path(pair, lambda x, s=start: _state(s, question, x), f"{level} {function}", paths)  # type: ignore[misc]
    if function == "sync_dirty_to_shadow" and level in ("body", "kernel"):
        _rounds(level, pair, paths)


def _starts(question: Question) -> Iterator[Start]:
    """Yield the starts of a question; within the kernel's restore at most one register is marked."""
    if question.coupled and question.function == "post_handle_shadow_s2pt_fault":
        yield from repair_starts(question)
        return
    yield from (start for start in starts(question) if start.open is None)
    if question.coupled and question.function == "restore_shadow_kvm_regs":
        yield Start(first_entry=False, no_trap=True)


def _rounds(level: str, pair: tuple[Function, Function], paths: list[int]) -> None:
    name = "sync_dirty_to_shadow"
    for one, other in (pair, pair[::-1]):
        question, code = Question((level, "changed"), name), {(level, name): one, ("changed", name): other}
        why, run = open_rounds(question, (), [s for s in starts(question) if s.open is None], code)
        paths[0] += run
        if why:
            raise _Different(f"{level} {name}: {why}")


Made = tuple[SymState, tuple[Any, ...]]


def _same_on_every_path(
    pair: tuple[Function, Function], made: Callable[[Explorer], Made], where: str, paths: list[int]
) -> None:
    x = Explorer()
    x.explore(lambda: _compare(pair, made, x, where))
    paths[0] += x.paths


def _compare(pair: tuple[Function, Function], made: Callable[[Explorer], Made], x: Explorer, where: str) -> None:
    """Run one path of both; each precondition is a branch, so that both are defined on it or neither is."""
    (left, one), (right, other) = (_run(function, made, x) for function in pair)
    if one is not None or other is not None:
        if one is None or other is None:
            raise _Different(f"{where}: only one is defined ({one or other})")
        return
    a, b = dict(_everything(left)), dict(_everything(right))
    if a.keys() != b.keys():
        raise _Different(f"{where}: {sorted(a.keys() ^ b.keys())}")
    for name, value in a.items():
        for u, v in _pairs(value, b[name], f"{where}: {name}"):
            if u is not v and not same(u, v) and x.possible(unequal(u, v), name):
                raise _Different(f"{where}: {name}")


def _run(function: Function, made: Callable[[Explorer], Made], x: Explorer) -> tuple[SymState, str | None]:
    """Return the final state, and why it is undefined."""
    d, args = made(x)
    try:
        function(d, *args)
    except Undefined as undefined:
        return d, undefined.reason
    return d, None


def _everything(d: SymState) -> Iterator[tuple[str, Any]]:
    """Yield every field of a state by name."""
    for name in ("halt", "curid", "cur_vmid", "cur_vcpuid", "tstate", "revealed"):
        yield name, getattr(d, name)
    yield "calls", [(name, *_call(name, args)) for name, args in d.calls]
    for kind, contexts in (("ctxt", d.shadow_ctxts), ("host", d.host_regs)):
        yield from ((f"{kind}[{key}].{n}", v) for key, c in contexts.items() for n, v in c.items())
    yield from ((f"regs.{name}", value) for name, value in d.regs.items())
    for name in ("data_log", "core_data_log", "log"):
        yield from ((f"{name}[{key}]", value) for key, value in getattr(d, name).items())
    yield "lock", sorted(key for key, held in d.lock.items() if held)
    for vmid, info in d.vminfos.items():
        fields = ("vm_state", "vm_vcpu_state", "vm_next_load_info", "vm_inc_exe", "powered_on")
        yield from ((f"vminfos[{vmid}].{name}", getattr(info, name)) for name in fields)
        yield f"vminfos[{vmid}].images", [(i.addr, i.size, i.remap) for i in info.images]
    if isinstance(d, MemoryState):
        yield from memory_of(d)


def _call(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of a black box; a mapping asks of its level only whether it is 2."""
    if not name.endswith("prot_and_map_vm_s2pt"):
        return args
    level2 = args[3] == 2
    return *args[:3], choose(level2, 1, 0) if isinstance(level2, Truth) else int(level2)


def _pairs(u: Any, v: Any, where: str) -> Iterator[tuple[Any, Any]]:
    """Yield the numbers of two nested values, pair by pair."""
    if isinstance(u, tuple | list) and isinstance(v, tuple | list):
        if len(u) != len(v):
            raise _Different(where)
        for a, b in zip(u, v, strict=True):
            yield from _pairs(a, b, where)
    else:
        yield u, v


def _state(start: Start, question: Question, x: Explorer) -> Made:
    """Return the start of a question with every register free, those that no comparison of two levels looks at, too."""
    d, args = start_state(start, question, x, BranchingState)
    for name in (*KERNEL_ONLY, *FP[1:]):
        d.ctxt(d.own_key)[name] = variable(f"ctxt.{name}")
    for host in d.host_regs.values():
        host.update({name: variable(f"host.{name}") for name in FP[1:]})
    return d, args


# ---- the mapping by itself


@dataclass(frozen=True, slots=True)
class _MemoryStart:
    """The plain choices of a mapping.

    ``held``: a lock that is taken; ``open_log``: a lock whose log is not balanced; ``owner``: the VM that owns the
    page (None: any).
    """

    vmid: int = 1
    halt: bool = False
    level: int = 3
    held: int | None = None
    open_log: int | None = None
    owner: int | None = None


_LOCKS = (S2PAGE_ID, NPT_ID, NPT_ID + 1, INFO_ID + 1)
_MEMORY_STARTS = (
    *(_MemoryStart(level=level) for level in (3, 2)),
    *(_MemoryStart(halt=True, level=level) for level in (3, 2)),
    *(_MemoryStart(vmid, owner=7) for vmid in (16, 17)),
    *(_MemoryStart(held=lock) for lock in _LOCKS),
    *(_MemoryStart(open_log=lock) for lock in _LOCKS),
)


def _mapping(name: str, changed: ModuleType, paths: list[int]) -> None:
    original, kernel = importlib.import_module(f"{PACKAGE}.{name}"), name == "paging_kernel"
    pair = getattr(original, MAPPING), getattr(changed, MAPPING)
    with _two_pages(original), _two_pages(changed):
        for start in _MEMORY_STARTS:
            _same_on_every_path(pair, lambda x, s=start: _memory(s, x, kernel=kernel), f"{name} {MAPPING}", paths)  # type: ignore[misc]


@contextmanager
def _two_pages(module: Any) -> Iterator[None]:
    """Run a mapping of 512 pages as one of two: each page is one round of the same loop."""
    pages = module.PMD_PAGE_NUM
    module.PMD_PAGE_NUM = pages - 510
    try:
        yield
    finally:
        module.PMD_PAGE_NUM = pages


def _memory(start: _MemoryStart, x: Explorer, *, kernel: bool) -> Made:
    level: Any = index("level") if kernel else start.level
    question = Question(("body", "body"), "post_handle_shadow_s2pt_fault")
    d, _ = start_state(Start(start.vmid, 0, start.vmid, start.halt), question, x, MemoryState)
    assert isinstance(d, MemoryState)
    d.with_memory()
    if start.held is not None:
        d.lock[start.held] = True
    if start.open_log is not None:
        d.log[start.open_log] = [("OPULL", start.open_log)]
    if kernel:
        x.solver.add((level.term == 2) if start.level == 2 else (level.term != 2))
    if start.owner is not None:
        x.solver.add(_first_page(d)[0].term == start.owner)
    if start.level == 2:
        _unmapped(d, x)
    return d, (start.vmid, index("addr"), index("pte"), level)


def _first_pfn() -> Any:
    return phys_page(index("pte")) // PAGE_SIZE


def _first_page(d: MemoryState) -> Any:
    pages: Any = d.s2page
    return pages.get(_first_pfn(), None)


def _unmapped(d: MemoryState, x: Explorer) -> None:
    """Assume that the host has mapped no page; level 3 explores whether it has."""
    found: Any = d.npt(0).pt
    for page in range(2):
        pfn = _first_pfn() + page
        x.solver.add(found.get(pfn, None)[1].term == 0)
