# SPDX-License-Identifier: Apache-2.0
"""Read a kernel's symbols from the kallsyms tables in its image; Debian's System.map is a stub.

Written by scripts/kallsyms.c in the Linux sources, read by kernel/kallsyms.c: names are strings of tokens, addresses
are offsets from the first one.  The tables have no header; they are found by the tokens of the ten digits, which are
contiguous in every kernel.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from harness.errors import SetupError

DIGITS = b"".join(bytes([digit]) + b"\0" for digit in b"0123456789")
TOKENS = 256
MARKED = 256
"""Number of names for each marker."""
MAX_NAME_ROOM = 1 << 17
"""An upper bound of the bytes of the names after the last marker."""
MAX_SEQUENCES = 1 << 21
"""An upper bound of the bytes of the markers and of the gap between markers and tokens."""
MIN_MARKERS = 64
RELATIVE = struct.pack("<Q", 0x403)
"""R_AARCH64_RELATIVE, ELF for the Arm 64-bit Architecture, 5.7."""
KERNEL_HALF = 0x1_FFFF
"""The upper 17 bits of a kernel's address."""
SAMPLED = 7
"""Stride of the sample of words that determines the pointers' targets."""
LOAD_OFFSET = 0x20_0000
"""Offset in RAM at which QEMU loads an image whose text_offset is 0 (hw/arm/boot.c, load_aarch64_image)."""


@dataclass(frozen=True, slots=True)
class Symbols:
    """A kernel's symbols, sorted by address; ``base`` is ``_text``, the first byte of the image."""

    base: int
    addresses: tuple[int, ...]
    names: tuple[str, ...]
    size: int
    _by_name: Mapping[str, int] = field(repr=False)

    def address(self, name: str) -> int | None:
        """Return a symbol's address; of several with one name, the first."""
        return self._by_name.get(name)

    def at(self, address: int) -> tuple[str, int] | None:
        """Return the symbol that contains an address, and the offset in it; None outside of the image."""
        if not self.base <= address < self.base + self.size:
            return None
        index = bisect_right(self.addresses, address) - 1
        return self.names[index], address - self.addresses[index]

    def text(self, address: int) -> str:
        """Return ``symbol+0x10``, or an empty text if no symbol contains the address."""
        found = self.at(address)
        return "" if found is None else f"{found[0]}+{found[1]:#x}"

    def of_physical(self, address: int, ram_base: int) -> int:
        """Return the kernel virtual address of a physical address in its image.

        nVHE's EL2 code runs at other virtual addresses than the symbols', but in the same memory.
        """
        return address - (ram_base + LOAD_OFFSET) + self.base

    def of_hyp(self, address: int, ram_base: int, ram_size: int) -> int:
        """Return the kernel virtual address of a virtual address of nVHE's EL2, on a machine with this RAM.

        EL2 maps memory at the offsets of the kernel's linear map, with other bits above those that RAM needs
        (arch/arm64/kvm/va_layout.c, init_hyp_va_mask_and_tag); ``ram_base`` is a multiple of that.
        """
        return self.of_physical(ram_base + (address & ((1 << (ram_size - 1).bit_length()) - 1)), ram_base)


def read_symbols(image: Path) -> Symbols:
    """Read the symbols of an arm64 ``Image``.  SetupError: it has no readable symbols."""
    try:
        data = image.read_bytes()
    except OSError as error:
        raise SetupError(f"{image}: cannot be read: {error.strerror}") from error
    for at in _every(data, DIGITS):
        for align in (8, 4):
            with suppress(struct.error, ValueError, IndexError):  # digits of other data
                return _Tables(data, at, align).symbols()
    raise SetupError(f"{image} has no kallsyms (CONFIG_KALLSYMS)")


def _every(data: bytes, needle: bytes) -> Iterator[int]:
    at = data.find(needle)
    while at >= 0:
        yield at
        at = data.find(needle, at + 1)


def _up(value: int, to: int) -> int:
    return value + -value % to


class _Tables:
    """Offsets of an image's tables; ValueError, IndexError, struct.error: there are no tables around ``digits``.

    ``align`` is their alignment: 8 in older kernels, 4 in newer ones.
    """

    def __init__(self, data: bytes, digits: int, align: int) -> None:
        self._data, self._align = data, align
        end = digits
        for _ in range(TOKENS - ord("0")):
            end = data.index(b"\0", end) + 1
        index_at = _up(end, align)
        self._behind_tokens = index_at + 2 * TOKENS
        index = struct.unpack_from(f"<{TOKENS}H", data, index_at)
        start = digits - index[ord("0")]
        if index[0] or list(index) != sorted(set(index)) or start % align:
            raise ValueError("no index of tokens")
        self._tokens = tuple(data[start + i : data.index(b"\0", start + i)].decode("ascii") for i in index)
        self._markers_at, self._markers = self._find_markers(start)
        self._names_at, self._count = self._find_names()

    def _find_markers(self, end: int) -> tuple[int, list[int]]:
        """Find the markers before ``end``; 6.2 to 6.3 (and updates of 6.1) have three bytes for each symbol between."""
        low = max(0, end - MAX_SEQUENCES)
        words = struct.unpack_from(f"<{(end - low) // 4}I", self._data, low + (end - low) % 4)[::-1]
        at, found = end, list[int]()
        for value in words:
            at -= 4
            if found and value < found[-1]:
                found.append(value)
                if not value and len(found) > 1:
                    if len(found) >= MIN_MARKERS:
                        return at, found[::-1]
                    found = []
            else:
                found = [value] if value else []
        raise ValueError("no markers")

    def _find_names(self) -> tuple[int, int]:
        first = self._markers_at - self._markers[-1]
        for names in range(first - first % self._align, first - MAX_NAME_ROOM, -self._align):
            (count,) = struct.unpack_from("<I", self._data, names - self._align)
            if (count + MARKED - 1) // MARKED == len(self._markers) and self._ends(names, count):
                return names, count
        raise ValueError("no names")

    def _ends(self, names: int, count: int) -> bool:
        at = names + self._markers[-1]
        for _ in range(count - (len(self._markers) - 1) * MARKED):
            at = self._name_bytes(at)[1]
        return _up(at, self._align) == self._markers_at

    def _name_bytes(self, at: int) -> tuple[int, int]:
        """Return begin and end of the tokens of the name at ``at``; its length has one byte or two (ULEB128)."""
        length = self._data[at]
        if length < 0x80:
            return at + 1, at + 1 + length
        return at + 2, at + 2 + (length & 0x7F | self._data[at + 1] << 7)

    def _names(self) -> Iterator[str]:
        at, tokens = self._names_at, self._tokens
        for _ in range(self._count):
            begin, at = self._name_bytes(at)
            yield "".join([tokens[byte] for byte in self._data[begin:at]])[1:]  # the first letter is the type

    def symbols(self) -> Symbols:
        base = _image_base(self._data)
        offsets = self._relative(base) or self._distances()
        addresses = tuple(base + offset for offset in offsets)
        names = tuple(self._names())
        by_name = dict(zip(reversed(names), reversed(addresses), strict=True))
        (size,) = struct.unpack_from("<Q", self._data, 16)  # with .bss, Documentation/arch/arm64/booting.rst
        return Symbols(base, addresses, names, size, by_name)

    def _relative(self, base: int) -> list[int]:
        """Return the symbols' offsets in the image, up to 6.19: their distances from kallsyms_relative_base."""
        before = self._names_at - self._align - 8  # its place up to 6.3
        for at in (self._behind_tokens, before - _up(4 * self._count, 8)):
            offsets = struct.unpack_from(f"<{self._count}I", self._data, at)
            if offsets[0] == 0 and _sorted(offsets):
                first = self._pointer(_up(at + 4 * self._count, 8), base) - base
                return [first + offset for offset in offsets]
        return []

    def _distances(self) -> list[int]:
        """Return the same for 7.0 and newer: each distance is relative to its own address."""
        at = self._behind_tokens
        offsets = struct.unpack_from(f"<{self._count}i", self._data, at)
        found = [at + 4 * i + offset for i, offset in enumerate(offsets)]
        if found[0] < 0 or not _sorted(found):
            raise ValueError("no offsets")
        return found

    def _pointer(self, at: int, base: int) -> int:
        """Return the pointer at ``at`` in the image: the word itself, or its relocation in .rela.dyn."""
        (value,) = struct.unpack_from("<Q", self._data, at)
        if not value:
            place = self._data.index(struct.pack("<Q", base + at) + RELATIVE)
            (value,) = struct.unpack_from("<Q", self._data, place + 16)
        return int(value)


def _sorted(values: Sequence[int]) -> bool:
    return all(a <= b for a, b in pairwise(values))


def _image_base(data: bytes) -> int:
    """Return the address of an image's first byte: most of its pointers point into it, and it is aligned to 2 MiB."""
    words = array("Q", data[: len(data) & ~7])[::SAMPLED]
    blocks = Counter(word >> 21 for word in words if word >> 47 == KERNEL_HALF)
    (_, most), *_ = blocks.most_common(1) or [(0, 0)]
    if not most:
        raise ValueError("no pointers")
    return min(block for block, count in blocks.items() if count > most / 50) << 21
