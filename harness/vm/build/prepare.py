# SPDX-License-Identifier: Apache-2.0
"""Prepare a machine's configuration for booting: kernel, recording module, agent, initramfs.

Two cache entries: the kernel with its headers (:mod:`harness.vm.build.kernel_entry`: fetched or copied once, then kept,
so that a target does not change during a campaign), and the programs that are compiled against it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import InputError, SetupError
from harness.vm.build import protocol_header
from harness.vm.build.initramfs import build_initramfs
from harness.vm.build.kernel_entry import find_kernel_entry, kernel_entry
from harness.vm.cache import Cache, Entry, default_root, hash_inputs
from harness.vm.config import MachineConfig
from harness.vm.kernels import vcpu_layout
from harness.vm.kernels.btf import read_btf
from harness.vm.kernels.dwarf import read_layout
from harness.vm.kernels.files import IMAGE_MAGIC as IMAGE_MAGIC
from harness.vm.kernels.files import IMAGE_MAGIC_OFFSET as IMAGE_MAGIC_OFFSET
from harness.vm.kernels.files import ImageFacts
from harness.vm.kernels.files import read_image as read_image
from harness.vm.qemu_versions import QEMU, Emulator, find, obtain
from harness.vm.tools import Progress, quiet, require_tool, run_tool

GUEST_SOURCES = Path(__file__).resolve().parents[1] / "guest"
CROSS = "aarch64-linux-gnu-"
COMPILER_PACKAGE = "gcc-aarch64-linux-gnu"

GUEST_RECIPE = "3"
"""Part of the compiled programs' key: raise it when the code below makes other programs of the same sources."""

LAYOUT = "layout.json"
"""File next to the recording module: the offsets of registers in this kernel's structures."""

GUEST_ROOM = 32 << 20
GUESTS_KEPT = 12
"""Number of builds of the target's programs that are kept for each kernel, the last used (1.2 MB each)."""

KBUILD = """\
# -g: the host reads struct layouts from the module's DWARF.
# Headers may have attributes that this compiler does not know.
ccflags-y := -g -Werror -Wno-error=attributes
# No ftrace call sites: ftrace needs an alignment of functions that older compilers do not produce, and BUGs without it.
ccflags-remove-y := $(CC_FLAGS_FTRACE)
obj-m := probe.o
"""
AGENT_FLAGS = ("-static", "-O2", "-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True, slots=True)
class PreparedTarget:
    """Everything that a machine boots from, and its origin.

    `kernel_release` is ``uname -r``; `package_version` is that of the Debian package (of the recording module's
    headers, if another image was given); `module_elf` is the recording module with its DWARF, `layout` a ContextLayout
    as JSON; `qemu` are the first words of the emulator's command line.  `borrowed`: the package version whose headers
    the module was built with, if the kernel has no headers of its own; layouts are then read from its BTF.
    """

    name: str
    kernel: Path
    kernel_sha256: str
    kernel_release: str
    package: str
    package_version: str
    initrd: Path
    module_elf: Path
    layout: Path
    borrowed: str = ""
    qemu: tuple[str, ...] = (QEMU,)


def prepare(
    config: MachineConfig,
    *,
    kernel: Path | None = None,
    progress: Progress = quiet,
    cache: Cache | None = None,
    sources: Path = GUEST_SOURCES,
) -> PreparedTarget:
    """Return the target; parts that are not in the cache are built.

    `kernel` is booted instead of the package's image; the module is that of the package.  SetupError: a tool is missing
    on this machine.  InputError: `kernel` is not an arm64 Image of the same release.
    """
    where = cache if cache is not None else Cache(default_root(os.environ))
    given = None if kernel is None else read_image(kernel)
    qemu = obtain(where, config.qemu, progress).command if config.qemu else (QEMU,)
    guest = _guest_key_parts(sources)
    kernel_ = kernel_entry(config, where, progress)
    guest_entry = where.get(
        "guest",
        _guest_key(kernel_, guest),
        lambda work: _build_guest(kernel_, sources, work, progress),
        progress,
        GUEST_ROOM,
        keep=GUESTS_KEPT,
        alike="release",
    )
    return replace(_target(config, kernel_, guest_entry, kernel, given), qemu=qemu)


def find_prepared(
    config: MachineConfig, *, cache: Cache | None = None, sources: Path = GUEST_SOURCES
) -> PreparedTarget | None:
    """Return the target if all of it is in the cache; never builds."""
    where = cache if cache is not None else Cache(default_root(os.environ))
    found = find_kernel_entry(config, where)
    if found is None or shutil.which(f"{CROSS}gcc") is None:
        return None
    guest_entry = where.find("guest", _guest_key(found, _guest_key_parts(sources)))
    qemu = find(where, config.qemu) if config.qemu else Emulator("", (QEMU,))
    if guest_entry is None or qemu is None:
        return None
    return replace(_target(config, found, guest_entry, None, None), qemu=qemu.command)


def _target(
    config: MachineConfig, entry: Entry, guest_entry: Entry, kernel: Path | None, given: ImageFacts | None
) -> PreparedTarget:
    facts = {name: str(value) for name, value in entry.facts.items()}
    if kernel is not None and given is not None and given.release not in ("", facts["release"]):
        reason = f"is Linux {given.release}; target {config.name} and its recording module are {facts['release']}"
        raise InputError(str(kernel), None, reason)
    return PreparedTarget(
        name=config.name,
        kernel=kernel.resolve() if kernel is not None else entry.path / facts.get("image", "Image"),
        kernel_sha256=given.sha256 if given is not None else facts["sha256"],
        kernel_release=facts["release"],
        package=facts["package"],
        package_version=facts["version"],
        initrd=guest_entry.path / "initrd.cpio",
        module_elf=guest_entry.path / "probe.ko",
        layout=guest_entry.path / LAYOUT,
        borrowed=facts.get("borrowed", ""),
    )


def _guest_key_parts(sources: Path) -> tuple[str | bytes, ...]:
    """Return all inputs of the target's programs but the kernel: recipe, compiler, sources."""
    compiler = Path(require_tool(f"{CROSS}gcc", COMPILER_PACKAGE)).resolve()
    state = compiler.stat()  # a new compiler is another file; to run it for its version would take longer
    parts: list[str | bytes] = [GUEST_RECIPE, f"{compiler} {state.st_size} {state.st_mtime_ns}"]
    parts += [KBUILD, *AGENT_FLAGS, protocol_header.render(), vcpu_layout.render_own()]
    try:
        for path in sorted(path for path in sources.iterdir() if path.suffix in (".c", ".h")):
            parts += [path.name, path.read_bytes()]
    except OSError as error:
        raise SetupError(f"cannot read the agent's sources in {sources}: {error.strerror}") from error
    return tuple(parts)


def _guest_key(entry: Entry, parts: tuple[str | bytes, ...]) -> str:
    own = [str(entry.facts[name]) for name in ("sha256", "borrowed") if "borrowed" in entry.facts]
    return hash_inputs([str(entry.path), str(entry.facts["packages"]), *own, *parts])


def _build_guest(entry: Entry, sources: Path, work: Path, progress: Progress) -> Mapping[str, object]:
    release = entry.facts["release"]
    progress(f"agent and recording module for {release}: compiling")
    build = work / "src"
    shutil.copytree(sources, build, ignore=shutil.ignore_patterns("*.o", "*.ko", "protocol.h", "layout.h"))
    (build / "protocol.h").write_text(protocol_header.render())
    borrowed = "borrowed" in entry.facts
    btf = None
    if borrowed:
        progress(f"no headers in the archive: using those of {entry.facts['borrowed']}, layouts from BTF")
        btf = read_btf(Path(str(entry.facts["image"])))
        (build / "layout.h").write_text(vcpu_layout.render_borrowed(btf, str(release)))
    else:
        (build / "layout.h").write_text(vcpu_layout.render_own())
    (build / "Kbuild").write_text(KBUILD)
    headers = entry.path / str(entry.facts["headers"])  # absolute for a build directory
    build_module(headers, build, progress, _toolchain(entry))
    (build / "probe.ko").rename(work / "probe.ko")
    layout = vcpu_layout.read_btf_layout(btf, str(release)) if btf is not None else read_layout(work / "probe.ko")
    # Kept in the entry, because reading DWARF takes longer than half a boot.
    (work / LAYOUT).write_text(json.dumps(layout.to_json()))
    strip = [f"{CROSS}strip", "--strip-debug", "-o", str(build / "stripped.ko"), str(work / "probe.ko")]
    run_tool(strip, "stripping the recording module")
    if borrowed:
        _unbind(build / "stripped.ko")
    compile_agent = [f"{CROSS}gcc", *AGENT_FLAGS, "-o", str(build / "init"), str(build / "agent.c")]
    run_tool(compile_agent, "compiling the agent", progress=progress)
    initramfs = build_initramfs((build / "init").read_bytes(), (build / "stripped.ko").read_bytes())
    (work / "initrd.cpio").write_bytes(initramfs)
    shutil.rmtree(build)
    return {"release": release}


def _unbind(module: Path) -> None:
    """Remove a module's symbol versions, so that a kernel loads a module that was built for another one.

    CONFIG_MODULE_FORCE_LOAD (Debian sets it) accepts a module without versions; the relevant layouts were compared
    before.  SetupError: the module has alternatives, which depend on the kernel's numbers of CPU features.
    """
    _, sections = run_tool([f"{CROSS}objdump", "-h", str(module)], "reading the recording module")
    if ".altinstructions" in sections:
        raise SetupError("the recording module contains alternatives: it must be built with the kernel's own headers")
    run_tool([f"{CROSS}objcopy", "--remove-section=__versions", str(module)], "removing the module's versions")
    module.write_bytes(module.read_bytes().replace(b"\0vermagic=", b"\0vermagiX="))


GCC: tuple[str, ...] = (f"CC={CROSS}gcc",)
"""The headers use the compiler's Debian 12 name, gcc-12; a cross compiler has another name."""


def _toolchain(entry: Entry) -> tuple[str, ...]:
    """Return make's variables for the compiler; a kernel's flags are for the compiler that it was built with."""
    facts = entry.facts
    if facts.get("clang"):
        require_tool("clang", "clang")
        require_tool("ld.lld", "lld")
    words = ("LLVM=1",) if facts.get("clang") else GCC
    # make Image alone leaves no Module.symvers.
    vmlinux = f"KBUILD_EXTRA_SYMBOLS={facts['headers']}/vmlinux.symvers"
    return (*words, vmlinux) if facts.get("symbols") == "vmlinux.symvers" else words


def build_module(headers: Path, build: Path, progress: Progress = quiet, toolchain: tuple[str, ...] = GCC) -> None:
    """Build the module in `build` against unpacked `headers`; SetupError has the compiler's first error."""
    make = require_tool("make", "make")
    argv = [make, "-C", str(headers), f"M={build}", "ARCH=arm64", f"CROSS_COMPILE={CROSS}", *toolchain]
    # No BTF: it would need pahole, and the host reads DWARF.  This changes only make's variable, no struct.
    argv += ["CONFIG_DEBUG_INFO_BTF_MODULES="]
    # -fmin-function-alignment is new in GCC 14; make then uses -falign-functions.
    argv += ["CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=", "modules"]
    run_tool(argv, "compiling the recording module", progress=progress)
