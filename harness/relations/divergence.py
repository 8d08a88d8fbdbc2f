# SPDX-License-Identifier: Apache-2.0
"""What every relation returns: a divergence, or what could not be compared and why."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from operator import ne
from typing import NamedTuple

from harness.arch.exceptions import State
from harness.arch.registers import NAMES

_POSITIONS = range(len(NAMES))


ANOTHER_CAUSE = "another cause"
"""A divergence that an erratum of the target might cause by its place, and that no set of errata predicts."""


class Divergence(NamedTuple):
    """One difference: relation with register (``restore.x3``), values, and where in the trace it was seen.

    ``cause`` names the errata that predict it bit for bit (:mod:`harness.findings.attribution`), or is
    :data:`ANOTHER_CAUSE`; empty: not determined.
    """

    relation: str
    register: str
    expected: int | str
    observed: int | str
    exit_class: str
    event: int
    step: int
    helper: str = ""
    cause: str = ""

    @property
    def name(self) -> str:
        """The relation as reports write it."""
        return f"{self.relation}.{self.register}" if self.register else self.relation


def different(a: State, b: State) -> list[int]:
    """Return where two tuples of one length differ."""
    return [] if a == b else list(compress(_POSITIONS, map(ne, a, b)))


class Unchecked(NamedTuple):
    """Something that could not be compared, and why; counted and shown.

    ``event``: where in the trace; None: where the relation was asked.
    """

    what: str
    why: str
    event: int | None = None


def any_divergence(found: Sequence[Divergence | Unchecked]) -> bool:
    return any(isinstance(one, Divergence) for one in found)
