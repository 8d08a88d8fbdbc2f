# SPDX-License-Identifier: Apache-2.0
"""Debian's source of a program that is installed here, of the very version, by apt like all else that is fetched."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SetupError
from harness.vm.cache import Cache
from harness.vm.debian.apt import open_archive
from harness.vm.tools import Progress, quiet, reason_line, require_tool, run_tool

STATE = "apt-source"
"""The private state for source packages; removed when they are fetched, for its lists are of no other use."""


@dataclass(frozen=True, slots=True)
class SourcePackage:
    """A source package by name and version: ``qemu``, ``1:7.2+dfsg-7+deb12u18``."""

    name: str
    version: str


def source_of(package: str) -> SourcePackage:
    """Return the source that an installed package was built from; SetupError: it is not installed by dpkg."""
    argv = ["dpkg-query", "-W", "-f", "${source:Package} ${source:Version}", package]
    status, output = run_tool(argv, f"asking dpkg for the source of {package}", check=False)
    name, _, version = output.strip().partition(" ")
    if status != 0 or not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name) or not version:
        raise SetupError(f"dpkg does not know of {package}: install it, its source has to be of the same version")
    return SourcePackage(name, version)


def unpack_source(source: SourcePackage, directory: Path, cache: Cache, progress: Progress = quiet) -> None:
    """Fetch a source package and unpack it, Debian's patches applied, as ``directory``, which is not there yet.

    apt checks it by the signature of the archive.  SetupError: the archive has it no more, or a tool is missing.
    """
    require_tool("dpkg-source", "dpkg-dev")
    state = cache.root / STATE
    with cache.lock(STATE, progress):
        state.mkdir(parents=True, exist_ok=True)
        archive = open_archive(state, progress, kind="deb-src")
        files = state / "files"
        files.mkdir(exist_ok=True)
        argv = ["apt-get", "source", "--download-only", f"{source.name}={source.version}"]
        status, output = run_tool(
            argv,
            f"fetching the source of {source.name}",
            progress=progress,
            cwd=files,
            env=archive.environment,
            check=False,
        )
        found = sorted(files.glob(f"{source.name}_{re.sub(r'^[0-9]+:', '', source.version)}.dsc"))
        if status != 0 or len(found) != 1:
            reason = archive.offline_reason or reason_line(output) or f"it has no {source.name} {source.version}"
            raise SetupError(f"cannot get the source of {source.name} from Debian's archive: {reason}")
        # apt has checked the hashes of all files by the archive's signature: the maintainer's own is not needed.
        argv = ["dpkg-source", "--no-check", "-x", str(found[0]), str(directory)]
        run_tool(argv, f"unpacking the source of {source.name}", progress=progress)
        shutil.rmtree(state)
