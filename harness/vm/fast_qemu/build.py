# SPDX-License-Identifier: Apache-2.0
"""Build the fast QEMU: Debian's source of the QEMU that is installed, with the edits of its series, for one machine.

Measured on two cores: 24 MB to fetch, 0.5 GB while it is built, 1 221 steps, six minutes of CPU time.  What
is built stays where it is until the program is complete, so that a build that was killed goes on.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SetupError
from harness.vm.cache import Cache, Entry, hash_file, hash_inputs
from harness.vm.debian.source_package import SourcePackage, source_of, unpack_source
from harness.vm.fast_qemu.edits import HERE, Change, apply_edits, load_change
from harness.vm.qemu_versions import PACKAGE, QEMU, read_version, upstream
from harness.vm.tools import PASSED_ON, Progress, quiet, reason_line, require_tool, run_tool

KIND = "fast-qemu"
WORK = "work-on-fast-qemu"
RECIPE = "1"
"""Part of the key: to be raised when the code below builds another program of the same source and edits."""
ROOM = 1 << 30
"""Bytes while it is built (measured: 0.5 GiB; 14 MiB stay)."""
OURS: tuple[str, ...] = ("tlb_sets.h", "tlb_sets.c.inc")
"""The files of the project that become a part of it."""
CONFIGURE: tuple[str, ...] = (
    *("--target-list=aarch64-softmmu", "--without-default-features", "--without-default-devices"),
    *("--with-devices-aarch64=shadowfuzz", "--enable-tcg", "--enable-system", "--enable-plugins", "--enable-seccomp"),
    *("--enable-fdt=system", "--disable-docs", "--disable-install-blobs", "--disable-werror", "--disable-debug-info"),
)
TOOLS: tuple[tuple[str, str], ...] = (
    *(("meson", "meson"), ("ninja", "ninja-build"), ("pkg-config", "pkg-config"), ("gcc", "gcc")),
    ("dpkg-source", "dpkg-dev"),
)
LIBRARIES: tuple[tuple[str, str], ...] = (
    # A header, and the Debian package.
    *(("glib-2.0/glib.h", "libglib2.0-dev"), ("pixman-1/pixman.h", "libpixman-1-dev")),
    *(("seccomp.h", "libseccomp-dev"), ("libfdt.h", "libfdt-dev"), ("zlib.h", "zlib1g-dev")),
)
HEADERS = Path("/usr/include")
REPORT_SECONDS = 10.0
STEP_OF = re.compile(r"\[(\d+)/(\d+)\]")


@dataclass(frozen=True, slots=True)
class FastQemu:
    """A fast QEMU that was built: its program, QEMU's version, and Debian's version of the source."""

    program: Path
    version: str
    source: str

    @property
    def sha256(self) -> str:
        """The hash of the program's bytes, as they are now."""
        return hash_file(self.program)


def find_fast_qemu(cache: Cache) -> FastQemu | None:
    """Return the fast QEMU of the version that is installed, if it was built; SetupError: there can be none here."""
    source = source_of(PACKAGE)
    entry = cache.find(KIND, _key(source, load_change(_series(source))))
    return None if entry is None else _fast_qemu(entry)


def build_fast_qemu(cache: Cache, progress: Progress = quiet) -> FastQemu:
    """Return the fast QEMU of the version that is installed, built as far as it was not.

    SetupError: QEMU's source is not to be had or not as expected, a tool or library is missing, the compiler complains.
    """
    source = source_of(PACKAGE)
    change = load_change(_series(source))
    key = _key(source, change)
    found = cache.find(KIND, key)
    if found is not None:
        return _fast_qemu(found)
    _require_all()
    with cache.lock(WORK, progress):
        work = cache.root / WORK / hash_inputs([RECIPE, platform.machine(), source.version])
        for other in (cache.root / WORK).glob("*"):
            if other != work:  # of another version, which is not wanted any more
                shutil.rmtree(other, ignore_errors=True)
        plan = _Plan(source, change, work)
        entry = cache.get(KIND, key, lambda place: _build(plan, place, cache, progress), progress, ROOM, keep=2)
        shutil.rmtree(cache.root / WORK, ignore_errors=True)
    return _fast_qemu(entry)


@dataclass(frozen=True, slots=True)
class _Plan:
    source: SourcePackage
    change: Change
    work: Path


def _key(source: SourcePackage, change: Change) -> str:
    texts = [(HERE / name).read_text() for name in OURS]
    return hash_inputs([RECIPE, platform.machine(), source.version, repr(change), *texts])


def _series(source: SourcePackage) -> str:
    return ".".join(upstream(source.version).split(".")[:2])


def _fast_qemu(entry: Entry) -> FastQemu:
    return FastQemu(entry.path / QEMU, str(entry.facts["version"]), str(entry.facts["source"]))


def _require_all() -> None:
    for tool, package in TOOLS:
        require_tool(tool, package)
    for header, package in LIBRARIES:
        if not (HEADERS / header).exists():
            raise SetupError(f"{header} is missing: install the Debian package {package}, or run make campaign FAST=1")


def _build(plan: _Plan, place: Path, cache: Cache, progress: Progress) -> Mapping[str, object]:
    tree, build = plan.work / "source", plan.work / "build"
    if not (plan.work / "unpacked").exists():
        shutil.rmtree(plan.work, ignore_errors=True)  # half unpacked
        plan.work.mkdir(parents=True)
        progress(f"QEMU {plan.source.version}: fetching its source (24 MB)")
        unpack_source(plan.source, tree, cache, progress)
        (plan.work / "unpacked").touch()
    edit_source(tree, plan.change, plan.work / "originals")
    if not (build / "build.ninja").exists():
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir()
        argv = [str(tree / "configure"), *CONFIGURE, f"--with-pkgversion=shadowfuzz, of Debian {plan.source.version}"]
        run_tool(argv, "configuring QEMU", progress=progress, cwd=build)
    run_ninja(build, QEMU, progress)
    shutil.copy2(build / QEMU, place / QEMU)
    version = read_version((str(place / QEMU),))
    return {"version": version, "source": plan.source.version}


def edit_source(tree: Path, change: Change, originals: Path) -> None:
    """Put a change into an unpacked source; what is edited is kept in ``originals`` as it was.

    Files that are as they should be are not written, so that a build that was killed goes on.  SetupError: the source
    is not as expected; nothing is changed.
    """
    texts = {edit.file: _original(tree, edit.file, originals) for edit in change.edits}
    changed = {tree / name: text for name, text in apply_edits(change.edits, texts).items()}
    ours = {tree / "include" / "shadowfuzz" / name: (HERE / name).read_text() for name in OURS}
    devices = "".join(f"CONFIG_{name}=y\n" for name in change.devices)
    config = {tree / "configs" / "devices" / "aarch64-softmmu" / "shadowfuzz.mak": devices}
    for path, text in (changed | ours | config).items():
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _original(tree: Path, name: str, originals: Path) -> str:
    kept = originals / name
    try:
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            new = kept.with_name(f"{kept.name}.new")
            shutil.copyfile(tree / name, new)
            new.rename(kept)
        return kept.read_text()
    except OSError as error:
        raise SetupError(f"QEMU's source is not as expected: {error.filename}: {error.strerror}") from error


def run_ninja(
    build: Path, target: str, progress: Progress = quiet, clock: Callable[[], float] = time.monotonic
) -> None:
    """Build a target; progress shows the steps.  SetupError has the compiler's first complaint."""
    environment = {name: value for name, value in os.environ.items() if name in PASSED_ON} | {"LC_ALL": "C"}
    argv = ["setpriv", "--pdeathsig", "TERM", "--", "ninja", "-C", str(build), target]
    said: list[str] = []
    last = clock()
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment | {"NINJA_STATUS": "[%f/%t] "},
        text=True,
        errors="replace",
    ) as ninja:
        assert ninja.stdout is not None
        try:
            for line in ninja.stdout:
                step = STEP_OF.match(line)
                if step is None:
                    said.append(line)
                elif clock() - last >= REPORT_SECONDS:
                    last = clock()
                    progress(f"{step[1]} of {step[2]} steps of QEMU's build")
        except BaseException:
            ninja.terminate()  # it ends its compilers
            raise
    if ninja.returncode != 0:
        raise SetupError(f"building QEMU failed: {reason_line(''.join(said)) or f'exit status {ninja.returncode}'}")
