# SPDX-License-Identifier: Apache-2.0
"""Compute the coverage counters that a checked scenario hits: the model's decisions, and KVM's handling of exits."""

from __future__ import annotations

from functools import lru_cache

from fuzz.campaign.counters_file import COVERAGE_SIZE
from fuzz.campaign.libfuzzer_counters import key_index
from harness.arch import exits
from harness.findings.checked import CheckResult
from harness.trace.events import ENTRY, EXIT, USER, Switch, Trace

Path = tuple[tuple[str, bool], ...]


def _index(*parts: object) -> int:
    return key_index(*parts) % COVERAGE_SIZE


@lru_cache(maxsize=1 << 13)
def _decisions(exit_class: str, path: Path) -> frozenset[int]:
    """Return counters of the pairs of consecutive decisions in one round."""
    edges = zip((("", False), *path), (*path, ("", True)), strict=True)
    return frozenset(_index(exit_class, before, after) for before, after in edges)


@lru_cache(maxsize=1 << 13)
def _turn(before: str, exit_class: str, outcome: tuple[int, ...]) -> int:
    """Return the counter of the previous exit class, this one, and how KVM handled it."""
    return _index("turn", before, exit_class, outcome)


@lru_cache(maxsize=1 << 13)
def _detail(exit_class: str, detail: int, outcome: tuple[int, ...]) -> int:
    return _index("detail", exit_class, detail, outcome)


_NO_DETAIL = -1
_SYNDROME = exits.ISS_MASK & ~(0x1F << 16)
"""The syndrome of a data abort without SRT, the register that is transferred."""


def _detail_of(event: Switch) -> int:
    """Return what distinguishes exits of one class: the PSCI or SMCCC function, the kind of access."""
    ec = exits.ec_of(event.esr)
    if ec == exits.EC_BY_NAME["HVC64"]:
        function = event.values[0] & 0xFFFF_FFFF
        return function if function in exits.SMCCC_BY_FID else _NO_DETAIL
    return event.esr & _SYNDROME if ec == exits.EC_BY_NAME["DABT_LOW"] else _NO_DETAIL


_Turn = tuple[str, str, int, tuple[int, ...]]
"""The exit class before, this one, its detail, how KVM handled it."""


def _turns(trace: Trace) -> set[_Turn]:
    """Return how each vCPU went on; most turns of a scenario are there several times."""
    before, exit_class = "", "FIRST"
    detail = _NO_DETAIL
    reasons: list[int] = []
    found: set[_Turn] = set()
    for event in trace.events:
        if not isinstance(event, Switch):
            continue
        if event.kind == EXIT:
            before, exit_class = exit_class, exits.exit_class(event.code, event.esr)
            detail = _detail_of(event)
        elif event.kind == USER:
            reasons.append(event.code)
        elif event.kind == ENTRY:
            found.add((before, exit_class, detail, (*reasons[:2], event.pending)))
            reasons.clear()
    return found


def features(trace: Trace, checked: CheckResult) -> set[int]:
    """Return the counters that a scenario hits, each once: the number of hits says little about a list of steps."""
    found: set[int] = set()
    for before, exit_class, detail, outcome in _turns(trace):
        found.add(_turn(before, exit_class, outcome))
        found.add(_detail(exit_class, detail, outcome))
    for exit_class, path in set(checked.paths):  # most are there several times
        found |= _decisions(exit_class, path)
    return found
