# SPDX-License-Identifier: Apache-2.0
"""Keep the contents of the guest's RAM, as far as they follow from the trace."""

from __future__ import annotations

from collections.abc import Mapping

from harness.arch import a64
from harness.layout import REGIONS, Region


def is_store(word: int) -> bool:
    """Whether an instruction of a scenario writes to memory."""
    access = a64.decode_access(word)
    if access is not None:
        return access.is_store
    row = a64.decode_plain(word)
    return row is not None and row.is_store


class Memory:
    """RAM by 64-bit words: zero at the start, then what host and guest wrote; a word may be unknown.

    Words have the addresses of the default layout.  ``regions`` are the memory slots as the guest has them.
    ``code_changed``: the guest may have stored to its code.  ``known`` is False if no word was ever known.
    """

    def __init__(self, code: Mapping[int, int] | None = None) -> None:
        self._words: dict[int, int | None] = {}
        self._default: int | None = 0
        self.known = True
        self.regions = REGIONS
        self.code_changed = False
        self._may_store = code is None or any(map(is_store, code.values()))

    @classmethod
    def unknown(cls) -> Memory:
        """Return memory of the default layout whose contents are unknown."""
        memory = cls()
        memory.known = False
        memory.mark_unknown()
        return memory

    def slot(self, ipa: int) -> Region | None:
        """Return the memory slot at a guest physical address."""
        for region in self.regions:
            if region.slot and region.base <= ipa < region.base + region.size:
                return region
        return None

    def home(self, ipa: int) -> int | None:
        """Return the address in the default layout for a guest physical address; None: it is no RAM."""
        slot = self.slot(ipa)
        return None if slot is None or slot.home is None else ipa - slot.base + slot.home

    def write(self, address: int, value: int) -> None:
        """Enter a write of the host to the word at ``address`` of the default layout, a multiple of 8."""
        self._words[address] = value

    def stored(self, words: Mapping[int, int | None]) -> None:
        """Enter words that the guest changed, by address of the default layout; None: unknown to what."""
        self._words.update(words)

    def mark_unknown(self) -> None:
        """Enter that the guest may have stored anywhere, if its code has a store at all."""
        if self._may_store:
            self._words.clear()
            self._default = None
            self.code_changed = True

    def read(self, ipa: int) -> int | None:
        """Return the word at a guest physical address, a multiple of 8; None: unknown, or no RAM."""
        home = self.home(ipa)
        return None if home is None else self._words.get(home, self._default)


class RunMemory(Memory):
    """Memory during one run of the guest, with the words that the guest changed in ``stored_words``.

    A load reads the changed words.  A table walk reads them as unknown, because a TLB may hold the entry from before.
    """

    def __init__(self, memory: Memory) -> None:
        self.known = memory.known
        self._words, self._default, self._may_store = memory._words, memory._default, memory._may_store
        self.regions = memory.regions
        self.stored_words: dict[int, int | None] = {}
        if isinstance(memory, RunMemory):
            self.stored_words.update(memory.stored_words)

    @classmethod
    def after(cls, memory: Memory, stored: Mapping[int, int | None]) -> RunMemory:
        """Return memory at the end of a run that changed the words ``stored``, by address of the default layout."""
        run = cls(memory)
        run.stored_words.update(stored)
        return run

    def read(self, ipa: int) -> int | None:
        """Return the word at a guest physical address as it was at the entry; None: unknown, or changed since."""
        return None if self.home(ipa) in self.stored_words else super().read(ipa)

    def load(self, ipa: int, size: int) -> bytes | None:
        """Return the bytes that a load inside one slot reads; None: unknown."""
        home, data = self.home(ipa), b""
        if home is None:
            return None
        for word in range(home & -8, home + size, 8):
            value = self.stored_words.get(word, self._words.get(word, self._default))
            if value is None:
                return None
            data += value.to_bytes(8, "little")
        return data[home & 7 :][:size]

    def store(self, ipa: int, size: int, data: bytes | None) -> None:
        """Store ``size`` bytes inside one slot; None: unknown bytes."""
        home = self.home(ipa)
        if home is None:
            return
        first, last = home & -8, (home + size - 1) & -8
        before = self.load(ipa - (home - first), last + 8 - first) if data is not None else None
        if data is not None and size % 8 == home % 8 == 0:
            before = data
        for word in range(first, last + 8, 8):
            self.stored_words[word] = None
        if data is not None and before is not None:
            after = before[: home - first] + data + before[home - first + size :]
            for i, word in enumerate(range(first, last + 8, 8)):
                self.stored_words[word] = int.from_bytes(after[8 * i :][:8], "little")
