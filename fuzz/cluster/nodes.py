# SPDX-License-Identifier: Apache-2.0
"""What the head of a cluster needs of its nodes; Ray implements it (:mod:`fuzz.cluster.ray_nodes`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Place:
    """A node where an actor may be started: its host's name, and how many CPUs it offers."""

    host: str
    cpus: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question: a report as ``text``; or why the node is ``gone``; nothing: it may still come back."""

    text: str = ""
    gone: str = ""


class Nodes(Protocol):
    """The nodes of a cluster; none of these waits for a node."""

    def places(self) -> Mapping[str, Place]:
        """Return the nodes that are there now."""
        ...

    def start(self, node: str, place: str, job: str) -> None:
        """Start the actor of a node at a place."""
        ...

    def ask(self, node: str, question: float | str) -> None:
        """Ask a node: how it stands, with seconds between two of its looks at the database; or what is to be done."""
        ...

    def answers(self) -> Iterator[tuple[str, Answer]]:
        """Yield what nodes answered since the last call."""
        ...

    def stop(self, node: str) -> None:
        """Make a node end."""
        ...

    def forget(self, node: str) -> None:
        """End the actor of a node at once."""
        ...
