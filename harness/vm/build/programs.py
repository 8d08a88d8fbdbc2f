# SPDX-License-Identifier: Apache-2.0
"""Build the programs that a target records: a static arm64 program of the user, or the small VMM that boots Linux."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InputError, SetupError
from harness.input_file import open_input
from harness.vm.build import protocol_header
from harness.vm.build.initramfs import character_device, directory, file, write_cpio
from harness.vm.build.prepare import COMPILER_PACKAGE, CROSS, GUEST_SOURCES, PreparedTarget
from harness.vm.cache import Cache, default_root, hash_inputs
from harness.vm.kernels.dwarf import why_not_static_arm64
from harness.vm.tools import Progress, quiet, require_tool, run_tool

SOURCES = Path(__file__).resolve().parents[1] / "recorded"
RECIPE = "1"
FLAGS = ("-static", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")
NAMES = ("recorder", "linuxguest", "guestinit")
ROOM = 16 << 20
MAX_BYTES = 256 << 20
"""Maximum size of a program or file for the target, in bytes: it must fit into its RAM twice."""
GUEST_LINE = "guest: user space of Linux"
"""The line that the Linux guest prints in user space."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program for the target: arguments (the first is a path in the target), and files by their name in /program."""

    title: str
    arguments: tuple[str, ...]
    files: Mapping[str, bytes]


def read_program(path: Path, arguments: tuple[str, ...], extra: Mapping[str, Path]) -> Program:
    """Return a program of the user with its files; InputError: it cannot run in the target."""
    reason = why_not_static_arm64(path)
    if reason:
        raise InputError(str(path), None, reason)
    files = {path.name: path, **extra}
    data = {name: _read(where) for name, where in files.items()}
    return Program(" ".join((path.name, *arguments)), (f"/program/{path.name}", *arguments), data)


def _read(path: Path) -> bytes:
    try:
        with open_input(path) as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(str(path), None, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(data) > MAX_BYTES:
        raise InputError(str(path), None, f"longer than {MAX_BYTES >> 20} MiB")
    return data


def linux_guest(prepared: PreparedTarget, built: Path, *, cpus: int, memory_mib: int, words: str) -> Program:
    """Return the VMM that boots the target's own kernel as a guest, with an init that prints a line and powers off."""
    initrd = write_cpio(
        (
            directory("dev"),
            character_device("dev/console", 5, 1),
            file("init", (built / "guestinit").read_bytes(), executable=True),
        )
    )
    files = {
        "linuxguest": (built / "linuxguest").read_bytes(),
        "Image": _read(prepared.kernel),
        "initrd": initrd,
    }
    arguments = ("/program/linuxguest", "Image", "initrd", str(cpus), str(memory_mib), words)
    return Program(f"Linux {prepared.kernel_release} on {cpus} vCPU{'s' if cpus > 1 else ''}", arguments, files)


def build_programs(progress: Progress = quiet, cache: Cache | None = None) -> Path:
    """Return the directory with the compiled programs of :data:`NAMES`; SetupError: no compiler, or it fails."""
    where = cache if cache is not None else Cache(default_root(os.environ))
    compiler = Path(require_tool(f"{CROSS}gcc", COMPILER_PACKAGE)).resolve()
    state = compiler.stat()
    headers = (GUEST_SOURCES / "mailbox.h", SOURCES / "fdt.h")
    try:
        texts = [path.read_bytes() for path in (*headers, *(SOURCES / f"{name}.c" for name in NAMES))]
    except OSError as error:
        raise SetupError(f"cannot read the sources in {SOURCES}: {error.strerror}") from error
    key: list[str | bytes] = [RECIPE, *FLAGS, f"{compiler} {state.st_size} {state.st_mtime_ns}"]
    key += [protocol_header.render(), *texts]
    return where.get("programs", hash_inputs(key), lambda work: _compile(work, progress), progress, ROOM).path


def _compile(work: Path, progress: Progress) -> Mapping[str, object]:
    progress("recorder and Linux guest: compiling")
    (work / "protocol.h").write_text(protocol_header.render())
    for name in NAMES:
        argv = [f"{CROSS}gcc", *FLAGS, f"-I{GUEST_SOURCES}", f"-I{work}", "-o", str(work / name)]
        run_tool([*argv, str(SOURCES / f"{name}.c")], f"compiling {name}", progress=progress)
        run_tool([f"{CROSS}strip", str(work / name)], f"stripping {name}")
    return {"programs": list(NAMES)}


def overlay(program: Program, built: Path) -> bytes:
    """Return the archive to append to a target's initramfs: the recorder, and the program's files."""
    argv = b"".join(argument.encode() + b"\0" for argument in program.arguments)
    return write_cpio(
        (
            file("recorder", (built / "recorder").read_bytes(), executable=True),
            directory("program"),
            *(file(f"program/{name}", data, executable=True) for name, data in program.files.items()),
            file("program/argv", argv),
        )
    )
