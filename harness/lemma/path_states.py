# SPDX-License-Identifier: Apache-2.0
"""Store a state for each path of each level and for each row of the generator, with a digest of the outcome.

Registers, host registers and oracle values that steer nothing have distinct values: a value in a wrong place shows.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.jsonfile import reading
from harness.lemma.case import STORED, Case, build, case_of
from harness.lemma.compare_levels import run_side
from harness.lemma.generate import COLOURS, generator_rows, random_case
from harness.lemma.shrink import order
from harness.model import FUNCTIONS, LEVEL_NAMES
from harness.model.state import BLANK, EXHAUSTED, RData


@dataclass(frozen=True, slots=True)
class PathState:
    """A state of a function, and the outcome of each level: a digest, or why it is undefined."""

    function: str
    coupled: bool
    case: Case
    outcomes: tuple[tuple[str, str], ...]


def outcome(level: str, function: str, coupled: bool, case: Mapping[str, int]) -> tuple[str, tuple[object, ...]]:
    """Return the digest of the final state, or the reason, and each decision once in order."""
    d, args = build({**COLOURS, **case}, function, coupled)
    reason = run_side(level, function, d, args)
    path = tuple(dict.fromkeys(d.path))
    return (digest(d) if reason is None else f"undefined: {reason}"), path


def digest(d: RData) -> str:
    """Return sixteen hex digits over every field of a state."""
    contexts = {k: [(n, v) for n, v in c.items() if v] for k, c in sorted(d.shadow_ctxts.items()) if c != BLANK}
    hosts = {k: [(n, v) for n, v in c.items() if v] for k, c in sorted(d.host_regs.items())}
    npts = {
        k: (sorted(n.pt.items()), sorted(n.pgd_t), sorted(n.pud_t), sorted(n.pmd_t), n.pgd_next, n.pud_next, n.pmd_next)
        for k, n in sorted(d.npts.items())
    }
    parts: list[Any] = [d.halt, d.curid, d.cur_vmid, d.cur_vcpuid, d.tstate, contexts, hosts, npts, d.revealed]
    maps: list[Mapping[int, Any]] = [d.data_log, d.core_data_log, d.vminfos, d.s2page, d.flatmem, d.lock, d.log]
    parts += [sorted(m.items()) for m in maps]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def collect_path_states(tries: int, seed: int) -> tuple[PathState, ...]:
    """Return the generator's rows, and the least state of each path of each level.

    ``tries``: random states of each function.
    """
    rng = random.Random(seed)
    rows: list[PathState] = []
    for function in (f.name for f in FUNCTIONS):
        best: dict[tuple[object, ...], tuple[Case, bool]] = {}
        for _ in range(tries):
            case = case_of(random_case(rng, function))
            for level in LEVEL_NAMES:
                coupled = level == "kernel"
                result, path = outcome(level, function, coupled, dict(case))
                if result == f"undefined: {EXHAUSTED}":
                    continue
                key = (level, path, result if result.startswith("undefined") else "")
                if key not in best or order(case) < order(best[key][0]):
                    best[key] = (case, coupled)
        plain = {(case_of(case), coupled) for case in generator_rows(function) for coupled in (False, True)}
        rows += [path_state(function, coupled, case) for case, coupled in sorted(plain.union(best.values()))]
    return tuple(rows)


def path_state(function: str, coupled: bool, case: Case) -> PathState:
    """Run the levels on a state; only level kernel runs on a coupled one."""
    levels = ("kernel",) if coupled else LEVEL_NAMES[:3]
    found = tuple((level, outcome(level, function, coupled, dict(case))[0]) for level in levels)
    return PathState(function, coupled, case, found)


def store_paths(path: Path, rows: tuple[PathState, ...]) -> None:
    """Write the states, one a line."""
    lines = [json.dumps([r.function, r.coupled, dict(r.case), dict(r.outcomes)]) for r in rows]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def load_paths(path: Path) -> tuple[PathState, ...]:
    """Read the states.  InputError: the file is something else."""
    with reading(path, STORED) as rows:
        return tuple(
            PathState(function, coupled, case_of(case), tuple(outcomes.items()))
            for function, coupled, case, outcomes in rows
        )


def changed_outcome(row: PathState) -> str | None:
    """Return how the outcome of a stored state differs from the stored one, or None."""
    again = path_state(row.function, row.coupled, row.case)
    for (level, old), (_, new) in zip(row.outcomes, again.outcomes, strict=True):
        if old != new:
            return f"{level} {row.function} on {dict(row.case)}: {old} became {new}"
    return None
