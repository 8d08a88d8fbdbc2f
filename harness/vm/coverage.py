# SPDX-License-Identifier: Apache-2.0
"""What it takes to see which of KVM's code a target runs: the plugin, compiled here, and the kernel's symbols."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SetupError
from harness.vm import edges
from harness.vm.build import PreparedTarget
from harness.vm.cache import Cache, default_root, hash_inputs
from harness.vm.edges import EdgeMap, Plugin
from harness.vm.process import Progress, quiet, require_tool, run_tool
from harness.vm.symbols import read_symbols
from harness.vm.text import BEGIN, KvmText, from_lines, kvm_text

SOURCES = Path(__file__).resolve().parent / "plugin"
HOST_FLAGS = ("-shared", "-fPIC", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror")
LIBRARY, TEXT = "edges.so", "kvm-text"
TEXT_RECIPE = "1"
"""Part of the symbols' key: to be raised when harness/vm/text.py makes something else of the same symbols."""
ROOM = 16 << 20


@dataclass(frozen=True, slots=True)
class Coverage:
    """The plugin's file, and where KVM's text is in the target's kernel."""

    library: Path
    text: KvmText

    def plugin(self, path: Path | None = None) -> Plugin:
        """Return the plugin with an empty map, in the file ``path`` if there is one.  SetupError: no room for it."""
        map_ = EdgeMap(path)
        map_.describe(self.text.ranges, self.text.at(BEGIN))
        return Plugin(self.library, map_)


def prepare_coverage(prepared: PreparedTarget, *, progress: Progress = quiet, cache: Cache | None = None) -> Coverage:
    """Return what a target's coverage needs, made as far as it is not in the cache.

    SetupError: no compiler, a QEMU without plugins, or a kernel without the symbols that bound KVM's text.
    """
    where = cache if cache is not None else Cache(default_root(os.environ))
    gcc = require_tool("gcc", "gcc")
    source = (SOURCES / "edges.c").read_bytes()
    tools = [_identity(gcc), _identity(require_tool(prepared.qemu[-1], "qemu-system-arm"))]
    key = hash_inputs([*tools, *HOST_FLAGS, source, edges.render()])
    library = where.get("plugin", key, lambda work: _build_plugin(gcc, prepared.qemu, work, progress), progress, ROOM)
    text_key = hash_inputs([TEXT_RECIPE, prepared.kernel_sha256])
    text = where.get("kvm-text", text_key, lambda work: _read_text(prepared.kernel, work), progress, ROOM)
    return Coverage(library.path / LIBRARY, from_lines((text.path / TEXT).read_text()))


def _identity(program: str) -> str:
    path = Path(program).resolve()
    return f"{path} {path.stat().st_mtime_ns}"


def _build_plugin(gcc: str, qemu: Sequence[str], work: Path, progress: Progress) -> Mapping[str, object]:
    progress("coverage plugin: compiling")
    _, options = run_tool([*qemu, "-help"], "asking QEMU for its options")
    if "-plugin" not in options:
        raise SetupError(f"{qemu[-1]} takes no plugins: it was built without --enable-plugins")
    build = work / "src"
    build.mkdir()
    (build / "edges.h").write_text(edges.render())
    argv = [gcc, *HOST_FLAGS, "-I", str(build), "-o", str(work / LIBRARY), str(SOURCES / "edges.c")]
    run_tool(argv, "compiling the coverage plugin", progress=progress)
    shutil.rmtree(build)
    return {}


def _read_text(kernel: Path, work: Path) -> Mapping[str, object]:
    (work / TEXT).write_text(kvm_text(read_symbols(kernel)).to_lines())
    return {}
