# SPDX-License-Identifier: Apache-2.0
"""What a worker covered first, as files that the parent of its campaign reads: for campaigns on many machines.

A *feature* is a counter of the model's coverage (:mod:`fuzz.campaign.features`), or an edge of KVM's own code: its
number is a hash of the two blocks, the same on every machine that runs the same kernel.  A worker offers a scenario
that covers something that it did not see before.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

from fuzz.campaign.counters_file import COVERAGE_SIZE
from fuzz.store.shared_corpus import MAX_BYTES, MAX_FEATURE, Offer, checked_offer
from harness.errors import InputError
from harness.scenario.scenario import Scenario, format_scenario
from harness.vm.plugins.edges import EDGES, Edge, EdgeMap

OFFERS, SUFFIX = "offers", ".json"
"""The directory of these files, below that of a run, and what their names end with."""
MAX_FILE = 1 << 20
FIRST_EDGE = COVERAGE_SIZE
"""Features from this number on are edges."""


def edge_feature(edge: Edge) -> int:
    """Return the number of an edge of KVM's code."""
    return FIRST_EDGE + zlib.crc32(struct.pack("<II", *edge)) % (MAX_FEATURE - FIRST_EDGE)


class NewEdges:
    """The edges that a scenario took and none before it; most scenarios take none."""

    def __init__(self, edges: EdgeMap) -> None:
        self._edges = edges
        self._seen = 0

    def __call__(self) -> frozenset[int]:
        """Return the features of the edges that the last scenario was the first to take."""
        taken = int.from_bytes(self._edges.counters().translate(_TAKEN), "little")
        new = taken & ~self._seen
        self._seen |= new
        places = [place for place, byte in enumerate(new.to_bytes(EDGES, "little")) if byte] if new else ()
        return frozenset(edge_feature(self._edges.edge_at(place)) for place in places)


_TAKEN = bytes([0] + [1] * 255)


class Offers:
    """Writes the offers of one worker to a directory; ``edges`` returns what is new of KVM's own code.

    An offer has all counters of the model that the scenario covers, and the edges that it was the first to take.
    """

    def __init__(self, place: Path, edges: Callable[[], frozenset[int]] = frozenset) -> None:
        self._place, self._edges = place, edges
        self._seen: set[int] = set()

    def __call__(self, scenario: Scenario, covered: AbstractSet[int]) -> None:
        """Offer a scenario, if it covered anything for the first time; a full disk is no reason to stop."""
        edges = self._edges()
        if not edges and covered <= self._seen:
            return
        self._seen |= covered
        text = format_scenario(scenario)
        if len(text.encode()) > MAX_BYTES:
            return
        offer = Offer(text, frozenset(covered | edges))
        with suppress(OSError):
            work = self._place / f"{offer.hash}.{id(self)}"
            work.write_text(json.dumps({"scenario": text, "features": sorted(offer.features)}))
            work.rename(self._place / f"{offer.hash}{SUFFIX}")


def take_offers(place: Path) -> Iterator[Offer | InputError]:
    """Yield what workers offered, and remove it; InputError: a file holds something else."""
    for path in sorted(place.glob(f"*{SUFFIX}")):
        try:
            data = path.read_bytes() if path.stat().st_size <= MAX_FILE else b""
            path.unlink()
        except OSError:
            continue
        try:
            row = json.loads(data)
            yield checked_offer(str(row["scenario"]), list(row["features"]), path.name)
        except InputError as error:
            yield error
        except (ValueError, KeyError, TypeError, RecursionError):
            yield InputError(path.name, None, "no offer of a worker: expected a scenario with features")
