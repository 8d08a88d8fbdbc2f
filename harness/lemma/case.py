# SPDX-License-Identifier: Apache-2.0
"""Describe a start state as a flat value: slot name to number, without the slots that have their default.

The generator makes cases, the minimiser makes them smaller, the corpus stores them, and :func:`build` turns one into
the state and the arguments that a level runs on.  The slots name what the two layers can see of one vCPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType

from harness.model import FUNCTION
from harness.model.constants import (
    CTXT_FIELDS,
    HOSTVISOR,
    INFO_ID,
    INVALID64,
    MASK32,
    NPT_ID,
    PAGE_SIZE,
    PGD_LIMIT,
    PMD_LIMIT,
    PUD_LIMIT,
    S2PAGE_ID,
    ctxt_id,
    phys_page,
)
from harness.model.paging import table_indices
from harness.model.state import (
    BLANK,
    BLANK_HOST,
    HOST_FIELDS,
    ExceptionVector,
    Image,
    Npt,
    RData,
    RegDesc,
    VmInfo,
    fresh_npt,
    pool_start,
)

ORACLE_SLOTS, CORE_SLOTS, IMAGES = 6, 3, 5
ORACLE_LENGTH = 560  # long enough for one 512-page mapping after a whole sync; 0 after the slots


class Kind(Enum):
    """Which part of the state a slot sets."""

    SCALAR = "scalar"
    CTXT = "ctxt"
    DATA = "data"
    CORE = "core"
    INFO = "info"
    IMAGE = "image"
    LOCK = "lock"
    PAGE = "page"
    POOL = "pool"
    DESC = "reg_desc"
    HOST = "host"
    REGS = "regs"


@dataclass(frozen=True, slots=True)
class Slot:
    """One number of a start state: its place in the total order, and its default."""

    rank: int
    name: str
    kind: Kind
    key: str | int
    default: int = 0


def _slots() -> tuple[Slot, ...]:
    rows: list[tuple[str, Kind, str | int, int]] = [
        (name, Kind.SCALAR, name, default)
        for name, default in (("vmid", 1), ("vcpuid", 0), ("cur_vmid", 1), ("halt", 0), ("addr", 0))
    ]
    rows += [(f"ctxt.{name}", Kind.CTXT, name, 0) for name in CTXT_FIELDS]
    rows += [(f"data.{i}", Kind.DATA, i, 0) for i in range(ORACLE_SLOTS)]
    rows += [(f"core.{i}", Kind.CORE, i, 0) for i in range(CORE_SLOTS)]
    rows += [(name, Kind.SCALAR, name, 0) for name in ("data_log", "core_data_log", "curid")]
    rows += [(f"info.{n}", Kind.INFO, n, 0) for n in ("vm_next_load_info", "vm_inc_exe", "vm_state")]
    rows += [
        (f"image{i}.{n}", Kind.IMAGE, i * 3 + j, 0)
        for i in range(IMAGES)
        for j, n in enumerate(("addr", "size", "remap"))
    ]
    rows += [(f"lock.{name}", Kind.LOCK, name, 0) for name in ("info", "s2page", "host", "npt")]
    pages = ("s2page.owner", "s2page.count", "s2page.gfn", "host.level", "host.pte", "npt.level", "npt.pte")
    rows += [(f"page.{name}", Kind.PAGE, name, 0) for name in pages]
    rows += [(f"pool.{name}", Kind.POOL, name, 0) for name in ("pgd", "pud", "pmd", "host")]
    rows += [(f"reg_desc.{i}", Kind.DESC, i, 0) for i in range(1, 26)]
    rows += [("regs.actlr_el1", Kind.REGS, "actlr_el1", 0)]
    rows += [(f"walk.{n}", Kind.SCALAR, f"walk.{n}", 0) for n in ("addr", "pte", "level")]
    rows += [(f"host.{name}", Kind.HOST, name, 0) for name in HOST_FIELDS]
    rows += [("vbar", Kind.SCALAR, "vbar", 0)]
    rows += [("pool.tables", Kind.POOL, "tables", 0)]
    return tuple(Slot(rank, *row) for rank, row in enumerate(rows))


SLOTS: Mapping[str, Slot] = MappingProxyType({slot.name: slot for slot in _slots()})

STORED = "what `shadowfuzz lemma --store` writes"
"""All files of corpus/lemmas."""
Case = tuple[tuple[str, int], ...]


def case_of(values: Mapping[str, int]) -> Case:
    """Return the case with these slots, without defaults, in the order of the slot table.

    Raises ``KeyError`` for an unknown slot.
    """
    kept = [(name, value) for name, value in values.items() if value != SLOTS[name].default]
    return tuple(sorted(kept, key=lambda item: SLOTS[item[0]].rank))


def build(case: Mapping[str, int], function: str, coupled: bool) -> tuple[RData, tuple[int, ...]]:
    """Return the start state and the arguments of ``function``.

    ``coupled``: level ``kernel`` takes part, so the oracles hold what its host-visible copy says; see :func:`couple`.
    """
    scalar = {"vmid": 1, "vcpuid": 0, "cur_vmid": 1}
    ctxt, host = dict(BLANK), dict(BLANK_HOST)
    data, core, images = [0] * ORACLE_SLOTS, [0] * CORE_SLOTS, [0] * (3 * IMAGES)
    info: dict[str, int] = {}
    desc: dict[int, int] = {}
    memory: dict[str, int] = {}
    locks: list[str] = []
    regs: dict[str, int] | None = None
    for name, value in case.items():
        slot = SLOTS[name]
        kind, key = slot.kind, slot.key
        if kind is Kind.CTXT:
            ctxt[key] = value  # type: ignore[index]
        elif kind is Kind.HOST:
            host[key] = value  # type: ignore[index]
        elif kind is Kind.DATA:
            data[key] = value  # type: ignore[index]
        elif kind is Kind.CORE:
            core[key] = value  # type: ignore[index]
        elif kind is Kind.SCALAR:
            scalar[key] = value  # type: ignore[index]
        elif kind is Kind.INFO:
            info[key] = value  # type: ignore[index]
        elif kind is Kind.IMAGE:
            images[key] = value  # type: ignore[index]
        elif kind is Kind.DESC:
            desc[key] = value  # type: ignore[index]
        elif kind is Kind.REGS:
            regs = {**BLANK, "actlr_el1": value}
        elif kind is Kind.LOCK:
            if value:
                locks.append(name)
        else:
            memory[name] = value
    vmid, vcpuid = scalar["vmid"], scalar["vcpuid"]
    cur_vmid = scalar["cur_vmid"] if function == "reset_sys_regs" else vmid  # the only helper that can see it
    key_id = ctxt_id(vmid, vcpuid)
    log, core_log = scalar.get("data_log", 0), scalar.get("core_data_log", 0)
    d = RData(
        halt=bool(scalar.get("halt", 0)),
        curid=scalar.get("curid", 0),
        cur_vmid=cur_vmid,
        cur_vcpuid=vcpuid,
        shadow_ctxts={key_id: ctxt},
        data_log={vmid: log},
        core_data_log={vmid: core_log},
        host_regs={key_id: host},
        exception_vector=ExceptionVector(scalar.get("vbar", 0)),
    )
    if regs is not None:
        d.regs = regs
    if desc:
        d.reg_desc = RegDesc(tuple(sorted(desc.items())))
    if info or any(images):
        rows = tuple(Image(*images[i : i + 3]) for i in range(0, 3 * IMAGES, 3))
        d.vminfos[vmid] = VmInfo(
            vm_state=info.get("vm_state", 0),
            vm_next_load_info=info.get("vm_next_load_info", 0),
            vm_inc_exe=info.get("vm_inc_exe", 0),
            images=rows,
        )
    lock_ids = {"lock.info": INFO_ID + vmid, "lock.s2page": S2PAGE_ID, "lock.host": NPT_ID, "lock.npt": NPT_ID + vmid}
    for name in locks:
        d.lock[lock_ids[name]] = True
    walk = tuple(scalar.get(f"walk.{n}", 0) for n in ("addr", "pte", "level"))
    addr = scalar.get("addr", 0)
    if coupled:
        d.walk[key_id] = walk  # type: ignore[assignment]
        data = couple(d, function, ctxt, host)
        core = list(walk) if function == "restore_shadow_kvm_regs" else [walk[1], walk[2], 0]
    d.doracle = {vmid: (0,) * log + tuple(data) + (0,) * (ORACLE_LENGTH - len(data))}
    if cur_vmid != vmid:
        d.doracle = {**d.doracle, cur_vmid: (*reversed(data), 0)}
        d.data_log[cur_vmid] = 0
    d.core_doracle = {vmid: (0,) * core_log + tuple(core)}
    if memory:
        restore = not FUNCTION[function].args
        _set_memory(d, memory, vmid, core[0] if restore else addr, core[1] if restore else core[0])
    names = FUNCTION[function].args
    return d, (vmid, vcpuid, addr)[: len(names)]


def couple(d: RData, function: str, ctxt: Mapping[str, int], host: Mapping[str, int]) -> list[int]:
    """Lay out what the host-visible registers say as the proof's data oracle.

    The proof reads by position what level ``kernel`` reads by name; without this the two would run on
    unrelated states.  The fault's address stays free: the proof takes it
    from the host (``walk.addr``, or the argument), the kernel from HPFAR_EL2, and a host may lie.
    """
    dirty, actlr = ctxt["dirty"], d.regs["actlr_el1"]
    first_entry = function == "restore_shadow_kvm_regs" and dirty == INVALID64
    if function == "reset_sys_regs":
        return [actlr]
    if first_entry or function == "reset_gp_regs":
        return [host["pc"], host["pstate"], actlr]
    if function in ("sync_dirty_to_shadow", "restore_shadow_kvm_regs"):
        return [host[f"x{i}"] for i in range(31) if dirty >> i & 1]
    return [host["esr_el2"] & MASK32]


_LIMITS = {"pgd": PGD_LIMIT, "pud": PUD_LIMIT, "pmd": PMD_LIMIT, "host": PMD_LIMIT}


def _set_memory(d: RData, memory: Mapping[str, int], vmid: int, addr: int, pte: int) -> None:
    """Set page ownership, entries, pools and tables for the page that this case maps.

    ``pool``: 1 just fits, 2 is full; ``pool.tables``: how many of the three tables above the entry exist.
    """
    pfn, gfn = phys_page(pte) // PAGE_SIZE, addr // PAGE_SIZE

    def get(name: str) -> int:
        return memory.get(f"page.{name}", 0)

    page = (get("s2page.owner"), get("s2page.count"), get("s2page.gfn"))
    if any(page):
        d.s2page[pfn] = page
    host, own = fresh_npt(HOSTVISOR), fresh_npt(vmid)
    if get("host.level") or get("host.pte"):
        host = replace(host, pt={pfn: (pfn, get("host.level"), get("host.pte"))})
    if get("npt.level") or get("npt.pte"):
        own = replace(own, pt={gfn: (phys_page(get("npt.pte")) // PAGE_SIZE, get("npt.level"), get("npt.pte"))})
    own = _with_tables(own, addr, memory.get("pool.tables", 0))
    for name, limit in _LIMITS.items():
        used = memory.get(f"pool.{name}", 0)
        if used:
            target = HOSTVISOR if name == "host" else vmid
            free = pool_start(target) + limit + PAGE_SIZE * (used - 2)
            if name == "host":
                host = replace(host, pmd_next=free)
            else:
                own = _with_free(own, name, free)
    if own != fresh_npt(vmid):
        d.npts[vmid] = own
    if host != fresh_npt(HOSTVISOR):
        d.npts[HOSTVISOR] = host


def _with_tables(npt: Npt, addr: int, count: int) -> Npt:
    pgd, pud, pmd = table_indices(addr)
    if count > 0:
        npt = replace(npt, pgd_t=frozenset({pgd}))
    if count > 1:
        npt = replace(npt, pud_t=frozenset({(pgd, pud)}))
    return replace(npt, pmd_t=frozenset({(pgd, pud, pmd)})) if count > 2 else npt


def _with_free(npt: Npt, name: str, free: int) -> Npt:
    if name == "pgd":
        return replace(npt, pgd_next=free)
    return replace(npt, pud_next=free) if name == "pud" else replace(npt, pmd_next=free)
