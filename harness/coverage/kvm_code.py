# SPDX-License-Identifier: Apache-2.0
"""Summarise the parts of KVM's code and of the model that scenarios reached: pure functions over measurements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from harness.coverage.kvm_handlers import HANDLERS, NEVER_ENTERED, NEVER_TAKEN, Handler, Reason, reason
from harness.vm.kernels.dwarf import LineRow
from harness.vm.kernels.kallsyms import LOAD_OFFSET
from harness.vm.kernels.kvm_functions import EL2, Function, KvmText
from harness.vm.plugins.edges import Edge

INSTRUCTION = 4

Decision = tuple[str, bool]
"""A decision of the model: its name, and whether it was taken."""


Goal = Edge | Decision | int
"""Anything that a scenario can reach: an edge, a decision, a feature of the campaign."""


@dataclass(frozen=True, slots=True)
class Covered:
    """The goals that one scenario reached: edges of KVM's code, decisions of the model, and the campaign's features.

    ``forged``: it replaces exits, so that it may test a handler with an exit that no guest causes.
    """

    name: str
    edges: frozenset[Edge]
    decisions: frozenset[Decision]
    features: frozenset[int]
    forged: bool = False

    @property
    def goals(self) -> frozenset[Goal]:
        """All that it reached."""
        return frozenset[Goal]().union(self.edges, self.decisions, self.features)


@dataclass(frozen=True, slots=True)
class FunctionReach:
    """The executed part of a function: blocks, instructions out of all, and the scenarios that entered it."""

    function: Function
    blocks: int
    instructions: int
    of: int
    scenarios: int


@dataclass(frozen=True, slots=True)
class HandlerReach:
    """An exit handler of this kernel, and how many scenarios entered it; ``forged`` is how many of these forge exits.

    ``why`` no scenario entered it that forges nothing; None: one did.
    """

    handler: Handler
    function: str
    scenarios: int
    forged: int
    why: Reason | None


@dataclass(frozen=True, slots=True)
class DecisionReach:
    """A decision of the model, how many scenarios took it, and why none did (None: some did)."""

    decision: Decision
    scenarios: int
    why: Reason | None


def blocks_of(edges: Iterable[Edge]) -> frozenset[int]:
    """Return the blocks that edges lead to: each was executed."""
    return frozenset(to for _, to in edges)


def functions(text: KvmText, covered: Sequence[Covered], sizes: Mapping[int, int]) -> tuple[FunctionReach, ...]:
    """Return every function of KVM with what was executed of it; ``sizes`` are those of blocks, in bytes."""
    executed: dict[int, set[int]] = {}
    blocks: Counter[int] = Counter()
    for block in blocks_of(edge for one in covered for edge in one.edges):
        function = text.find(block)
        if function is None:
            continue
        end = min(block + sizes.get(block, INSTRUCTION), function.end)  # a block may run into the next function
        executed.setdefault(function.begin, set()).update(range(block, end, INSTRUCTION))
        blocks[function.begin] += 1
    scenarios = Counter(begin for one in covered for begin in _functions_in(text, one))
    return tuple(
        FunctionReach(
            f,
            blocks[f.begin],
            len(executed.get(f.begin, ())),
            (f.end - f.begin) // INSTRUCTION,
            scenarios[f.begin],
        )
        for f in text.functions
    )


@dataclass(frozen=True, slots=True)
class FileReach:
    """A source file of KVM: its lines that have code, and those of them that were executed."""

    file: str
    reached: frozenset[int]
    of: frozenset[int]


KVM_FILES = ("arch/arm64/kvm/", "virt/kvm/")


def files(rows: Iterable[LineRow], covered: Sequence[Covered], sizes: Mapping[int, int]) -> tuple[FileReach, ...]:
    """Return KVM's source files by name; ``rows`` are their lines, as offsets from the image's first byte."""
    executed: set[int] = set()
    for block in blocks_of(edge for one in covered for edge in one.edges):
        begin = block - LOAD_OFFSET
        executed.update(range(begin, begin + sizes.get(block, INSTRUCTION), INSTRUCTION))
    lines: dict[str, tuple[set[int], set[int]]] = {}
    for row in rows:
        if row.file.startswith(KVM_FILES) and row.line:  # 0: the compiler's own
            reached, every = lines.setdefault(row.file, (set(), set()))
            every.add(row.line)
            if any(address in executed for address in range(row.begin, row.end, INSTRUCTION)):
                reached.add(row.line)
    return tuple(FileReach(name, frozenset(r), frozenset(e)) for name, (r, e) in sorted(lines.items()))


def _functions_in(text: KvmText, covered: Covered) -> frozenset[int]:
    found = (text.find(block) for block in blocks_of(covered.edges))
    return frozenset(function.begin for function in found if function is not None)


def handlers(text: KvmText, covered: Sequence[Covered], *, vhe: bool) -> tuple[HandlerReach, ...]:
    """Return the exit handlers that this kernel has; one is entered where its first instruction begins a block.

    Of a handler that KVM has twice, with VHE and without, only the copy of this mode is returned.
    """
    entered = Counter(block for one in covered for block in blocks_of(one.edges))
    forged = Counter(block for one in covered if one.forged for block in blocks_of(one.edges))
    found: list[HandlerReach] = []
    for row in HANDLERS:
        for function in text.functions:
            if fnmatchcase(function.name, row.function) and _runs(row, function, vhe=vhe):
                all_, some = entered[function.begin], forged[function.begin]
                why = None if all_ > some else reason(function.name, NEVER_ENTERED)
                found.append(HandlerReach(row, function.name, all_, some, why))
    return tuple(found)


def _runs(row: Handler, function: Function, *, vhe: bool) -> bool:
    return not row.function.startswith("*") or (function.part == EL2) != vhe


def decisions(
    possible: Iterable[Decision], covered: Sequence[Covered], rows: Sequence[Reason] = NEVER_TAKEN
) -> tuple[DecisionReach, ...]:
    """Return every decision that the model can take, by name; ``rows`` say why some never are."""
    taken = Counter(decision for one in covered for decision in one.decisions)
    return tuple(
        DecisionReach(decision, taken[decision], None if taken[decision] else reason(decision_text(decision), rows))
        for decision in sorted({*possible, *taken})
    )


def decision_text(decision: Decision) -> str:
    """Return a decision as text: ``prep_hvc.cpu_on=yes``."""
    name, taken = decision
    return f"{name}={'yes' if taken else 'no'}"


Matrix = Mapping[int, Mapping[Decision, int]]


def matrix(text: KvmText, covered: Sequence[Covered]) -> Matrix:
    """Return, by function (where it begins) and decision, how many scenarios had both."""
    found: dict[int, Counter[Decision]] = {}
    for one in covered:
        for begin in _functions_in(text, one):
            found.setdefault(begin, Counter()).update(one.decisions)
    return found
