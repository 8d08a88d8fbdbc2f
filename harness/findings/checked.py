# SPDX-License-Identifier: Apache-2.0
"""What a check found: explained and unexplained divergences, and what could not be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from harness.findings.intended_changes import Intended
from harness.findings.known_divergences import Known
from harness.relations.divergence import Divergence, is_new


class ExplainedDivergence(NamedTuple):
    """A divergence, and the entry of the catalogue that explains it (None: unexplained)."""

    divergence: Divergence
    known: Known | Intended | None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """All that one run of a scenario showed.

    ``exits`` counts the exits by class; ``relations`` the comparisons made, by relation; ``unchecked`` and
    ``undefined`` what could not be compared, by reason; ``paths`` the model's decisions, round by round.
    """

    status: str
    dropped: int
    exits: Mapping[str, int]
    relations: Mapping[str, int]
    judged: tuple[ExplainedDivergence, ...]
    unchecked: Mapping[str, int]
    undefined: Mapping[str, int]
    paths: tuple[tuple[str, tuple[tuple[str, bool], ...]], ...]

    @property
    def unexplained(self) -> tuple[Divergence, ...]:
        """The divergences that no entry explains."""
        return tuple(j.divergence for j in self.judged if j.known is None)


_ANY_GPR = ("x", "dirty.x", "entry.x", "exit.x", "user.x")


def signature(divergence: Divergence) -> tuple[str, ...]:
    """Return what makes two divergences members of one cluster: relation, register, exit class, helper.

    General-purpose registers are one class, so that a fault that hits any of them is one cluster.  What no erratum of
    the target predicts, though it is where one shows, has a cluster of its own: a cause that is new comes last.
    """
    register = divergence.register
    if register.startswith(_ANY_GPR):
        register = register.rstrip("0123456789") + "N"
    plain = divergence.relation, register, divergence.exit_class, divergence.helper
    return (*plain, divergence.cause) if is_new(divergence.cause) else plain


class Comparison(NamedTuple):
    """A comparison made at an event of the trace; with ``left_out``, what was not compared there, and why."""

    relation: str
    event: int
    left_out: str = ""


ComparisonListener = Callable[[Comparison], None]
