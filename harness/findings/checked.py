# SPDX-License-Identifier: Apache-2.0
"""Hold the results of a check: explained and unexplained divergences, and what could not be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from harness.findings.intended_changes import Intended
from harness.findings.known_divergences import Known
from harness.relations.divergence import Divergence


class ExplainedDivergence(NamedTuple):
    """A divergence, and the entry of the catalogue that explains it (None: unexplained)."""

    divergence: Divergence
    known: Known | Intended | None


class Gap(NamedTuple):
    """Something that was not compared: the relation, why, and the event (None: the whole trace)."""

    what: str
    why: str
    event: int | None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The results of one run of a scenario.

    ``exits`` counts the exits by class; ``relations`` the comparisons made, by relation; ``unchecked`` and
    ``undefined`` what could not be compared, by reason; ``paths`` the model's decisions, round by round.  ``gaps`` are
    the comparisons that could not be made, one by one.  ``attempted`` counts the comparisons that each relation had to
    make, ``incomplete`` those of them that left something out.  ``stood_in`` counts, by reason, those that another
    relation made in place of one that could not.
    """

    status: str
    dropped: int
    exits: Mapping[str, int]
    relations: Mapping[str, int]
    judged: tuple[ExplainedDivergence, ...]
    unchecked: Mapping[str, int]
    undefined: Mapping[str, int]
    paths: tuple[tuple[str, tuple[tuple[str, bool], ...]], ...]
    gaps: tuple[Gap, ...] = ()
    attempted: Mapping[str, int] = field(default_factory=dict)
    incomplete: Mapping[str, int] = field(default_factory=dict)
    stood_in: Mapping[str, int] = field(default_factory=dict)

    @property
    def complete_share(self) -> float:
        """The share of comparisons that left nothing out; 1 if there was none to make."""
        return complete_share(self.attempted, self.incomplete)

    @property
    def unexplained(self) -> tuple[Divergence, ...]:
        """The divergences that no entry explains."""
        return tuple(j.divergence for j in self.judged if j.known is None)


def complete_share(attempted: Mapping[str, int], incomplete: Mapping[str, int]) -> float:
    """Return the share of comparisons that left nothing out, from both counts by relation."""
    total = sum(attempted.values())
    return 1 - sum(incomplete.values()) / total if total else 1.0


_ANY_GPR: Final = ("x", "dirty.x", "entry.x", "exit.x", "user.x")


def signature(divergence: Divergence) -> tuple[str, ...]:
    """Return what makes two divergences members of one cluster: relation, register, exit class, helper, cause.

    General-purpose registers are one class, so that a fault that hits any of them is one cluster.  The cause is
    included only if it is determined (:class:`harness.relations.divergence.Divergence`).
    """
    register = divergence.register
    if register.startswith(_ANY_GPR):
        register = register.rstrip("0123456789") + "N"
    plain = divergence.relation, register, divergence.exit_class, divergence.helper
    return (*plain, divergence.cause) if divergence.cause else plain


class Comparison(NamedTuple):
    """A comparison made at an event of the trace; with ``left_out``, what was not compared there, and why."""

    relation: str
    event: int
    left_out: str = ""


ComparisonListener = Callable[[Comparison], None]
