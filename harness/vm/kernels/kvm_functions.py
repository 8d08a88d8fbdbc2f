# SPDX-License-Identifier: Apache-2.0
"""Find KVM's functions in a kernel image, and their offsets in the machine's RAM.

KVM's objects are linked contiguously, in the order of the makefiles, so that a few symbols bound them: virt/kvm first,
then arch/arm64/kvm with its VHE objects (arch/arm64/kvm/Makefile, hyp/Makefile; the same from 6.1 to 7.3).  nVHE's EL2
code is a separate section (arch/arm64/kernel/vmlinux.lds.S, HYPERVISOR_TEXT).
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from harness.errors import SetupError
from harness.vm.kernels.kallsyms import LOAD_OFFSET, Symbols

GENERIC, EL1, EL2 = "virt/kvm", "arch/arm64/kvm EL1", "arch/arm64/kvm EL2"
"""Parts of KVM: shared by all architectures; arm64 code at the host's level; nVHE's code at EL2."""

BEGIN = "kvm_vm_ioctl_check_extension"
"""The function that the agent calls when a scenario begins; nothing else calls it during one."""


@dataclass(frozen=True, slots=True)
class Range:
    """A range of KVM's text: from one symbol to another, or to the end of the symbols that ``run`` matches."""

    part: str
    first: str
    end: str = ""
    run: str = ""


RANGES: tuple[Range, ...] = (
    # An object begins with its tracepoints: kvm_main.o of virt/kvm, arm.o of arch/arm64/kvm.
    Range(GENERIC, "__traceiter_kvm_userspace_exit", end="__traceiter_kvm_entry"),
    Range(EL1, "__traceiter_kvm_entry", end="kvm_pgtable_stage2_map"),
    # hyp/pgtable.o is the last object.
    Range(EL1, "kvm_pgtable_stage2_map", run=r"pgtable|stage2"),
    # noinstr: separate from the rest of arm.o.
    Range(EL1, "kvm_arm_vcpu_enter_exit", run=r"^kvm_arm_vcpu_enter_exit$"),
    Range(EL2, "__hyp_idmap_text_start", end="__hyp_text_end"),
)

_MARKER = re.compile(r"_(start|end)$|section_|__st(art|op)___")
"""Symbols that bound sections and are not functions."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function: the kernel's name, its part, and its text as offsets in RAM."""

    name: str
    part: str
    begin: int
    end: int


@dataclass(frozen=True)
class KvmText:
    """All functions of KVM in one kernel, by address."""

    functions: tuple[Function, ...]

    @cached_property
    def _begins(self) -> tuple[int, ...]:
        return tuple(function.begin for function in self.functions)

    def find(self, offset: int) -> Function | None:
        """Return KVM's function at an offset in RAM, None if there is none."""
        index = bisect_right(self._begins, offset) - 1
        function = self.functions[index] if index >= 0 else None
        return function if function is not None and offset < function.end else None

    def name(self, offset: int) -> str:
        """Return ``function+0x10`` for an offset, the bare name for a function's first instruction."""
        function = self.find(offset)
        if function is None:
            return f"{offset:#x}" if offset else "outside"
        at = offset - function.begin
        return f"{function.name}+{at:#x}" if at else function.name

    def at(self, name: str) -> int:
        """Return the offset of a function; SetupError if the kernel has no function of that name."""
        for function in self.functions:
            if function.name == name:
                return function.begin
        raise SetupError(f"this kernel has no function {name}")

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The text as the smallest number of ranges of offsets in RAM."""
        found: list[tuple[int, int]] = []
        for function in self.functions:
            if found and found[-1][1] == function.begin:
                found[-1] = found[-1][0], function.end
            else:
                found.append((function.begin, function.end))
        return tuple(found)

    def to_lines(self) -> str:
        """The functions as text, a line each; :func:`from_lines` reads it."""
        return "".join(f"{f.begin:x} {f.end:x} {f.name} {f.part}\n" for f in self.functions)


def from_lines(text: str) -> KvmText:
    """The inverse of :meth:`KvmText.to_lines`."""
    rows = (line.split(" ", 3) for line in text.splitlines())
    return KvmText(tuple(Function(name, part, int(begin, 16), int(end, 16)) for begin, end, name, part in rows))


def kvm_text(symbols: Symbols) -> KvmText:
    """Return KVM's text of a kernel.  SetupError: a symbol that bounds it is missing."""
    found: list[Function] = []
    for row in RANGES:
        begin = _index(symbols, row.first)
        end = _index(symbols, row.end) if row.end else _run(symbols, begin, row.run)
        found += _functions(symbols, begin, end, row.part)
    return KvmText(tuple(sorted(found, key=lambda function: function.begin)))


def _index(symbols: Symbols, name: str) -> int:
    """Return the index of the first symbol at the address of the symbol ``name``."""
    address = symbols.address(name)
    if address is None:
        raise SetupError(f"this kernel has no symbol {name}, which bounds KVM's text")
    return bisect_left(symbols.addresses, address)


def _run(symbols: Symbols, begin: int, pattern: str) -> int:
    index = begin
    while re.search(pattern, symbols.names[index]):
        index += 1
    return index


def _functions(symbols: Symbols, begin: int, end: int, part: str) -> Iterator[Function]:
    """Yield each address once, with its first name that is not a section's."""
    names: dict[int, str] = {}
    for address, name in zip(symbols.addresses[begin:end], symbols.names[begin:end], strict=True):
        if address not in names or _MARKER.search(names[address]):
            names[address] = name
    bounds = [address - symbols.base + LOAD_OFFSET for address in (*names, symbols.addresses[end])]
    for name, (first, last) in zip(names.values(), pairwise(bounds), strict=True):
        yield Function(name, part, first, last)
