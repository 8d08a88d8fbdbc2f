# SPDX-License-Identifier: Apache-2.0
"""Define what every relation returns: a divergence, or what could not be compared and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import compress
from operator import ne
from typing import Final, NamedTuple

from harness.arch.exceptions import State
from harness.arch.registers import NAMES

_POSITIONS: Final = range(len(NAMES))


ANOTHER_CAUSE: Final = "another cause"
"""A divergence at a place where an erratum of the target may cause one, and that no set of errata predicts."""
SEEN_AGAIN: Final = "seen on a release where it was thought fixed"
"""Follows the errata of a cause, one of which is recorded for other releases than the target's."""


def is_new(cause: str) -> bool:
    """Whether a cause is not recorded for the target."""
    return cause == ANOTHER_CAUSE or cause.endswith(f"({SEEN_AGAIN})")


def joined(errata: Iterable[str]) -> str:
    """Return the cause of these errata together."""
    return ", ".join(sorted(errata))


def causes(cause: str) -> tuple[str, ...]:
    """Return the errata of a cause."""
    return () if cause == ANOTHER_CAUSE else tuple(filter(None, cause.removesuffix(f" ({SEEN_AGAIN})").split(", ")))


class Divergence(NamedTuple):
    """One difference: relation with register (``restore.x3``), values, and where in the trace it was seen.

    ``cause`` names the errata that predict it bit for bit (:mod:`harness.findings.attribution`), with
    :data:`SEEN_AGAIN` if they are not all the target's, or is :data:`ANOTHER_CAUSE`; empty: not determined
    (:func:`joined`, :func:`causes`).  ``basis`` is what it violates (:mod:`harness.relations.basis`).
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
    basis: str = ""

    @property
    def name(self) -> str:
        """The relation as reports write it."""
        return f"{self.relation}.{self.register}" if self.register else self.relation


def different(a: State, b: State) -> list[int]:
    """Return where two tuples of one length differ."""
    return [] if a == b else list(compress(_POSITIONS, map(ne, a, b)))


class Unchecked(NamedTuple):
    """Something that could not be compared, and why; counted and shown.

    ``event``: where in the trace; None: at the evidence that the relation was given.
    """

    what: str
    why: str
    event: int | None = None


def any_divergence(found: Sequence[Divergence | Unchecked]) -> bool:
    return any(isinstance(one, Divergence) for one in found)
