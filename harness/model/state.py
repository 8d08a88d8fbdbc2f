# SPDX-License-Identifier: Apache-2.0
"""Define ``RData``: the part of the machine state that VCPUOpsAux and VCPUOps access (docs/spec/model.md section 2).

A working state is mutable and the functions of a level change it in place; :func:`harness.model.evaluate` copies first,
so that it is pure for its callers.  All values but contexts are replaced, never changed, so only contexts are copied
deeply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NoReturn

from harness.model.constants import (
    CTXT_FIELDS,
    FP,
    GPRS,
    MAX_LOAD_INFO_NUM,
    POOL_BASE,
    POOL_SIZE,
    ctxt_id,
)

Context = dict[str, int]
Event = tuple[object, ...]
Page = tuple[int, int, int]  # owner, share count, gfn
Entry = tuple[int, int, int]  # pfn, level, pte
Reveal = tuple[int, int, int, int]  # vmid, vcpuid, register index, value
Decision = tuple[str, bool]

HOST_FIELDS: tuple[str, ...] = (*GPRS, "sp_el0", "pc", "pstate", "esr_el2", *FP)
WALK_FIELDS: tuple[str, ...] = ("addr", "pte", "level")

_BLANK = dict.fromkeys(CTXT_FIELDS, 0)
BLANK: Mapping[str, int] = MappingProxyType(_BLANK)
BLANK_HOST: Mapping[str, int] = MappingProxyType(dict.fromkeys(HOST_FIELDS, 0))
BLANK_WALK: Entry = (0, 0, 0)
BLANK_PAGE: Page = (0, 0, 0)
BLANK_ENTRY: Entry = (0, 0, 0)


class Undefined(Exception):
    """The level is undefined for this state; ``reason`` names the violated precondition.

    ``oracle exhausted`` is a reason of this model, not of the proof: the finite oracle was too short.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


EXHAUSTED = "oracle exhausted"


@dataclass(frozen=True, slots=True)
class Image:
    """A boot image: its load address, its size, and the address at which the core remapped it."""

    addr: int = 0
    size: int = 0
    remap: int = 0


@dataclass(frozen=True, slots=True)
class VmInfo:
    """``vminfos[vmid]``; ``powered_on`` is the kernel's own flag."""

    vm_state: int = 0
    vm_vcpu_state: tuple[int, ...] = (0,) * 8
    vm_next_load_info: int = 0
    images: tuple[Image, ...] = (Image(),) * MAX_LOAD_INFO_NUM
    vm_inc_exe: int = 0
    powered_on: int = 1


BLANK_INFO = VmInfo()


@dataclass(frozen=True, slots=True)
class Npt:
    """The stage-2 map of one VM; the table flags are the sets of indices whose flag is true."""

    pt: Mapping[int, Entry]
    pgd_t: frozenset[int]
    pud_t: frozenset[tuple[int, int]]
    pmd_t: frozenset[tuple[int, int, int]]
    pgd_next: int
    pud_next: int
    pmd_next: int


def pool_start(vmid: int) -> int:
    """Return the start of the VM's pool of table pages."""
    return POOL_BASE + POOL_SIZE * vmid


def fresh_npt(vmid: int) -> Npt:
    """Return a map without entries, and the first free page of each kind of table."""
    pool, none = pool_start(vmid), frozenset[tuple[int, int]]()
    return Npt({}, frozenset(), none, frozenset(), pool + 4096, pool + 1052672, pool + 9441280)


@dataclass(frozen=True, slots=True)
class RegDesc:
    """``reg_desc(i)``, the reset value of system register ``i``; 0 outside the rows."""

    rows: tuple[tuple[int, int], ...] = ()

    def __call__(self, index: int) -> int:
        for i, value in self.rows:
            if i == index:
                return value
        return 0


@dataclass(frozen=True, slots=True)
class ExceptionVector:
    """``exception_vector(pstate)``: VBAR plus the mode's offset (``pstate & 0x1F``; docs/spec/model.md section 3)."""

    vbar: int = 0

    def __call__(self, pstate: int) -> int:
        return self.vbar + {4: 0x000, 5: 0x200, 0: 0x400}.get(pstate & 0x1F, 0x600)


@dataclass(slots=True, eq=False)
class RData:
    """The working state; field names are those of the SeKVM Coq sources.

    ``doracle[vmid]`` is a finite sequence, ``data_log[vmid]`` the position in it.  A ``log`` is in order of time.
    ``revealed``, ``host_regs`` (by ``ctxt_id``), ``walk`` (addr, pte, level), ``ram`` (first pfn, end) and ``path`` are
    additions of this model: the revealed values, the host-visible copy that level ``kernel`` reads, and the decisions
    taken.
    """

    halt: bool = False
    curid: int = 0
    cur_vmid: int = 0
    cur_vcpuid: int = 0
    tstate: int = 1
    shadow_ctxts: dict[int, Context] = field(default_factory=dict)
    regs: Context = field(default_factory=lambda: dict(BLANK))
    doracle: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    data_log: dict[int, int] = field(default_factory=dict)
    core_doracle: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    core_data_log: dict[int, int] = field(default_factory=dict)
    vminfos: dict[int, VmInfo] = field(default_factory=dict)
    s2page: dict[int, Page] = field(default_factory=dict)
    flatmem: dict[int, int] = field(default_factory=dict)
    npts: dict[int, Npt] = field(default_factory=dict)
    lock: dict[int, bool] = field(default_factory=dict)  # true: held
    log: dict[int, list[Event]] = field(default_factory=dict)
    reg_desc: Callable[[int], int] = RegDesc()
    exception_vector: Callable[[int], int] = ExceptionVector()
    ram: tuple[int, int] = (0, 268435456)
    host_regs: dict[int, Context] = field(default_factory=dict)
    walk: dict[int, Entry] = field(default_factory=dict)
    revealed: list[Reveal] = field(default_factory=list)
    path: list[Decision] = field(default_factory=list)

    def copy(self) -> RData:
        """Return an independent state with an empty path."""
        return self.__class__(
            self.halt,
            self.curid,
            self.cur_vmid,
            self.cur_vcpuid,
            self.tstate,
            {k: c.copy() for k, c in self.shadow_ctxts.items()},
            self.regs,
            self.doracle,
            self.data_log.copy(),
            self.core_doracle,
            self.core_data_log.copy(),
            self.vminfos.copy(),
            self.s2page.copy(),
            self.flatmem.copy(),
            self.npts.copy(),
            self.lock.copy(),
            {k: events.copy() for k, events in self.log.items()},
            self.reg_desc,
            self.exception_vector,
            self.ram,
            {k: c.copy() for k, c in self.host_regs.items()},
            self.walk.copy(),
            self.revealed.copy(),
            [],
        )

    # Every branch and every precondition of every level goes through the next two methods.

    def decide(self, label: str, condition: bool) -> bool:
        """Take a branch: append ``(label, outcome)`` to the path and return the outcome."""
        self.path.append((label, condition))
        return condition

    def rely(self, name: str, condition: bool) -> None:
        """Raise :class:`Undefined` with ``name`` unless ``condition``."""
        if not condition:
            raise Undefined(name)

    def pick(self, label: str, value: int, limit: int) -> int:
        """Return a register index below ``limit`` as a plain number (a symbolic state splits here)."""
        return value

    def shared(self, function: Callable[..., None], *args: int) -> None:
        """Run a primitive that several levels share (a symbolic state may treat it as a black box)."""
        function(self, *args)

    def stop(self, reason: str) -> NoReturn:
        """Raise :class:`Undefined`: the machine itself crashes here, at every level."""
        raise Undefined(reason)

    # Access to maps, with a default for a missing entry.

    def ctxt(self, key: int) -> Context:
        """Return the shadow context ``key``; a blank one is created if it is missing."""
        found = self.shadow_ctxts.get(key)
        if found is None:
            found = self.shadow_ctxts[key] = dict(BLANK)
        return found

    def host(self, vmid: int, vcpuid: int) -> Context:
        """Return the host-visible registers of a vCPU; blank ones are created if they are missing."""
        key = ctxt_id(vmid, vcpuid)
        found = self.host_regs.get(key)
        if found is None:
            found = self.host_regs[key] = dict(BLANK_HOST)
        return found

    def info(self, vmid: int) -> VmInfo:
        """``vminfos[vmid]``."""
        return self.vminfos.get(vmid, BLANK_INFO)

    def note(self, log: int, *events: Event) -> None:
        """Append events to a log."""
        self.log.setdefault(log, []).extend(events)

    def npt(self, vmid: int) -> Npt:
        """``npts[vmid]``."""
        return self.npts.get(vmid) or fresh_npt(vmid)

    def data(self, vmid: int, offset: int) -> int:
        """Return the value at ``offset`` from the data oracle's position, without advancing it."""
        return _read(self.doracle.get(vmid, ()), self.data_log.get(vmid, 0) + offset)

    def core_data(self, vmid: int, offset: int) -> int:
        """Return the value at ``offset`` from the core data oracle's position, without advancing it."""
        return _read(self.core_doracle.get(vmid, ()), self.core_data_log.get(vmid, 0) + offset)

    def take_data(self, vmid: int) -> int:
        """Return the next value of the data oracle; the position advances by one."""
        value = self.data(vmid, 0)
        self.data_log[vmid] = self.data_log.get(vmid, 0) + 1
        return value

    def take_core_data(self, vmid: int) -> int:
        """Return the next value of the core data oracle; the position advances by one."""
        value = self.core_data(vmid, 0)
        self.core_data_log[vmid] = self.core_data_log.get(vmid, 0) + 1
        return value


def _read(values: tuple[int, ...], position: int) -> int:
    if position >= len(values):
        raise Undefined(EXHAUSTED)
    return values[position]


def blank_context() -> Context:
    """Return a new shadow context with every field 0."""
    return _BLANK.copy()  # a copy of the proxy takes eight times as long
