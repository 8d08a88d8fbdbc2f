# SPDX-License-Identifier: Apache-2.0
"""Compile the project's QEMU plugins, and pass them to a machine."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from harness.errors import SetupError
from harness.protocol import Word
from harness.vm.cache import Cache, default_root, hash_inputs
from harness.vm.tools import Progress, quiet, require_tool, run_tool

SOURCES = Path(__file__).resolve().parent
SHARED = "qemu_plugin.h"
HOST_FLAGS = ("-shared", "-fPIC", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror")
HOST_PACKAGES = ("gcc", "libc6-dev")
"""Debian packages that are needed to compile a plugin."""
ROOM = 16 << 20


class Map(Protocol):
    """A file that a plugin and this process share."""

    fd: int

    def attach(self, ram_inode: int) -> None:
        """Prepare for a machine whose RAM is the file of this inode."""
        ...

    def disarm(self) -> None:
        """End a scenario."""
        ...


def struct_members(rows: Sequence[Word]) -> str:
    """Return the members of the C struct at the begin of such a file: one word of 64 bits for each row."""
    return "\n".join(f"\tuint64_t {word.name}; /* {word.what} */" for word in rows)


class Words:
    """A :class:`Map` that begins with words of 64 bits, one for each row; ``ram_inode`` and ``armed`` are two of them.

    The plugin sets ``armed`` when a scenario begins; this process clears it after its end.
    """

    def __init__(self, fd: int, memory: mmap.mmap, rows: Sequence[Word]) -> None:
        self.fd = fd
        self._memory = memory
        self._offset = {word.name: 8 * i for i, word in enumerate(rows)}

    def close(self) -> None:
        """Unmap and close the file."""
        self._memory.close()
        os.close(self.fd)

    def put(self, name: str, value: int) -> None:
        """Write a word."""
        struct.pack_into("<Q", self._memory, self._offset[name], value)

    def word(self, name: str) -> int:
        """Return a word."""
        (value,) = struct.unpack_from("<Q", self._memory, self._offset[name])
        return int(value)

    def attach(self, ram_inode: int) -> None:
        """Prepare for a machine whose RAM is the file of this inode."""
        self.disarm()
        self.put("ram_inode", ram_inode)

    def disarm(self) -> None:
        """End a scenario: the plugin records nothing more."""
        self.put("armed", 0)


M = TypeVar("M", bound=Map, covariant=True)


@dataclass(frozen=True, slots=True)
class Plugin(Generic[M]):
    """A compiled plugin and the map that it fills."""

    library: Path
    map: M


def compile_plugin(
    name: str, header: str, qemu: Sequence[str], progress: Progress = quiet, cache: Cache | None = None
) -> Path:
    """Return the plugin of ``NAME.c``, which includes ``header`` as ``NAME.h``; it is compiled if needed.

    SetupError: no compiler, one without a C library, or a QEMU without plugins.
    """
    where = cache if cache is not None else Cache(default_root(os.environ))
    gcc = require_tool("gcc", "gcc")
    sources = [(SOURCES / file).read_bytes() for file in (SHARED, f"{name}.c")]
    tools = [_identity(gcc), _identity(require_tool(qemu[-1], "qemu-system-arm"))]
    key = hash_inputs([*tools, *HOST_FLAGS, *sources, header])

    def build(work: Path) -> Mapping[str, object]:
        progress(f"plugin {name}: compiling")
        _, options = run_tool([*qemu, "-help"], "reading QEMU's options")
        if "-plugin" not in options:
            reason = "it was built without --enable-plugins; the one of Debian's qemu-system-arm supports them"
            raise SetupError(f"{qemu[-1]} does not support plugins: {reason}")
        generated = work / "src"
        generated.mkdir()
        (generated / f"{name}.h").write_text(header)
        argv = [gcc, *HOST_FLAGS, "-I", str(generated), "-o", str(work / f"{name}.so"), str(SOURCES / f"{name}.c")]
        try:
            run_tool(argv, f"compiling the plugin {name}", progress=progress)
        except SetupError as error:
            raise SetupError(f"{error}; run make setup, or sudo apt-get install {' '.join(HOST_PACKAGES)}") from error
        shutil.rmtree(generated)
        return {}

    return where.get("plugin", key, build, progress, ROOM).path / f"{name}.so"


def _identity(program: str) -> str:
    path = Path(program).resolve()
    return f"{path} {path.stat().st_mtime_ns}"
