# SPDX-License-Identifier: Apache-2.0
"""Exchange scenarios between a node's corpus directory, which its workers read, and the corpus of all nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from fuzz.campaign.offers import take_offers
from fuzz.store.shared_corpus import BATCH, Offer, SharedCorpus
from harness.errors import InputError
from harness.scenario.scenario import parse
from harness.scenario.simplify import simplicity

MAX_FETCHED = 1 << 16
"""So many scenarios of others a node takes in its life: more than a target has features."""
MAX_WAITING = 4096
"""So many offers wait while the database cannot be reached; then the oldest go."""
EXCHANGED = PUSHED, FETCHED = "scenarios pushed", "scenarios fetched"
"""The counts of what went well."""


class Exchange:
    """One node's side; ``offers`` is where its workers leave what they covered first, ``corpus`` what they read.

    ``counts`` says what was pushed, fetched and refused since the start.
    """

    def __init__(self, shared: SharedCorpus, offers: Path, corpus: Path) -> None:
        self._shared, self._offers, self._corpus = shared, offers, corpus
        self._best: dict[int, int] = {}
        self._waiting: dict[str, Offer] = {}
        self._serial = 0
        self.counts: Counter[str] = Counter()

    @property
    def serial(self) -> int:
        """The serial number of the scenario that was fetched last."""
        return self._serial

    def collect(self) -> None:
        """Take what workers offered, and keep what is new on this node."""
        for found in take_offers(self._offers):
            if isinstance(found, InputError):
                self.counts["offers that cannot be read"] += 1
            elif worth := improvements(found, self._best):
                self._best |= worth
                self._waiting[found.hash] = Offer(found.text, frozenset(worth))
        while len(self._waiting) > MAX_WAITING:
            self._waiting.pop(next(iter(self._waiting)))
            self.counts["offers dropped"] += 1

    def push(self) -> None:
        """Give what waits to all.  StoreError: it could not be written; it waits."""
        if self._waiting:
            self.counts[PUSHED] += self._shared.push(tuple(self._waiting.values()))
            self._waiting.clear()

    def fetch(self) -> int:
        """Take what others found, as files for the workers; return how many.

        InputError: it could not be read.  OSError: it could not be written; the next call goes on there.
        """
        taken = 0
        while self.counts[FETCHED] < MAX_FETCHED:
            found = self._shared.fetch(self._serial)
            self.counts["rows of the corpus that cannot be read"] += len(found.unreadable)
            for offer in found.offers:
                taken += self._place(offer)
            rows = len(found.offers) + len(found.unreadable)
            self._serial = found.serial
            if rows < BATCH:
                break
        self.counts[FETCHED] += taken
        return taken

    def _place(self, offer: Offer) -> bool:
        path = self._corpus / offer.hash
        if path.exists():
            return False
        work = self._offers / f"{offer.hash}.fetched"
        work.write_text(offer.text)
        work.rename(path)  # whole, or not there: workers look at any time
        return True


def improvements(offer: Offer, best: Mapping[int, int]) -> dict[int, int]:
    """Return the features that an offer covers first, or as the simplest, each with how simple it is."""
    weight = simplicity(parse(offer.text.encode()))
    return {feature: weight for feature in offer.features if weight < best.get(feature, weight + 1)}


def sentences(counts: Mapping[str, int], names: Iterable[str] = ()) -> tuple[str, ...]:
    """Return what is not 0 of counts, each as one line, those of ``names`` left out."""
    leave = set(names)
    return tuple(f"{name}: {count}" for name, count in sorted(counts.items()) if count and name not in leave)
