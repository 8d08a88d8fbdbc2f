# SPDX-License-Identifier: Apache-2.0
"""What a checked scenario covered, as indices of coverage counters: the model's decisions, and what KVM did."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from fuzz.counters import key_index
from fuzz.stats import COVERAGE_SIZE
from harness import exits
from harness.check import Checked
from harness.trace import ENTRY, EXIT, USER, Switch, Trace

Path = tuple[tuple[str, bool], ...]


def _index(*parts: object) -> int:
    return key_index(*parts) % COVERAGE_SIZE


@lru_cache(maxsize=1 << 13)
def _decisions(exit_class: str, path: Path) -> frozenset[int]:
    """The edges between consecutive decisions in one round."""
    edges = zip((("", False), *path), (*path, ("", True)), strict=True)
    return frozenset(_index(exit_class, before, after) for before, after in edges)


@lru_cache(maxsize=1 << 13)
def _turn(before: str, exit_class: str, outcome: tuple[int, ...]) -> int:
    """The exit class before, this one, and what KVM did with it."""
    return _index("turn", before, exit_class, outcome)


def _turns(trace: Trace) -> Iterator[int]:
    before, exit_class = "", "FIRST"
    reasons: list[int] = []
    for event in trace.events:
        if not isinstance(event, Switch):
            continue
        if event.kind == EXIT:
            before, exit_class = exit_class, exits.exit_class(event.code, event.esr)
        elif event.kind == USER:
            reasons.append(event.code)
        elif event.kind == ENTRY:
            yield _turn(before, exit_class, (*reasons[:2], event.pending))
            reasons.clear()


def features(trace: Trace, checked: Checked) -> set[int]:
    """Return the counters that a scenario hits, each once: how often says little about a list of steps."""
    found = set(_turns(trace))
    for exit_class, path in checked.paths:
        found |= _decisions(exit_class, path)
    return found
