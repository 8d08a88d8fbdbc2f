# SPDX-License-Identifier: Apache-2.0
"""Write and read the initramfs, a cpio archive in the "newc" format, without external tools.

Format: Documentation/driver-api/early-userspace/buffer-format.rst in the Linux sources.  Each member is a header of
110 ASCII characters, a name ending in NUL, and data; name and data are padded to four bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

MAGIC = b"070701"
TRAILER = "TRAILER!!!"
HEADER_BYTES = 110
FIELDS = (
    *("ino", "mode", "uid", "gid", "nlink", "mtime", "filesize"),
    *("devmajor", "devminor", "rdevmajor", "rdevminor", "namesize", "check"),
)


@dataclass(frozen=True, slots=True)
class Member:
    """One file, directory or device node: path without a leading slash, mode with its type bits, data or device."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(path: str) -> Member:
    """Return a directory with mode 0755."""
    return Member(path, stat.S_IFDIR | 0o755)


def file(path: str, data: bytes, *, executable: bool = False) -> Member:
    """Return a regular file."""
    return Member(path, stat.S_IFREG | (0o755 if executable else 0o644), data)


def character_device(path: str, major: int, minor: int) -> Member:
    """Return a character device node; numbers from Documentation/admin-guide/devices.txt."""
    return Member(path, stat.S_IFCHR | 0o600, device=(major, minor))


def write_cpio(members: Iterable[Member]) -> bytes:
    """Return the archive; equal members give equal bytes (owner root, time 0)."""
    parts = [_encode(member, number) for number, member in enumerate(members, start=1)]
    return b"".join([*parts, _encode(Member(TRAILER, 0), 0)])


def _encode(member: Member, inode: int) -> bytes:
    name = member.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(member.mode) else 1
    major, minor = member.device
    fields = (inode, member.mode, 0, 0, links, 0, len(member.data), 0, 0, major, minor, len(name), 0)
    head = MAGIC + b"".join(b"%08x" % field for field in fields) + name
    return _pad(head) + _pad(member.data)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def read_cpio(archive: bytes) -> tuple[Member, ...]:
    """Return the members of an archive, up to its trailer; ValueError names the damaged offset."""
    found: list[Member] = []
    at = 0
    while True:
        head = archive[at : at + HEADER_BYTES]
        if len(head) != HEADER_BYTES or not head.startswith(MAGIC):
            raise ValueError(f"no cpio header at byte {at}")
        values = dict(zip(FIELDS, (int(head[n : n + 8], 16) for n in range(6, HEADER_BYTES, 8)), strict=True))
        name_end = at + HEADER_BYTES + values["namesize"]
        data_at = name_end + -name_end % 4
        data_end = data_at + values["filesize"]
        if values["namesize"] == 0 or data_end > len(archive):
            raise ValueError(f"the member at byte {at} goes beyond the archive")
        name = archive[at + HEADER_BYTES : name_end - 1].decode()
        if name == TRAILER:
            return tuple(found)
        device = (values["rdevmajor"], values["rdevminor"])
        found.append(Member(name, values["mode"], archive[data_at:data_end], device))
        at = data_end + -data_end % 4


def build_initramfs(agent: bytes, probe: bytes) -> bytes:
    """Return the target's initramfs: the agent as ``/init``, the recording module, and the files that PID 1 needs.

    Without ``/dev/console`` the kernel starts init with no standard output.
    """
    return write_cpio(
        (
            directory("dev"),
            directory("proc"),
            directory("sys"),
            character_device("dev/console", 5, 1),
            character_device("dev/null", 1, 3),
            file("init", agent, executable=True),
            file("probe.ko", probe),
        )
    )
