# SPDX-License-Identifier: Apache-2.0
"""From a machine's configuration to something that boots: kernel, recording module, agent, initramfs.

Two cache entries: the kernel package with its headers (fetched once, then kept, so that a target does not change
below a campaign), and what is compiled against it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import InputError, SetupError
from harness.vm.build import protocol_header
from harness.vm.build.initramfs import build_initramfs
from harness.vm.cache import Cache, Entry, default_root, hash_inputs
from harness.vm.config import MachineConfig
from harness.vm.debian.apt import Archive, Package, open_archive, unpack
from harness.vm.debian.kernel_archive import recall
from harness.vm.kernels import vcpu_layout
from harness.vm.kernels.btf import read_btf
from harness.vm.kernels.dwarf import read_layout
from harness.vm.kernels.fetch import STATE, Fetched, borrow, fetch, find_fetched, find_kernel
from harness.vm.kernels.files import IMAGE_MAGIC as IMAGE_MAGIC
from harness.vm.kernels.files import IMAGE_MAGIC_OFFSET as IMAGE_MAGIC_OFFSET
from harness.vm.kernels.files import ImageFacts, find_headers, find_image, make_relocatable
from harness.vm.kernels.files import read_image as read_image
from harness.vm.qemu_versions import QEMU, Emulator, find, obtain
from harness.vm.tools import Progress, quiet, require_tool, run_tool

GUEST_SOURCES = Path(__file__).resolve().parents[1] / "guest"
CROSS = "aarch64-linux-gnu-"
COMPILER_PACKAGE = "gcc-aarch64-linux-gnu"

KERNEL_RECIPE = "1"
"""Part of the kernel entry's key: to be raised when the code below makes something else of the same packages."""
GUEST_RECIPE = "3"
"""The same for what is compiled."""

LAYOUT = "layout.json"
"""Beside the recording module: where this kernel keeps the registers."""

KERNEL_ROOM = 512 << 20
"""Bytes for one kernel while it is unpacked, with its packages and apt's lists (measured: 340 MiB; 120 to 150 stay)."""
GUEST_ROOM = 32 << 20
GUESTS_KEPT = 12
"""So many builds of the guest's programs stay for each kernel, those that were used last (1.2 MB each)."""

KBUILD = """\
# -g: the host reads struct layouts from the module's DWARF.
# Headers may have attributes that this compiler is too old for.
ccflags-y := -g -Werror -Wno-error=attributes
# No places for ftrace: it wants an alignment of functions that older compilers do not give, and BUGs without.
ccflags-remove-y := $(CC_FLAGS_FTRACE)
obj-m := probe.o
"""
AGENT_FLAGS = ("-static", "-O2", "-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True, slots=True)
class PreparedTarget:
    """Everything that a machine boots from, and where it came from.

    `kernel_release` is ``uname -r``; `package_version` is that of the Debian package (of the recording module's
    headers, if another image was given); `module_elf` is the recording module with its DWARF, `layout` a
    ContextLayout as JSON; `qemu` are the first words of the emulator's command line.  `borrowed`: the package
    version whose headers the module was built with, if the kernel has none of its own; layouts are then in its BTF.
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
    """Return the target, built as far as it is not in the cache.

    `kernel` is booted in place of the package's image; the module stays that of the package.  SetupError: something
    is missing on this machine; InputError: `kernel` is not an arm64 Image of the same release.
    """
    where = cache if cache is not None else Cache(default_root(os.environ))
    given = None if kernel is None else read_image(kernel)
    qemu = obtain(where, config.qemu, progress).command if config.qemu else (QEMU,)
    guest = _guest_key_parts(sources)
    if config.kernel_version:
        wanted = find_kernel(where, config.kernel_version, progress)
        kernel_entry = _pinned(where, fetch(where, wanted, progress), progress)
    else:
        kernel_entry = where.get(
            "kernel",
            _kernel_key(config),
            lambda work: _build_kernel(config, where, work, progress),
            progress,
            KERNEL_ROOM,
        )
    guest_entry = where.get(
        "guest",
        _guest_key(kernel_entry, guest),
        lambda work: _build_guest(kernel_entry, sources, work, progress),
        progress,
        GUEST_ROOM,
        keep=GUESTS_KEPT,
        alike="release",
    )
    return replace(_target(config, kernel_entry, guest_entry, kernel, given), qemu=qemu)


def find_prepared(
    config: MachineConfig, *, cache: Cache | None = None, sources: Path = GUEST_SOURCES
) -> PreparedTarget | None:
    """Return the target if it needs nothing more than the cache; never builds."""
    where = cache if cache is not None else Cache(default_root(os.environ))
    kernel_entry = _find_kernel_entry(config, where)
    if kernel_entry is None or shutil.which(f"{CROSS}gcc") is None:
        return None
    guest_entry = where.find("guest", _guest_key(kernel_entry, _guest_key_parts(sources)))
    qemu = find(where, config.qemu) if config.qemu else Emulator("", (QEMU,))
    if guest_entry is None or qemu is None:
        return None
    return replace(_target(config, kernel_entry, guest_entry, None, None), qemu=qemu.command)


def _find_kernel_entry(config: MachineConfig, cache: Cache) -> Entry | None:
    if not config.kernel_version:
        return cache.find("kernel", _kernel_key(config))
    known = recall(cache.root / STATE)
    found = None if known is None else find_fetched(cache, known.find(config.kernel_version))
    return None if found is None else _pinned(cache, found)


def _pinned(cache: Cache, fetched: Fetched, progress: Progress = quiet) -> Entry:
    """Return a kernel of the archive as if it were one entry; its image is elsewhere than its headers."""
    if fetched.headers is None:
        fetched = borrow(cache, fetched, progress)
    assert fetched.headers is not None
    facts = {**fetched.headers.facts, **fetched.image.facts, "image": str(fetched.image.path / "Image")}
    if fetched.donor is not None:
        facts["borrowed"] = fetched.donor.version
    return Entry(fetched.headers.path, facts)


def _target(
    config: MachineConfig, kernel_entry: Entry, guest_entry: Entry, kernel: Path | None, given: ImageFacts | None
) -> PreparedTarget:
    facts = {name: str(value) for name, value in kernel_entry.facts.items()}
    if kernel is not None and given is not None and given.release not in ("", facts["release"]):
        reason = f"is Linux {given.release}; target {config.name} and its recording module are {facts['release']}"
        raise InputError(str(kernel), None, reason)
    return PreparedTarget(
        name=config.name,
        kernel=kernel.resolve() if kernel is not None else kernel_entry.path / facts.get("image", "Image"),
        kernel_sha256=given.sha256 if given is not None else facts["sha256"],
        kernel_release=facts["release"],
        package=facts["package"],
        package_version=facts["version"],
        initrd=guest_entry.path / "initrd.cpio",
        module_elf=guest_entry.path / "probe.ko",
        layout=guest_entry.path / LAYOUT,
        borrowed=facts.get("borrowed", ""),
    )


def _kernel_key(config: MachineConfig) -> str:
    return hash_inputs([KERNEL_RECIPE, config.kernel_package, platform.machine()])


def _build_kernel(config: MachineConfig, cache: Cache, work: Path, progress: Progress) -> Mapping[str, object]:
    if re.search(r"[\s:]", str(work)):
        # Known before 40 MB are fetched: make splits its words there, and Linux' Makefile refuses to start.
        raise SetupError(f"no kernel module can be built in {cache.root}: set XDG_CACHE_HOME to a path without spaces")
    progress(f"kernel package {config.kernel_package}: fetching and unpacking")
    unpacked = work / "unpacked"
    with cache.lock("apt", progress):
        archive = open_archive(cache.root / "apt", progress)
        packages = resolve_kernel(archive, config.kernel_package)
        debs = archive.download(packages)
        unpack(debs, unpacked, progress)
        for path in (cache.root / "apt" / "debs", cache.root / "apt" / "cache"):
            shutil.rmtree(path)  # 150 MB that nothing needs any more; the lists stay, for the next kernel
    image, headers = find_image(unpacked), find_headers(unpacked)
    release = headers.name.removeprefix("linux-headers-")
    make_relocatable(headers)
    image.rename(work / "Image")
    headers.parent.parent.rename(work / "usr")
    shutil.rmtree(unpacked)  # the package's own modules: KVM and all that the agent needs is built in
    return {
        "package": packages[0].name,
        "version": packages[0].version,
        "release": release,
        "sha256": read_image(work / "Image").sha256,
        "headers": f"usr/src/{headers.name}",
        "packages": [package.wanted for package in packages],
    }


def resolve_kernel(archive: Archive, name: str) -> tuple[Package, ...]:
    """Return the kernel package behind `name` (a meta package or the real one), then what a module build needs.

    Headers are of the image's own version; the build tools (linux-kbuild) are those for this machine.
    """
    image = archive.show(name)
    follow = [other for other in image.depends if re.fullmatch(r"linux-image-\d.*", other)]
    if follow:
        image = archive.show(follow[0])
    release = image.name.removeprefix("linux-image-")
    headers = archive.show(f"linux-headers-{release}")
    if headers.version != image.version:
        raise SetupError(f"the archive has {image.name} {image.version} but its headers {headers.version}; try later")
    common = [archive.show(other) for other in headers.depends if re.fullmatch(r"linux-headers-.*-common.*", other)]
    tools = [other for other in headers.depends if other.startswith("linux-kbuild-")]
    return (image, headers, *common, *(archive.show(other, archive.build_architecture) for other in tools))


def _guest_key_parts(sources: Path) -> tuple[str | bytes, ...]:
    """Return everything but the kernel that decides what the guest's programs become."""
    compiler = Path(require_tool(f"{CROSS}gcc", COMPILER_PACKAGE)).resolve()
    state = compiler.stat()  # a new compiler is another file; asking it for its version would take longer
    parts: list[str | bytes] = [GUEST_RECIPE, f"{compiler} {state.st_size} {state.st_mtime_ns}"]
    parts += [KBUILD, *AGENT_FLAGS, protocol_header.render(), vcpu_layout.render_own()]
    try:
        for path in sorted(path for path in sources.iterdir() if path.suffix in (".c", ".h")):
            parts += [path.name, path.read_bytes()]
    except OSError as error:
        raise SetupError(f"cannot read the agent's sources in {sources}: {error.strerror}") from error
    return tuple(parts)


def _guest_key(kernel_entry: Entry, parts: tuple[str | bytes, ...]) -> str:
    own = [str(kernel_entry.facts[name]) for name in ("sha256", "borrowed") if "borrowed" in kernel_entry.facts]
    return hash_inputs([str(kernel_entry.path), str(kernel_entry.facts["packages"]), *own, *parts])


def _build_guest(kernel_entry: Entry, sources: Path, work: Path, progress: Progress) -> Mapping[str, object]:
    release = kernel_entry.facts["release"]
    progress(f"agent and recording module for {release}: compiling")
    build = work / "src"
    shutil.copytree(sources, build, ignore=shutil.ignore_patterns("*.o", "*.ko", "protocol.h", "layout.h"))
    (build / "protocol.h").write_text(protocol_header.render())
    borrowed = "borrowed" in kernel_entry.facts
    btf = None
    if borrowed:
        progress(f"no headers in the archive: those of {kernel_entry.facts['borrowed']}, layouts from its own BTF")
        btf = read_btf(Path(str(kernel_entry.facts["image"])))
        (build / "layout.h").write_text(vcpu_layout.render_borrowed(btf, str(release)))
    else:
        (build / "layout.h").write_text(vcpu_layout.render_own())
    (build / "Kbuild").write_text(KBUILD)
    build_module(kernel_entry.path / str(kernel_entry.facts["headers"]), build, progress)
    (build / "probe.ko").rename(work / "probe.ko")
    layout = vcpu_layout.read_btf_layout(btf, str(release)) if btf is not None else read_layout(work / "probe.ko")
    # Here, because reading DWARF takes longer than half a boot.
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
    """Let a kernel load a module that was built for another: it has no versions then that could be wrong.

    CONFIG_MODULE_FORCE_LOAD (Debian sets it) takes a module without; what really matters was compared before.
    SetupError: the module has code that depends on numbers of CPU features.
    """
    _, sections = run_tool([f"{CROSS}objdump", "-h", str(module)], "reading the recording module")
    if ".altinstructions" in sections:
        raise SetupError("the recording module has alternatives: it can only be built with a kernel's own headers")
    run_tool([f"{CROSS}objcopy", "--remove-section=__versions", str(module)], "removing the module's versions")
    module.write_bytes(module.read_bytes().replace(b"\0vermagic=", b"\0vermagiX="))


def build_module(headers: Path, build: Path, progress: Progress = quiet) -> None:
    """Build the module in `build` against unpacked `headers`; SetupError with the compiler's first complaint."""
    make = require_tool("make", "make")
    argv = [make, "-C", str(headers), f"M={build}", "ARCH=arm64", f"CROSS_COMPILE={CROSS}"]
    # The headers ask for the compiler by its Debian 12 name, gcc-12; a cross compiler is called otherwise.
    argv += [f"CC={CROSS}gcc"]
    # No BTF: it would need pahole, and the host reads DWARF.  Only make sees this; the structs stay the kernel's.
    argv += ["CONFIG_DEBUG_INFO_BTF_MODULES="]
    # -fmin-function-alignment is GCC 14's; make then falls back to -falign-functions.
    argv += ["CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=", "modules"]
    run_tool(argv, "compiling the recording module", progress=progress)
