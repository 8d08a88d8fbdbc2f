# SPDX-License-Identifier: Apache-2.0
"""Define and decode the file in which a plugin records pKVM's hyp vCPU: its layout as rows.

Since 6.3, in protected mode (pKVM), EL2 runs its own copy of the vCPU, in memory that the host's kernel cannot read.
QEMU can.  The plugin restarts at each scenario, as the one that counts edges (:mod:`harness.vm.plugins.edges`).
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from harness.errors import AgentProtocolError, SetupError
from harness.protocol import Word
from harness.trace.decode import ContextLayout
from harness.trace.events import ENTRY, EXIT, Event, Hyp
from harness.vm.build.prepare import PreparedTarget
from harness.vm.cache import Cache, default_root, hash_inputs
from harness.vm.kernels.btf import read_btf
from harness.vm.kernels.kallsyms import LOAD_OFFSET, Symbols, read_symbols
from harness.vm.kernels.kvm_functions import BEGIN
from harness.vm.plugins.plugin import Plugin, Words, compile_plugin, struct_members
from harness.vm.tools import Progress, quiet

MAGIC = 0x3150_5948_5A46_4853  # "SHFZHYP1"
SIZE, LEAVES, RECORDS_AT = 16 << 20, 4, 4096
"""Bytes of the file (room for 3 400 records of 7.3, two for each exit); places after a run; offset of the records."""
ENTER, LEAVE = 1, 2
"""Kinds of records: before the vCPU's registers are loaded, after they were saved."""
PLACES_RECIPE = "1"
"""Part of the key of a kernel's places: raise it when :func:`find_places` returns other values for a kernel."""
HEAD = struct.Struct("<4Q")
"""Words before the context: kind, address of the copy, address of the host's vCPU, HCR_EL2."""

WORDS: tuple[Word, ...] = (
    Word("magic", "SF_HYP_MAGIC"),
    Word("ram_inode", "host: inode of the file that is the machine's RAM"),
    Word("ram_size", "host: bytes of RAM"),
    Word("ram_mask", "host: mask of an EL2 address that gives an offset in RAM"),
    Word("begin_at", "host: offset of the block whose execution begins a scenario"),
    Word("enter_at", "host: offset of the function that loads and runs a vCPU"),
    Word("percpu_at", "host: offset of the pointer to EL2's per-CPU variables"),
    Word("loaded_at", "host: offset in them of the pointer to the loaded vCPU"),
    Word("context_at", "host: offset of struct kvm_cpu_context in a copy"),
    Word("context_size", "host: its size"),
    Word("hcr_at", "host: offset of HCR_EL2 in a copy"),
    Word("host_at", "host: offset of the pointer to the host's vCPU in a copy"),
    Word("record_size", "host: bytes of a record"),
    Word("room", "host: maximum number of records"),
    Word("leave_count", "host: number of places of leave_at in use"),
    Word("armed", "plugin: 1 from the begin of a scenario; host: 0 after its end"),
    Word("count", "plugin: records of this scenario"),
    Word("dropped", "plugin: records that were dropped: no room"),
    Word("missed", "plugin: runs of a vCPU that has no copy"),
)
_LEAVES_AT = 8 * len(WORDS)


def render() -> str:
    """Return the text of ``hypcopy.h`` for the plugin."""
    return f"""\
/* Generated from harness/vm/plugins/hyp_copy.py: do not edit. */
#define SF_HYP_MAGIC {MAGIC:#x}u
#define SF_HYP_SIZE {SIZE}
#define SF_HYP_LEAVES {LEAVES}
#define SF_HYP_ENTER {ENTER}
#define SF_HYP_LEAVE {LEAVE}
struct sf_hyp {{
{struct_members(WORDS)}
\tuint64_t leave_at[SF_HYP_LEAVES];
\tunsigned char records[] __attribute__((aligned({RECORDS_AT})));
}};
_Static_assert(offsetof(struct sf_hyp, leave_at) == {_LEAVES_AT}, "layout");
_Static_assert(offsetof(struct sf_hyp, records) == {RECORDS_AT}, "layout");
"""


@dataclass(frozen=True, slots=True)
class Places:
    """The offsets in one kernel: words of the header by name, and the returns of EL2's calls that run a vCPU."""

    words: Mapping[str, int]
    leave_at: tuple[int, ...]


RUN, HANDLER = "__kvm_nvhe___kvm_vcpu_run", "__kvm_nvhe_handle___kvm_vcpu_run"
_SYMBOLS = (
    *(RUN, HANDLER, BEGIN, "__kvm_nvhe_kvm_arm_hyp_percpu_base"),
    *("__kvm_nvhe_loaded_hyp_vcpu", "__kvm_nvhe___per_cpu_start"),
)


def find_places(kernel: Path) -> Places:
    """Return the offsets of a kernel's hyp vCPUs.  SetupError: it has no hyp vCPUs, or they were not found."""
    symbols = read_symbols(kernel)
    missing = next((name for name in _SYMBOLS if symbols.address(name) is None), "")
    if missing:
        raise SetupError(f"{kernel}: no {missing}: its hypervisor has no vCPUs of its own, or with other names")
    run, handler, begin, percpu, loaded, start = (symbols.address(name) or 0 for name in _SYMBOLS)
    btf = read_btf(kernel)
    members = ("kvm_vcpu.arch.ctxt", "kvm_vcpu.arch.hcr_el2", "pkvm_hyp_vcpu.host_vcpu")
    context, hcr, host = (btf.offset(member) for member in members)
    size = btf.size("kvm_cpu_context")
    if min(context, hcr, host, size) < 0:
        raise SetupError(f"{kernel}: its BTF lacks one of {', '.join(members)}")

    def offset(address: int) -> int:
        return address - symbols.base + LOAD_OFFSET

    words = {"begin_at": offset(begin), "enter_at": offset(run), "percpu_at": offset(percpu)}
    words |= {"loaded_at": loaded - start}
    words |= {"context_at": context, "context_size": size, "hcr_at": hcr, "host_at": host}
    words |= {"record_size": HEAD.size + size, "room": (SIZE - RECORDS_AT) // (HEAD.size + size)}
    returns = tuple(offset(address) for address in _calls(kernel, symbols, handler, run))
    if not 0 < len(returns) <= LEAVES:
        raise SetupError(f"{kernel}: {len(returns)} calls of {RUN} in {HANDLER}, expected 1 to {LEAVES}")
    return Places(words, returns)


def _calls(kernel: Path, symbols: Symbols, function: int, callee: int) -> list[int]:
    """Return the return address of each BL from one function to another."""
    end = next(after for before, after in pairwise(symbols.addresses) if before >= function and after > function)
    with kernel.open("rb") as file:
        file.seek(function - symbols.base)
        code = file.read(end - function)
    found = []
    for (word,), at in zip(struct.iter_unpack("<I", code), range(function, end, 4), strict=True):
        distance = (word & 0x3FF_FFFF) - (word >> 25 & 1) * (1 << 26)
        if word >> 26 == 0b100101 and at + 4 * distance == callee:  # BL, Arm ARM C6.2.34
            found.append(at + 4)
    return found


@dataclass(frozen=True, slots=True)
class HypCopy:
    """The plugin's file, the offsets of one kernel's hyp vCPUs, and a machine's bytes of RAM."""

    library: Path
    places: Places
    ram_size: int

    @contextmanager
    def plugin(self) -> Iterator[Plugin[HypMap]]:
        """Yield the plugin for one machine, with its own file.  SetupError: no space for it."""
        with closing(HypMap(self.places, self.ram_size)) as map_:
            yield Plugin(self.library, map_)


def prepare_hyp(
    prepared: PreparedTarget, ram_size: int, progress: Progress = quiet, cache: Cache | None = None
) -> HypCopy:
    """Return what records the hyp vCPUs of a machine with ``ram_size`` bytes of RAM.

    SetupError: no compiler, a QEMU without plugins, or a kernel whose hypervisor has no vCPUs of its own.
    """
    where = cache if cache is not None else Cache(default_root(os.environ))
    places = _kept_places(prepared, where, progress)
    return HypCopy(compile_plugin("hypcopy", render(), prepared.qemu, progress, where), places, ram_size)


def _kept_places(prepared: PreparedTarget, cache: Cache, progress: Progress) -> Places:
    """Return a kernel's places from the cache; find them if they are absent, which takes a second."""
    key = hash_inputs([PLACES_RECIPE, prepared.kernel_sha256, render()])
    facts = cache.get("hyp-places", key, lambda _: asdict(find_places(prepared.kernel)), progress).facts
    words, leave_at = facts["words"], facts["leave_at"]
    assert isinstance(words, dict) and isinstance(leave_at, list)
    return Places(words, tuple(leave_at))


class HypMap(Words):
    """The file, for one machine at a time.  SetupError: no space for it."""

    def __init__(self, places: Places, ram_size: int) -> None:
        try:
            fd = os.memfd_create("shadowfuzz-hyp")
            os.ftruncate(fd, SIZE)
            memory = mmap.mmap(fd, SIZE)
        except OSError as error:
            raise SetupError(f"cannot create the file for the hypervisor's vCPUs: {error.strerror}") from error
        super().__init__(fd, memory, WORDS)
        words = {"magic": MAGIC, **places.words, "leave_count": len(places.leave_at), "ram_size": ram_size}
        words["ram_mask"] = (1 << (ram_size - 1).bit_length()) - 1  # as Symbols.of_hyp has it
        for name, value in words.items():
            self.put(name, value)
        for number, at in enumerate(places.leave_at):
            struct.pack_into("<Q", self._memory, _LEAVES_AT + 8 * number, at)

    def copies_of(self, events: Sequence[Event], layout: ContextLayout, *, complete: bool = True) -> tuple[Hyp, ...]:
        """Return the hyp copies of the last scenario, each with its entry or exit of the trace.

        A run of a vCPU is one entry and one exit in both.  If one of the two is full (the trace is not ``complete``),
        the rest of the other is ignored.  AgentProtocolError: they do not match.
        """
        count, size, values_of = self.word("count"), self.word("record_size"), layout.reader()
        if self.word("missed"):
            raise AgentProtocolError(f"{self.word('missed')} times a vCPU ran of which the hypervisor has no copy")
        runs = [(index, event) for index, event in enumerate(events) if event.kind in (ENTRY, EXIT)]
        if len(runs) != count and complete and not self.word("dropped"):
            raise AgentProtocolError(f"{count} copies of the hypervisor's vCPU for {len(runs)} entries and exits")
        found: list[Hyp] = []
        owners: dict[int, int] = {}
        for number, (index, event) in enumerate(runs[:count]):
            at = RECORDS_AT + number * size
            kind, vcpu, host, hcr = HEAD.unpack_from(self._memory, at)
            if kind != (ENTER if event.kind == ENTRY else LEAVE) or owners.setdefault(event.context, host) != host:
                raise AgentProtocolError(f"copy {number} of the hypervisor's vCPU, at {vcpu:#x}, is out of order")
            context = bytes(self._memory[at + HEAD.size : at + size])
            found.append(Hyp(index, hcr, values_of(context)))
        return tuple(found)
