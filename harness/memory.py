# SPDX-License-Identifier: Apache-2.0
"""What is in the guest's RAM, as far as the record tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness import a64
from harness.layout import REGIONS, Region


def is_store(word: int) -> bool:
    """Whether an instruction of a scenario writes to memory."""
    access = a64.decode_access(word)
    if access is not None:
        return access.is_store
    row = a64.decode_plain(word)
    return row is not None and row.is_store


class Memory:
    """The host's RAM by 64-bit words: zero at the start, then what the host wrote; unknown where the guest stored.

    Words have the addresses of the default layout; ``regions`` is what the guest finds where; ``code_changed``: the
    guest may have stored where its code is, if it can.
    """

    def __init__(self, code: Mapping[int, int] | None = None) -> None:
        self._words: dict[int, int | None] = {}
        self._default: int | None = 0
        self.regions = REGIONS
        self.code_changed = False
        self._may_store = code is None or any(map(is_store, code.values()))

    def slot(self, ipa: int) -> Region | None:
        """Return the memory slot at a guest physical address."""
        for region in self.regions:
            if region.slot and region.base <= ipa < region.base + region.size:
                return region
        return None

    def home(self, ipa: int) -> int | None:
        """Return the address in the default layout of what is at a guest physical address, None if it is no RAM."""
        slot = self.slot(ipa)
        return None if slot is None or slot.home is None else ipa - slot.base + slot.home

    def write(self, address: int, value: int) -> None:
        """The host writes the word at ``address`` (of the default layout), a multiple of 8."""
        self._words[address] = value

    def stored(self, words: Iterable[int]) -> None:
        """The guest may have changed these words (addresses of the default layout)."""
        self._words.update(dict.fromkeys(words))

    def lose(self) -> None:
        """Nobody knows what the guest did: it may have stored anywhere, if its code has a store at all."""
        if self._may_store:
            self._words.clear()
            self._default = None
            self.code_changed = True

    def read(self, ipa: int) -> int | None:
        """Return the word at a guest physical address, a multiple of 8; None: nobody knows, or it is no RAM."""
        home = self.home(ipa)
        return None if home is None else self._words.get(home, self._default)
