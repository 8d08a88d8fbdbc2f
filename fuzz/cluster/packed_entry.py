# SPDX-License-Identifier: Apache-2.0
"""An entry of the cache as two files that another machine can take: what is in it, and an archive of its contents.

The archive is the contents of the listed files, one after the other, compressed by gzip: it has no names, links or
modes of its own.  All names are in the listing, which is untrusted input.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fuzz.campaign.worker_job import fields_of
from harness.errors import InputError
from harness.vm.cache import MANIFEST, Entry, hash_file

VERSION = 1
MAX_LISTING = 16 << 20
"""Characters; the headers of a kernel (13 000 files) have 2 million."""
MAX_FILES, MAX_TOTAL, MAX_NAME = 100_000, 1 << 30, 1000
LEVEL = 1
"""Of gzip: headers and an image become a third, within seconds."""
PIECE = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A plain file: its name below the entry, its size in bytes, its SHA-256, whether it is a program."""

    name: str
    size: int
    sha256: str
    program: bool


@dataclass(frozen=True, slots=True)
class Packed:
    """The listing of the entry ``name`` (KIND-KEY); ``links`` are symbolic links, by name."""

    name: str
    files: tuple[PackedFile, ...]
    links: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the listing as text that :meth:`from_json` reads."""
        files = [[f.name, f.size, f.sha256, f.program] for f in self.files]
        return json.dumps({"version": VERSION, **asdict(self), "files": files})

    @classmethod
    def from_json(cls, text: str, where: str) -> Packed:
        """Read a listing.  InputError: it is none, is too large, or names something outside the entry."""
        try:
            row = fields_of(json.loads(text), _FIELDS)
            if row["version"] != VERSION:
                raise ValueError(f"version is {row['version']}, expected {VERSION}")
            files = tuple(map(_file, row["files"]))
            links = {_name(name): _target(name, target) for name, target in row["links"].items()}
            names = [file.name for file in files] + list(links)
            if len(names) > MAX_FILES or sum(file.size for file in files) > MAX_TOTAL:
                raise ValueError(f"more than {MAX_FILES} files or {MAX_TOTAL} bytes")
            if len(set(names)) != len(names):
                raise ValueError("a name is there twice")
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(where, None, f"no listing of an entry: {ascii(str(error))[1:-1][:200]}") from error
        return cls(row["name"], files, links, row["facts"])

    @property
    def contents(self) -> str:
        """A hash of all contents in their order: 32 hexadecimal digits."""
        return hashlib.sha256("".join(file.sha256 for file in self.files).encode()).hexdigest()[:32]


_FIELDS: Mapping[str, tuple[type, ...]] = {
    "version": (int,),
    "name": (str,),
    "files": (list,),
    "links": (dict,),
    "facts": (dict,),
}


def _file(row: Any) -> PackedFile:
    if not isinstance(row, list) or [type(part) for part in row] != [str, int, str, bool]:
        raise ValueError(f"a file is {str(row)[:60]!r}, expected name, size, SHA-256, whether it is a program")
    name, size, sha256, program = row
    if not 0 <= size <= MAX_TOTAL or _SHA256.fullmatch(sha256) is None:
        raise ValueError(f"size or SHA-256 of {name[:60]!r} is none")
    return PackedFile(_name(name), size, sha256, program)


def _name(name: str) -> str:
    parts = name.split("/")
    if not 0 < len(name) <= MAX_NAME or "\0" in name or {"", ".", ".."} & set(parts) or name == MANIFEST:
        raise ValueError(f"{name[:60]!r} is no name below an entry")
    return name


def _target(name: str, target: object) -> str:
    if not isinstance(target, str) or not 0 < len(target) <= MAX_NAME or "\0" in target or target.startswith("/"):
        raise ValueError(f"{name[:60]!r} is no link below an entry")
    if os.path.normpath(PurePosixPath(name).parent / target).split("/")[0] == "..":
        raise ValueError(f"{name[:60]!r} is a link to something outside the entry")
    return target


def describe(entry: Entry) -> Packed:
    """Return the listing of an entry.  OSError: it cannot be read.  InputError: it cannot be packed."""
    files, links = [], {}
    for path in sorted(entry.path.rglob("*")):
        name = str(path.relative_to(entry.path))
        if path.is_symlink():
            links[name] = str(path.readlink())
        elif path.is_file() and name != MANIFEST:
            state = path.stat()
            files.append(PackedFile(name, state.st_size, hash_file(path), bool(state.st_mode & 0o100)))
    packed = Packed(entry.path.name, tuple(files), links, entry.facts)
    return Packed.from_json(packed.to_json(), str(entry.path))


def pack(entry: Path, packed: Packed, archive: Path) -> None:
    """Write the archive of an entry.  OSError: it cannot be read or written."""
    with archive.open("wb") as file, gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as out:
        for each in packed.files:
            with (entry / each.name).open("rb") as source:
                while piece := source.read(PIECE):
                    out.write(piece)


def unpack(packed: Packed, archive: IO[bytes], work: Path) -> None:
    """Write an entry into an empty directory.

    InputError: the archive is damaged, or a link leads out of the directory; what is there then is of no use.  OSError:
    it cannot be written.
    """
    try:
        with gzip.GzipFile(fileobj=archive, mode="rb") as source:
            for each in packed.files:
                _write(each, source, work)
            if source.read(1):
                raise ValueError("more than the listing has")
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(packed.name, None, f"the archive is damaged: {error}") from error
    # Links come last, so that no file is written through one.
    for name, target in packed.links.items():
        _link(work, name, target)
    for name in packed.links:
        if not _is_below(work / name, work):
            raise InputError(packed.name, None, f"{ascii(name)[:60]} is a link to something outside the entry")


def _write(each: PackedFile, source: gzip.GzipFile, work: Path) -> None:
    path = work / each.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{ascii(each.name)[:60]} is below a file") from error
    with file:
        digest = hashlib.sha256()
        for piece in _pieces(source, each.size):
            digest.update(piece)
            file.write(piece)
    if digest.hexdigest() != each.sha256:
        raise ValueError(f"{ascii(each.name)[:60]} is not what its SHA-256 says")
    path.chmod(0o755 if each.program else 0o644)


def _pieces(source: gzip.GzipFile, size: int) -> Iterator[bytes]:
    while size:
        piece = source.read(min(PIECE, size))
        if not piece:
            raise EOFError("it ends too early")
        size -= len(piece)
        yield piece


def _link(work: Path, name: str, target: str) -> None:
    path = work / name
    if not _is_below(path.parent, work):
        raise InputError(name[:60], None, "is below a link to something outside the entry")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(name[:60], None, "is a link, and something else") from error


def _is_below(path: Path, work: Path) -> bool:
    with suppress(OSError, RuntimeError):  # RuntimeError: a circle of links, before Python 3.13
        end = path.resolve()
        return end.is_relative_to(work.resolve()) and not end.is_symlink()  # from 3.13 on a circle ends at a link
    return False
