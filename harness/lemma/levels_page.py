# SPDX-License-Identifier: Apache-2.0
"""Write the page ``docs/lemma-levels.md``: the result of each level on one state for each of its paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

from harness.lemma.case import Case, build
from harness.lemma.clusters import field_text
from harness.lemma.compare_levels import differing, run_side
from harness.lemma.generate import COLOURS
from harness.lemma.path_states import PathState, digest, load_paths
from harness.model import FUNCTION, LEVEL_NAMES
from harness.model.constants import ctxt_id

HEAD = """\
# What each level does, path by path

Generated; do not edit. Made from `corpus/lemmas/paths.json` by `shadowfuzz lemma --page`; the rows are collected by
`shadowfuzz lemma --paths`. [The lemmas](lemmas.md) compare the levels with each other. This page shows each level by
itself: what two levels do alike is no difference there, and a change of it is a change here.

A row is the least state found on a path of some level. The state column has what steers the path and values that fit
no 64 bits; every other register, host register and oracle value has a value of its own, so that a value in a wrong
place shows. The file has each state whole. A cell lists the fields that the function changes, with their values after
it, or why it is undefined; it is empty where the state is not run on the level. `as spec` is the same result. Level
`kernel` reads the host-visible registers where the others ask the oracle. Where a cell does not show all, eight digits
of a hash over the whole state follow.
"""
SHOWN = 4
"""Fields of a cell."""
_PARTLY_SHOWN = ("log", "npts", "s2page", "flatmem", "vminfos", "revealed", "lock")


def render_levels(directory: Path) -> str:
    """Return the page, from the states stored in ``directory``."""
    rows = load_paths(directory / "paths.json")
    return "\n".join([HEAD, *(_function(name, tuple(group)) for name, group in groupby(rows, lambda r: r.function))])


def _function(name: str, rows: tuple[PathState, ...]) -> str:
    by_case: dict[Case, dict[str, str]] = {}
    for row in rows:
        cells = by_case.setdefault(row.case, {})
        cells.update((level, _cell(row, level)) for level, _ in row.outcomes)
    lines = [
        f"## `{FUNCTION[name].layer}.{name}`",
        "",
        f"| state | {' | '.join(LEVEL_NAMES)} |",
        "|---|---|---|---|---|",
        *(f"| {_state(case)} | {' | '.join(_merged(cells))} |" for case, cells in by_case.items()),
    ]
    return "\n".join([*lines, ""])


def _state(case: Case) -> str:
    """Return what steers the path: a slot that steers nothing shows only if its value fits no 64 bits."""
    steering = ((name, value) for name, value in case if name not in COLOURS or value >> 64)
    return ", ".join(f"`{name}` = {value:#x}" for name, value in steering) or "the plain state"


def _merged(cells: Mapping[str, str]) -> Iterator[str]:
    """Yield the cells in the order of the levels; one that repeats an earlier one names that level."""
    seen: dict[str, str] = {}
    for level in LEVEL_NAMES:
        text = cells.get(level, "")
        yield f"as {seen[text]}" if text in seen else text
        if text:
            seen.setdefault(text, level)


def _cell(row: PathState, level: str) -> str:
    case = {**COLOURS, **dict(row.case)}
    start, args = build(case, row.function, row.coupled)
    after = start.copy()
    reason = run_side(level, row.function, after, args)
    if reason is not None:
        return f"undefined: {reason}"
    key = ctxt_id(case.get("vmid", 1), case.get("vcpuid", 0))
    fields = differing(start, after, True, False, key)
    listed = [f for f in fields if f != "host_regs"]  # at level kernel, what it reveals
    text = [f"`{f}` {field_text(after, f, key)}" for f in listed[:SHOWN]]
    more = len(listed) - SHOWN
    if more > 0:
        text.append(f"and {more} more field{'s' if more > 1 else ''}")
    if more > 0 or len(listed) < len(fields) or any(f.partition(".")[0] in _PARTLY_SHOWN for f in fields):
        text.append(f"`{digest(after)[:8]}`")
    return "<br>".join(text) or "nothing"
