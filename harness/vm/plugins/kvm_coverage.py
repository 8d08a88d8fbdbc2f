# SPDX-License-Identifier: Apache-2.0
"""Prepare a target's coverage of KVM's code: the compiled plugin and the kernel's symbols."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.vm.build.prepare import PreparedTarget
from harness.vm.cache import Cache, default_root, hash_inputs
from harness.vm.kernels.kallsyms import read_symbols
from harness.vm.kernels.kvm_functions import BEGIN, KvmText, from_lines, kvm_text
from harness.vm.plugins import edges
from harness.vm.plugins.edges import EdgeMap
from harness.vm.plugins.plugin import Plugin, compile_plugin
from harness.vm.tools import Progress, quiet

TEXT = "kvm-text"
TEXT_RECIPE = "1"
"""Part of the symbols' key: raise it when harness/vm/kernels/kvm_functions.py returns other functions for the same
symbols."""
ROOM = 16 << 20


@dataclass(frozen=True, slots=True)
class Coverage:
    """The plugin's file, and KVM's text in the target's kernel."""

    library: Path
    text: KvmText

    def plugin(self, path: Path | None = None) -> Plugin[EdgeMap]:
        """Return the plugin with an empty map, in the file ``path`` if it is given.  SetupError: no space for it."""
        map_ = EdgeMap(path)
        map_.describe(self.text.ranges, self.text.at(BEGIN))
        return Plugin(self.library, map_)


def prepare_coverage(prepared: PreparedTarget, *, progress: Progress = quiet, cache: Cache | None = None) -> Coverage:
    """Return what a target's coverage needs; parts that are not in the cache are made.

    SetupError: no compiler, a QEMU without plugins, or a kernel without the symbols that bound KVM's text.
    """
    where = cache if cache is not None else Cache(default_root(os.environ))
    library = compile_plugin("edges", edges.render(), prepared.qemu, progress, where)
    text_key = hash_inputs([TEXT_RECIPE, prepared.kernel_sha256])
    text = where.get("kvm-text", text_key, lambda work: _read_text(prepared.kernel, work), progress, ROOM)
    return Coverage(library, from_lines((text.path / TEXT).read_text()))


def _read_text(kernel: Path, work: Path) -> Mapping[str, object]:
    (work / TEXT).write_text(kvm_text(read_symbols(kernel)).to_lines())
    return {}
