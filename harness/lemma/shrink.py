# SPDX-License-Identifier: Apache-2.0
"""Find the least case that still shows a goal: a total order over cases, and one class for each pass."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from harness.lemma.case import SLOTS, Case, case_of
from harness.lemma.compare_levels import Difference, Question, compare_on_case
from harness.lemma.generate import COMMON, PROFILES, SLOTS_OF, VALUES
from harness.minimiser import minimise

Order = tuple[int, int, tuple[tuple[int, int], ...]]


def order(case: Case) -> Order:
    """Return the sort key: fewer slots first, then smaller values (bits set and width), then the slot table's order."""
    weight = sum(value.bit_count() + value.bit_length() for _, value in case)
    return len(case), weight, tuple((SLOTS[name].rank, value) for name, value in case)


class Drop:
    """Put slots back to their defaults: all, all but two, then smaller and smaller parts of them."""

    def candidates(self, value: Case) -> Iterator[Case]:
        """Yield smaller cases."""
        yield ()
        if len(value) <= 14:
            yield from combinations(value, len(value) - 2) if len(value) > 2 else ()
        size = len(value) // 2
        while size:
            for at in range(0, len(value), size):
                yield value[:at] + value[at + size :]
            size //= 2


class Lower:
    """Make one value smaller: the frequent values, halving, and clearing one bit at a time."""

    def candidates(self, value: Case) -> Iterator[Case]:
        """Yield smaller cases."""
        for name, number in value if len(value) < 20 else ():
            tries = sorted({*COMMON, *VALUES.get(name, ()), *(1 << b for b in range(min(number.bit_length(), 65)))})
            tries += [number >> 1, number >> 4, number - 1]
            tries += [number & ~(1 << bit) for bit in reversed(range(number.bit_length()))]
            tries += [(number & ~(1 << bit)) | 1 << bit >> 1 for bit in range(1, number.bit_length())]
            for other in tries:
                if 0 <= other != number:
                    yield case_of(dict(value) | {name: other})


class LowerTwo:
    """Make two values smaller at once: some are tied to each other, such as an address and its page."""

    def candidates(self, value: Case) -> Iterator[Case]:
        """Yield smaller cases."""
        if len(value) > 8:
            return
        for (a, x), (b, y) in combinations(value, 2):
            for u in (0, 1, x >> 1, x - 1):
                for v in (0, 1, y >> 1, y - 1):
                    yield case_of(dict(value) | {a: max(u, 0), b: max(v, 0)})


class Move:
    """Put a value into another slot: one of its kind that comes earlier, or any that the function sees, as 1."""

    def __init__(self, function: str) -> None:
        seen = dict.fromkeys(SLOTS_OF[function])
        self._seen = tuple(sorted(seen, key=lambda name: SLOTS[name].rank))

    def candidates(self, value: Case) -> Iterator[Case]:
        """Yield smaller cases."""
        for i, (name, number) in enumerate(value):
            group = name.partition(".")[0]
            rest = dict(value[:i] + value[i + 1 :])
            for other in self._seen:
                if other in rest or other == name:
                    continue
                yield case_of(rest | {other: 1})
                if other.partition(".")[0] == group:
                    yield case_of(rest | {other: number})


class Plain:
    """The generator's profiles, and each with one frequent value: places where a least case often lies."""

    def __init__(self, function: str) -> None:
        self._profiles = PROFILES[function]

    def candidates(self, value: Case) -> Iterator[Case]:
        """Yield smaller cases."""
        for profile in self._profiles:
            yield case_of(profile)
        for dropped, idiom in IDIOMS:
            yield case_of({name: number for name, number in value if not name.startswith(dropped)} | idiom)
        if len(value) <= 3:
            for (name, number), slot in ((item, s) for item in value for s in _STEERING):
                for other in VALUES[slot]:
                    yield case_of({slot: other})
                    yield case_of({name: number, slot: other})


# The plainest way to do something that takes several slots, and the slots that it replaces: a boot image that holds
# address 0; a register, and it or the first two dirty.
_FOUND = {"info.vm_next_load_info": 1, "image0.size": 1, "image0.remap": 1}
_LOOP = ("ctxt.x", "ctxt.dirty", "host.x", "data")
IDIOMS: tuple[tuple[tuple[str, ...], dict[str, int]], ...] = (
    (("info.vm_next", "image"), _FOUND),
    (("info.vm_next", "image", "data.0", "host.pc"), _FOUND),
    (("info.vm_next", "image", "data", "host"), _FOUND),
    (_LOOP, {"ctxt.x0": 1, "ctxt.dirty": 3}),
    (_LOOP, {"ctxt.x0": 1, "ctxt.dirty": 1}),
    (_LOOP, {"ctxt.dirty": 3}),
)
_STEERING = tuple(name for name in VALUES if len(VALUES[name]) > 2)


def passes(function: str) -> tuple[Drop | Lower | LowerTwo | Move | Plain, ...]:
    """Return the passes, in the order in which they are tried."""
    return (Drop(), Lower(), Plain(function), Move(function), LowerTwo())


def least_case(question: Question, case: Case, goal: str, budget: int = 40_000) -> Case:
    """Return the least case that still shows ``goal`` and takes no branch, on either side, that ``case`` does not take.

    Raises ``ValueError`` if ``case`` does not show it.
    """
    start = compare_on_case(question, dict(case))[0]
    branch = start.branches() if isinstance(start, Difference) else frozenset()

    def shows(candidate: Case) -> bool:
        difference = compare_on_case(question, dict(candidate))[0]
        return isinstance(difference, Difference) and goal in difference.goals() and difference.branches() <= branch

    return minimise(case, shows, order, passes(question.function), budget)
