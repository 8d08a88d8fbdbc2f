# SPDX-License-Identifier: Apache-2.0
"""Check what this machine needs, what is installed, and how to get the rest: rows in, rows out, nothing printed."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from harness.errors import InputError, SetupError
from harness.vm.build.prepare import PreparedTarget
from harness.vm.config import MachineConfig
from harness.vm.tools import require_tool, run_tool


@dataclass(frozen=True, slots=True)
class Requirement:
    """A Debian package, the command or absolute path (a pattern) that proves that it is installed, and its purpose."""

    package: str
    evidence: str
    purpose: str


@dataclass(frozen=True, slots=True)
class Compiler:
    """A compiler by its command: what it builds, its flags, and the Debian packages that provide it.

    ``sources`` are files that it must compile; the check includes their system headers.
    """

    command: str
    makes: str
    flags: tuple[str, ...]
    sources: tuple[Path, ...]
    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """One result: what was checked, whether it is present, details, and how to get it if it is missing."""

    kind: str
    name: str
    ok: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class TargetState:
    """The state of a target's files; `prepared` is None if one of them is not in the cache.

    `image_sha256` is the hash of the image on disk.  `boot_alarms` are the alarms of its kernel during boot; None: it
    has not booted here yet.  `refused` is why the target cannot be set up here (empty: it can).
    """

    config: MachineConfig
    prepared: PreparedTarget | None
    image_sha256: str = ""
    boot_alarms: tuple[str, ...] | None = None
    refused: str = ""


_ARCHITECTURES: Mapping[str, str] = MappingProxyType({"aarch64": "arm64", "x86_64": "amd64"})
"""Debian's names of architectures."""


def parse_requirements(text: str, where: str, machine: str = "") -> tuple[Requirement, ...]:
    """Return the rows of ``tools/debian-packages.txt``; InputError names the malformed line.

    Rows of another ``machine`` (``uname -m``) are left out: ``[!arm64]`` after a package, as in deb-control(5).
    """
    found: list[Requirement] = []
    for number, line in enumerate(text.splitlines(), start=1):
        row = line.partition("#")[0].strip()
        if not row:
            continue
        cells = [cell.strip() for cell in row.split("|")]
        if len(cells) != 3 or not all(cells):
            raise InputError(where, number, "expected: package | command or absolute path | what for")
        package, other, architecture = cells[0].partition(" [!")
        if not (other and architecture == f"{_ARCHITECTURES.get(machine)}]"):
            found.append(Requirement(package, *cells[1:]))
    return tuple(found)


def check_requirements(rows: Iterable[Requirement], find: Callable[[str], str | None]) -> tuple[Check, ...]:
    """Return one check for each row; `find` returns the location of a command or path, or None."""
    checks: list[Check] = []
    for row in rows:
        found = find(row.evidence)
        fix = f"sudo apt-get install {row.package}, or make setup"
        detail = f"{row.purpose} ({found or row.evidence + ' not found'})"
        checks.append(Check("debian", row.package, found is not None, detail, "" if found else fix))
    return tuple(checks)


def check_compiler(row: Compiler) -> Check:
    """Check that a compiler compiles and links a minimal program with all system headers of its sources."""
    name = f"to compile {row.makes}"
    try:
        found = require_tool(row.command, row.packages[0])
        with tempfile.TemporaryDirectory() as work:
            source, made = Path(work) / "headers.c", Path(work) / "headers"
            source.write_text("\n".join((*_system_headers(row.sources), "int main(void) { return 0; }", "")))
            run_tool([found, *row.flags, "-o", str(made), str(source)], found)
            if not made.exists():
                raise SetupError(f"{found} produced no output for a minimal program")
    except SetupError as error:
        return Check("compiler", name, False, str(error), f"sudo apt-get install --reinstall {' '.join(row.packages)}")
    except OSError as error:
        why = f"cannot be tried: {error.strerror or error}"
        return Check("compiler", name, False, why, f"free space in {tempfile.gettempdir()}")
    return Check("compiler", name, True, f"{found} {' '.join(row.flags)}")


def _system_headers(sources: Iterable[Path]) -> tuple[str, ...]:
    lines = [line for path in sources for line in path.read_text().splitlines()]
    return tuple(dict.fromkeys(line for line in lines if line.startswith("#include <")))


def check_distributions(
    requires: Sequence[str], version: Callable[[str], str | None], machine: str = ""
) -> tuple[Check, ...]:
    """Return a check for each Python distribution that the project requires, extras left out.

    `requires` are requirement strings of the installed metadata; `version` returns what is installed, or None.  A
    requirement for other machines (``platform_machine``) is not missing on this one.
    """
    checks: list[Check] = []
    for requirement in requires:
        text, _, marker = requirement.partition(";")
        if "extra" in marker:
            continue
        name = re.split(r"[^A-Za-z0-9._-]", text.strip(), maxsplit=1)[0]
        found = version(name)
        if found is None and "platform_machine" in marker and f'"{machine}"' not in marker.replace("'", '"'):
            why = f"has no package for {machine}: no campaign can run here"
            checks.append(Check("python", name, True, why))
            continue
        fix = "" if found else "make setup"
        checks.append(Check("python", name, found is not None, found or f"{text.strip()} is not installed", fix))
    return tuple(checks)


def check_target(state: TargetState) -> Check:
    """Check that a target can boot without further set-up, and that its kernel image is intact."""
    name, prepared = state.config.name, state.prepared
    if state.refused:
        why, _, fix = state.refused.partition(": use ")
        return Check("target", name, False, f"{state.config.summary}: {why}", f"use {fix}" if fix else "see above")
    if prepared is None:
        detail = f"{state.config.summary}: its kernel is not set up yet"
        return Check("target", name, False, detail, f"shadowfuzz setup --target {name}")
    detail = (
        f"{state.config.summary}: {prepared.package} {prepared.package_version}, "
        f"{prepared.kernel}, sha256 {state.image_sha256}"
    )
    if state.image_sha256 != prepared.kernel_sha256:
        fix = f"rm -r {prepared.kernel.parent}, then shadowfuzz setup --target {name}"
        return Check("target", name, False, f"{detail} (damaged: {prepared.kernel_sha256} was fetched)", fix)
    if state.boot_alarms:
        detail += f"; alarms of its kernel at boot: {'; '.join(state.boot_alarms)}"
    return Check("target", name, True, detail)
