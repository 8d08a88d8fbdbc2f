# SPDX-License-Identifier: Apache-2.0
"""What is in the guest's RAM, as far as the record tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness import a64


def is_store(word: int) -> bool:
    """Whether an instruction of a scenario writes to memory."""
    access = a64.decode_access(word)
    if access is not None:
        return access.is_store
    row = a64.decode_plain(word)
    return row is not None and row.is_store


class Memory:
    """DATA by 64-bit words: zero at the start, then what the host wrote; unknown where the guest may have stored."""

    def __init__(self, code: Mapping[int, int] | None = None) -> None:
        self._words: dict[int, int | None] = {}
        self._default: int | None = 0
        self._may_store = code is None or any(map(is_store, code.values()))

    def write(self, address: int, value: int) -> None:
        """The host writes the word at ``address``, a multiple of 8."""
        self._words[address] = value

    def stored(self, words: Iterable[int]) -> None:
        """The guest may have changed these words."""
        self._words.update(dict.fromkeys(words))

    def lose(self) -> None:
        """Nobody knows what the guest did: it may have stored anywhere, if its code has a store at all."""
        if self._may_store:
            self._words.clear()
            self._default = None

    def read(self, address: int) -> int | None:
        """Return the word at ``address``, a multiple of 8; None: nobody knows."""
        return self._words.get(address, self._default)
