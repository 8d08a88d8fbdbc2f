# SPDX-License-Identifier: Apache-2.0
"""Read struct layouts from the BTF in a kernel's image, for a kernel without headers.

Format: Documentation/bpf/btf.rst in the Linux sources.  Only the kinds that a layout needs are decoded: structs,
unions, enums, and the kinds between a member and its type.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SetupError

MAGIC = b"\x9f\xeb\x01\x00\x18\x00\x00\x00"
"""Magic, version 1, no flags, and the length of the header, 24 bytes."""
HEADER = struct.Struct("<HBBIIIII")
TYPE = struct.Struct("<III")

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, PROTO, VAR, DATASEC = range(1, 16)
FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(16, 20)
QUALIFIERS = (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG)
TAIL: Mapping[int, tuple[int, int]] = {
    # Bytes after the type: fixed, and for each of its vlen elements.
    **{INT: (4, 0), ARRAY: (12, 0), STRUCT: (0, 12), UNION: (0, 12), ENUM: (0, 8), PROTO: (0, 8), VAR: (4, 0)},
    **{DATASEC: (0, 12), DECL_TAG: (4, 0), ENUM64: (0, 12)},
}


@dataclass(frozen=True, slots=True)
class _Type:
    name: str
    kind: int
    vlen: int
    size: int
    """Of a struct in bytes; of a qualifier, the type that it qualifies."""
    at: int
    """Offset of the data after it."""
    flag: bool


class Btf:
    """The types of one kernel."""

    def __init__(self, blob: bytes, where: str) -> None:
        self._where = where
        _, _, _, _, type_at, type_size, text_at, text_size = HEADER.unpack_from(blob)
        self._types = blob[HEADER.size + type_at : HEADER.size + type_at + type_size]
        self._text = blob[HEADER.size + text_at : HEADER.size + text_at + text_size]
        self._all: list[_Type] = [_Type("", 0, 0, 0, 0, False), *self._scan()]
        self._by_name: dict[tuple[int, str], int] = {}
        for number, kind in enumerate(self._all):
            self._by_name.setdefault((kind.kind, kind.name), number)

    def _string(self, at: int) -> str:
        return self._text[at : self._text.index(b"\0", at)].decode()

    def _scan(self) -> Iterator[_Type]:
        at = 0
        while at < len(self._types):
            name, info, size = TYPE.unpack_from(self._types, at)
            kind, vlen = info >> 24 & 0x1F, info & 0xFFFF
            fixed, each = TAIL.get(kind, (0, 0))
            at += TYPE.size
            yield _Type(self._string(name), kind, vlen, size, at, bool(info >> 31))
            at += fixed + each * vlen

    def _members(self, kind: _Type) -> Iterator[tuple[str, int, int]]:
        """Yield name, offset in bits and type of each member."""
        for number in range(kind.vlen):
            name, type_, offset = TYPE.unpack_from(self._types, kind.at + 12 * number)
            yield self._string(name), offset & 0xFF_FFFF if kind.flag else offset, type_

    def _resolve(self, number: int) -> _Type:
        while self._all[number].kind in QUALIFIERS:
            number = self._all[number].size
        return self._all[number]

    def _find(self, kind: _Type, name: str) -> tuple[int, _Type] | None:
        for own, offset, type_ in self._members(kind):
            member = self._resolve(type_)
            if own == name:
                return offset // 8, member
            if not own and member.kind in (STRUCT, UNION):
                inner = self._find(member, name)
                if inner is not None:
                    return offset // 8 + inner[0], inner[1]
        return None

    def _struct(self, name: str) -> _Type:
        number = self._by_name.get((STRUCT, name))
        if number is None:
            raise SetupError(f"{self._where}: its BTF has no struct {name}")
        return self._all[number]

    def size(self, struct_name: str) -> int:
        """Return the size of a struct in bytes; SetupError if there is none."""
        return self._struct(struct_name).size

    def offset(self, path: str) -> int:
        """Return the offset in bytes of a member such as ``kvm_vcpu.arch.hcr_el2``; -1 if there is none."""
        first, *names = path.split(".")
        kind, total = self._struct(first), 0
        for name in names:
            found = self._find(kind, name) if kind.kind in (STRUCT, UNION) else None
            if found is None:
                return -1
            total, kind = total + found[0], found[1]
        return total

    def enum(self, name: str) -> Mapping[str, int]:
        """Return the values of an enum by name; empty if there is none."""
        number = self._by_name.get((ENUM, name))
        if number is None:
            return {}
        kind = self._all[number]
        rows = (struct.unpack_from("<Ii", self._types, kind.at + 8 * n) for n in range(kind.vlen))
        return {self._string(text): value for text, value in rows}


def read_btf(image: Path) -> Btf:
    """Return the types in a kernel image; SetupError if it has no BTF."""
    data = image.read_bytes()
    at = data.find(MAGIC)
    while at >= 0:
        _, _, _, _, type_at, type_size, text_at, text_size = HEADER.unpack_from(data, at)
        end = HEADER.size + max(type_at + type_size, text_at + text_size)
        if type_at == 0 and text_at == type_size and text_size and at + end <= len(data):
            return Btf(data[at : at + end], str(image))
        at = data.find(MAGIC, at + 1)
    raise SetupError(f"{image}: no BTF in it")
