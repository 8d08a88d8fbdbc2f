# SPDX-License-Identifier: Apache-2.0
"""Decode bytes to a case; most inputs are defined states, and values on a boundary are frequent.

Each byte of the header picks a row of one table: the profile (which branch), the vCPU's ids, the registers' content,
the owner of the mapped page, how full the tables are, the result of the walk, and how many slots are changed.  Then
each four bytes set one slot that the function can see: slot, kind of value, and two bytes for the value.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import product
from types import MappingProxyType

from harness.lemma.case import SLOTS
from harness.model.constants import (
    DIRTY_PC_FLAG,
    GPRS,
    INVALID,
    INVALID64,
    KERNEL_PSCI_0_2_FN64_AFFINITY_INFO,
    PENDING_EXCEPT_INJECT_FLAG,
    PSCI_0_2_FN64_AFFINITY_INFO,
    PSCI_0_2_FN64_CPU_ON,
    PSCI_0_2_FN_AFFINITY_INFO,
    PSCI_0_2_FN_SYSTEM_OFF,
    STATES,
)

Profile = Mapping[str, int]
MAX_OPS = 12
HEADER = 7  # bytes before the slots

# Values that lie on a boundary of some row of docs/spec/model.md, for any slot.
COMMON: tuple[int, ...] = (
    *(0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 32, 64, 128, 255, 256, 4095, 4096, 4097, 0x7FFF_FFFF, 0x8000_0000),
    *(INVALID, 1 << 32, (1 << 48) - 1, 1 << 48, 1 << 63, INVALID64 - 3, INVALID64),
)
OVER: tuple[int, ...] = (1 << 64, (1 << 64) + 4, 1 << 65)  # fits no C type: the rare values that make a side undefined
_ESR_HOST: tuple[int, ...] = tuple(rd << 16 | bits for rd in (0, 1, 5, 30, 31) for bits in (0, 64, 128, 1 << 21))
_DIRTY: tuple[int, ...] = (
    *(0, 1, 2, 3, 5, 1 << 30, 3 << 29, 1 << 31, 0x7FFF_FFFF, INVALID, INVALID64, INVALID64 - 1, DIRTY_PC_FLAG),
    *(1 << 33, 1 << 34, 1 << 35, PENDING_EXCEPT_INJECT_FLAG, DIRTY_PC_FLAG | 1 << 35, DIRTY_PC_FLAG | 6, 1 << 36),
)
_PSCI: tuple[int, ...] = (
    *(PSCI_0_2_FN64_CPU_ON, PSCI_0_2_FN_AFFINITY_INFO, PSCI_0_2_FN64_AFFINITY_INFO, PSCI_0_2_FN_SYSTEM_OFF),
    *(KERNEL_PSCI_0_2_FN64_AFFINITY_INFO, PSCI_0_2_FN_SYSTEM_OFF | 1 << 63, 0),
)
_CLASSES: tuple[int, ...] = tuple(ec << 26 for ec in (0, 1, 18, 22, 32, 36, 60, 24, 63, 17, 33))
_PTE: tuple[int, ...] = (0, 0x5003, 0x7FF, 5 << 12, 1 << 39, (1 << 40) - 4096, (1 << 48) - 1, 1 << 57)
_FREE: tuple[int, ...] = (0, 1, 2)
_BEYOND = (1 << 60, 1 << 60 | 0x70, 1 << 60 | 0x400000)  # HPFAR_EL2: the code computes its address modulo 2^64
VALUES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "ctxt.dirty": _DIRTY,
        "ctxt.ec": (0, 1, 2, 3, 2 | 1 << 31, 1 << 31),
        "ctxt.esr_el2": _CLASSES,
        "ctxt.x0": _PSCI,
        "ctxt.hpfar_el2": (
            *(0, 0x70, 0x7F, 0x3FFFFF, 0x400000, 0x40000F, 1 << 40, (1 << 40) - 1, 1 << 56, INVALID64),
            *_BEYOND,
        ),
        "ctxt.flags": (0, 1, 2, 3),
        "ctxt.pstate": (0, 4, 5, 11, 965, 0x3C4),
        "ctxt.pc": (0, 0x1000, (1 << 48) - 4, (1 << 48) - 1, 1 << 48, INVALID64 - 3, INVALID64),
        "data.0": _ESR_HOST,
        "core.0": (0, 1, 4095, 4096, 0x7000, 0x3FF000, (1 << 48) - 1, 1 << 48),
        "core.1": (*_PTE, *_PTE, *_PTE, 2),
        "core.2": (0, 3, 1, 4, 0, 3, 5, 3, 0, 3, 1 << 32, 3, 2),
        "addr": (0, 1, 4096, 0x7000, (1 << 48) - 1, 1 << 48),
        "walk.addr": (0, 1, 4095, 4096, 0x7000, 0x3FF000, (1 << 48) - 1, 1 << 48),
        "walk.pte": _PTE,
        "walk.level": (0, 3, 1, 3, 4, 3, 0, 3, 5, 3, 1, 3, 2),
        "host.esr_el2": _ESR_HOST,
        "vbar": (0, 0x8000, INVALID64, INVALID64 - 0x3FF, 1 << 48, (1 << 48) - 0x200, (1 << 48) - 1),
        "vmid": (1, 0, 2, 7, 15, 16, 17),
        "vcpuid": (0, 1, 3, 4, 7, 8),
        "cur_vmid": (1, 0, 2, 16),
        "halt": (0, 1),
        "data_log": (0, 1, 2),
        "core_data_log": (0, 1, 2),
        "info.vm_next_load_info": (1, 0, 2, 5, 6),
        "info.vm_inc_exe": (0, 1, INVALID, 1 << 32),
        "page.s2page.owner": (0, 1, 2, 16, INVALID),
        "page.s2page.count": (0, 1, INVALID),
        "page.s2page.gfn": (0, 7, 1 << 32 | 7, INVALID64),
        "page.host.level": (0, 2, 3),
        "page.host.pte": (0, 0x5FFF),
        "page.npt.level": (0, 2, 3),
        "page.npt.pte": (0, 0x5FFF),
    }
    | {f"pool.{name}": _FREE for name in ("pgd", "pud", "pmd", "host")}
    | {"pool.tables": (3, 0, 1, 2)}
    | {f"lock.{name}": (0, 1) for name in ("info", "s2page", "host", "npt")}
)

_IMAGE = {"info.vm_next_load_info": 1, "image0.size": 0x2000, "image0.remap": 0x80000}
# Images that overlap: the last one that holds the address counts; and one that ends beyond 2^64.
_OVERLAPS: tuple[Profile, ...] = (
    *(
        {
            **_IMAGE,
            "info.vm_next_load_info": count,
            "image2.addr": 0x2000,
            "image2.size": 0x1000,
            "image2.remap": 0xA0000,
        }
        | {"image1.addr": base, "image1.size": 0x1000, "image1.remap": 0x90000}
        for count, base in product((2, 3), (0x1000, 0x800, 0))
    ),
    {**_IMAGE, "info.vm_next_load_info": 2, "image1.addr": INVALID64 - 0xFFF, "image1.size": 0x3000},
)
_TRAP: Profile = {"ctxt.ec": 2}
_BOOT = {"data.0": 0x1000, "data.1": 5, "host.pc": 0x1000, "host.pstate": 5}
_ABORTS = tuple((hpfar, rd << 16 | bits) for hpfar in (0, 0x400000) for rd in (0, 5, 31) for bits in (0, 64, 128))
_SYNC = {"data.0": 101, "data.1": 102, "data.2": 103} | {f"host.x{i}": 201 + i for i in (0, 1, 2, 30)}
_RUN = {"ctxt.pc": 0x1000, "ctxt.pstate": 5, "vbar": 0x8000}
_WALKED = {"core.1": 0x5003, "core.2": 3, "walk.pte": 0x5003, "walk.level": 3}
_FAULT: Profile = {"core.0": 0x7000, "walk.addr": 0x7000, "ctxt.hpfar_el2": 0x70, "ctxt.flags": 2, **_WALKED}


def _trap(exception: int, **more: int) -> Profile:
    return {"ctxt.ec": 2, "ctxt.esr_el2": exception << 26, **more}


def _dirty(bits: int, more: Profile) -> Profile:
    return {"ctxt.dirty": bits, **more}


# A row reaches one branch of the function; the first is the plainest state.
# Rows of docs/spec/model.md sections 4 and 5.
PROFILES: Mapping[str, tuple[Profile, ...]] = MappingProxyType(
    {
        "prep_wfx": ({}, {"ctxt.dirty": 4}),
        "prep_hvc": tuple({"ctxt.x0": fn, "ctxt.x1": 11, "ctxt.x2": 12, "ctxt.x3": 13} for fn in _PSCI),
        "prep_abort": tuple(
            {"data.0": esr, "host.esr_el2": esr, "ctxt.hpfar_el2": hpfar, "ctxt.x5": 9}
            for hpfar, esr in (*_ABORTS, *product(_BEYOND, (0, 64)))
        ),
        "sync_dirty_to_shadow": (
            *(_dirty(dirty, _SYNC) for dirty in (0, 1, 3, 7, 1 << 30, 1 << 31)),
            *(_dirty(3, {f"data.{i}": 1 << 64}) for i in (0, 1)),
            {"ctxt.dirty": 1 << 64},
        ),
        "reset_gp_regs": (
            *({**_BOOT, "ctxt.x1": 1, **_IMAGE}, {**_BOOT, **_IMAGE}, {**_BOOT, "vcpuid": 4, **_IMAGE}),
            {"data.0": 0x1000, "host.pc": 0x1000},
            *({**_BOOT, **_IMAGE, "image0.remap": (1 << 48) - left} for left in (0x2000, 0x1FFF)),
            {**_BOOT, "info.vm_next_load_info": 1, "image0.addr": 0x1000, "image0.size": 0x2000},
            *({**_BOOT, **overlap} for overlap in _OVERLAPS),
        ),
        "reset_sys_regs": (
            *({}, {"data.0": 77, "regs.actlr_el1": 77}, {f"reg_desc.{i}": 1000 + i for i in range(1, 25)}),
            {"data.0": 1 << 64},
        ),
        "update_exception_gp_regs": (_RUN, {}),
        "post_handle_shadow_s2pt_fault": (
            *({"addr": 0x7000, "ctxt.hpfar_el2": 0x70, **_WALKED, "core.0": 0x5003, "core.1": 3},) * 3,
            *({"addr": 0x7000}, {"walk.pte": 1, "core.0": 1, "walk.level": 3, "core.1": 3}),
            *({"addr": 0x7000, "ctxt.hpfar_el2": hpfar, **_WALKED} for hpfar in (0x90, *_BEYOND)),
        ),
        "save_shadow_kvm_regs": (
            *({}, *(_trap(ec) for ec in (1, 1, 0, 17, 24, 60))),
            *(_trap(ec, **{"ctxt.x0": fn}) for fn in _PSCI for ec in (18, 22)),
            *(
                _trap(ec, **{"data.0": esr, "host.esr_el2": esr, "ctxt.hpfar_el2": hpfar})
                for (hpfar, esr), ec in product((*_ABORTS[::3], *_ABORTS[1::3], (_BEYOND[1], 0)), (32, 36))
            ),
        ),
        "restore_shadow_kvm_regs": (
            *({}, {"ctxt.flags": 1}, {"ctxt.flags": 2}, _TRAP),
            *(_dirty(dirty, {**_SYNC, **_TRAP}) for dirty in (1, 3, 1 << 30)),
            *(
                _dirty(INVALID64, {**_BOOT, **image, **inc_exe})
                for inc_exe, image in product(({}, {"info.vm_inc_exe": 1}, {"info.vm_inc_exe": 1 << 32}), ({}, _IMAGE))
            ),
            *(_dirty(INVALID64, {**_BOOT, **_IMAGE}),) * 3,
            *(_dirty(DIRTY_PC_FLAG, {**_RUN, "ctxt.pc": pc}) for pc in (0x1000, 0x1000, 1 << 48, INVALID64 - 3)),
            *(_dirty(1 << 35, _RUN),) * 3,
            *(_dirty(1 << 35 | DIRTY_PC_FLAG, {**_RUN, "vbar": vbar}) for vbar in (0x8000, 0x8000, 1 << 48)),
            *(_FAULT,) * 9,
            *({name: value for name, value in _FAULT.items() if name not in _WALKED},) * 3,
            *({"core.0": low, "core.1": 0x5003, "core.2": 3} for low in (*(1,) * 7, 4095, 4096)),
            {"ctxt.flags": 2, **_WALKED},
            *({**_FAULT, "ctxt.hpfar_el2": hpfar} for hpfar in (0x90, *_BEYOND)),
            {"walk.addr": 0x7000, **_WALKED},
            *(_dirty(INVALID64, {**_BOOT, **overlap}) for overlap in _OVERLAPS[::3]),
        ),
    }
)

# Registers, host registers and oracle values that steer nothing have distinct values: a value in a wrong place shows.
_STEERING = frozenset({*STATES, "ec", "esr_el2", "hpfar_el2", "x0"})
COLOURS: Profile = MappingProxyType(
    {
        slot.name: 0x1000 + slot.rank
        for slot in SLOTS.values()
        if (slot.name.startswith(("ctxt.", "host.")) and slot.key not in _STEERING)
        or slot.name.startswith(("reg_desc.", "regs."))
        or slot.name in ("data.1", "data.2", "data.3", "data.4", "data.5")
    }
)
_COLOURED: Profile = MappingProxyType(
    {name: value for name, value in COLOURS.items() if name.startswith(("ctxt.", "reg_desc.", "host.fp"))}
    | {"ctxt.esr_el1": 7, "ctxt.spsr_0": 9}
)
_STEERED: Profile = {"ctxt.ec": 1, "ctxt.hpfar_el2": 0x70, "ctxt.dirty": 6, "ctxt.flags": 1}
_DEAD = {"halt": 1}
# The vCPU's ids; these rows replace values of the profile.  0 and 16 are no VMs, 4 and up has no slot in the kernel.
WHOSE: tuple[Profile, ...] = (
    *({},) * 20,
    *({"vmid": vmid} for vmid in (0, 0, 0, 0, 2, 15, 16)),
    *({"vcpuid": 4}, {"vcpuid": 4}, {"vcpuid": 4}, {"vcpuid": 4}, {"vcpuid": 7, "vmid": 2}),
    *(_DEAD, {**_DEAD, "vbar": INVALID64 - 0x3FF, "addr": 1 << 48}, {**_DEAD, "vmid": 0}),
    {"lock.info": 1},
)
# The registers' content; the profile replaces values of these rows.
CONTENTS: tuple[Profile, ...] = (
    *({},) * 8,
    *(_COLOURED, _COLOURED, _COLOURED, {**_COLOURED, **_STEERED}, _STEERED, {"ctxt.dirty": 6}, {"ctxt.dirty": 1 << 35}),
    *(_TRAP, _TRAP, {"ctxt.pstate": 5, "ctxt.pc": 0x1000}),
)
# Who owns the page (docs/spec/model.md section 8): owner, count, and the guest page that it is stored under, SAME for
# the one that is mapped.  Then how full the tables are, with what is in them, and what the walk found.
SAME = -1
PAGES: tuple[Profile, ...] = (
    *({},) * 24,
    *({"page.s2page.owner": 1, "page.s2page.count": INVALID, "page.s2page.gfn": SAME},) * 8,
    *(
        {"page.s2page.owner": owner, "page.s2page.count": count, "page.s2page.gfn": gfn}
        for owner, count, gfn in product((1, 1, 2, 0), (0, 0, INVALID, 1), (SAME, SAME, INVALID64, 1 << 32 | 7, 0))
    ),
    # values that the record of a page cannot hold: the proof relies on their ranges
    {"page.s2page.owner": 1 << 32},
    {"page.s2page.owner": 1, "page.s2page.count": 1 << 32, "page.s2page.gfn": SAME},
    {"page.s2page.owner": 1, "page.s2page.gfn": 1 << 64},
)
_ENTRIES: tuple[Profile, ...] = (
    *({"page.npt.level": level, "page.npt.pte": 0x5FFF} for level in (2, 3)),
    *({"page.host.level": level, "page.host.pte": 0x5FFF} for level in (3, 2)),
    {"page.host.level": 3, "page.host.pte": 0x5FFF, "pool.host": 2},
    {"page.host.level": 1 << 32, "page.host.pte": 0x5FFF},
)
_POOLS: tuple[Profile, ...] = tuple({f"pool.{n}": used} for n, used in product(("pgd", "pud", "pmd"), (2, 2, 1)))
_HAVE: tuple[Profile, ...] = tuple({"pool.tables": count} for count in (1, 2, 3))
TABLES: tuple[Profile, ...] = (
    *({},) * 24,
    *_ENTRIES * 4,
    *_POOLS * 2,
    *_ENTRIES[:1] * 6,
    *({**entry, **pool} for entry, pool in product(_ENTRIES, _POOLS[::3])),
    *_HAVE,
    *({**have, **pool} for have, pool in product(_HAVE, _POOLS[::3])),
    {"pool.tables": 3, "walk.level": 2, "core.1": 2, "core.2": 2},
)


def _walk(addr: int, pte: int, level: int, post: bool) -> Profile:
    at = 0 if post else 1
    found = {f"core.{at}": pte, f"core.{at + 1}": level, "walk.pte": pte, "walk.level": level}
    named = dict.fromkeys(("addr",) if post else ("core.0", "walk.addr"), addr)
    return found | (named | {"ctxt.hpfar_el2": addr >> 8} if addr else {})


_WALKS = ((0, 0x5001, 2), (0, 1, 2), (0, 0, 3), (0, 0, 3), (0, 0, 3), (0, 1, 0), (0x6040_7000, 0x5001, 2))
_MAPS = frozenset({"post_handle_shadow_s2pt_fault", "restore_shadow_kvm_regs"})
WALKS: Mapping[str, tuple[Profile, ...]] = MappingProxyType(
    {name: (*({},) * 12, *(_walk(*row, name.startswith("post")) for row in _WALKS)) for name in sorted(_MAPS)}
)
# How many slots are changed; mostly few, so that a row stays on its path.
CHANGES: tuple[int, ...] = (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 8, 12)

_ALWAYS = ("vmid", "vcpuid", "halt", "ctxt.dirty", "ctxt.pc", "ctxt.pstate", "ctxt.flags", "ctxt.x0", "ctxt.x1")
_MEMORY = (*(n for n in SLOTS if n.startswith(("page.", "pool."))), "lock.s2page", "lock.host", "lock.npt")
_RESET = (*(n for n in SLOTS if n.startswith(("info.", "image", "reg_desc."))), "lock.info")
_SAVE = ("ctxt.hpfar_el2", "data.0", "host.esr_el2", "data_log", "lock.info", "info.vm_state", "host.sp_el0")
_GPRS = tuple(f"ctxt.{name}" for name in GPRS)
_CTXT = tuple(name for name in SLOTS if name.startswith("ctxt."))
_HOST = tuple(name for name in SLOTS if name.startswith("host."))
# The slots that a function can see, those that steer it first and more than once.
SLOTS_OF: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "prep_wfx": (*_ALWAYS, *_CTXT),
        "prep_hvc": (*_ALWAYS * 2, "ctxt.x2", "ctxt.x3", "lock.info", "info.vm_state", *_GPRS),
        "prep_abort": (*_ALWAYS, *_SAVE * 4, *_GPRS, "ctxt.sp_el0"),
        "sync_dirty_to_shadow": (*("ctxt.dirty", "data.0", "data.1", "data_log") * 4, *_ALWAYS, *_GPRS, *_HOST[:31]),
        "reset_gp_regs": (*("data.0", "data.1", "host.pc", "host.pstate", *_RESET[:12]) * 3, *_ALWAYS, *_CTXT, *_HOST),
        "reset_sys_regs": (*("cur_vmid", "data.0", "regs.actlr_el1") * 4, *_ALWAYS, *_RESET, *_CTXT),
        "update_exception_gp_regs": (*("ctxt.pc", "ctxt.pstate", "vbar") * 6, *_ALWAYS, *_CTXT),
        "post_handle_shadow_s2pt_fault": (
            *("addr", "core.0", "core.1", "walk.pte", "walk.level", "ctxt.hpfar_el2", "core_data_log") * 3,
            *_MEMORY * 3,
            *_ALWAYS,
        ),
        "save_shadow_kvm_regs": (*("ctxt.ec", "ctxt.esr_el2", "ctxt.x0") * 6, *_ALWAYS, *_SAVE * 3, *_GPRS),
        "restore_shadow_kvm_regs": (
            *("ctxt.ec", "ctxt.dirty", "core.0", "core.1", "core.2", "vbar", "ctxt.pc", "ctxt.hpfar_el2") * 6,
            *("walk.addr",) * 4,
            *("data.0", "data.1", "walk.pte", "walk.level", "info.vm_inc_exe", "core_data_log", "data_log") * 2,
            *_ALWAYS,
            *_MEMORY,
            *_RESET,
            *_CTXT,
            *_HOST[:36],
        ),
    }
)


# How much of a run each function gets: more for those with more branches.
SHARES: Mapping[str, int] = MappingProxyType(
    {
        **{"prep_wfx": 1, "prep_hvc": 2, "prep_abort": 2, "sync_dirty_to_shadow": 2, "reset_gp_regs": 2},
        **{"reset_sys_regs": 1, "update_exception_gp_regs": 1, "post_handle_shadow_s2pt_fault": 6},
        **{"save_shadow_kvm_regs": 5, "restore_shadow_kvm_regs": 14},
    }
)


def decode(data: bytes, function: str) -> dict[str, int]:
    """Return the case that ``data`` stands for; each byte string is one, and missing bytes are 0."""
    profiles, slots = PROFILES[function], SLOTS_OF[function]
    profile, whose, contents, page, table, walk, changes = data[:HEADER].ljust(HEADER, b"\0")
    case = {**CONTENTS[contents % len(CONTENTS)], **profiles[profile % len(profiles)], **WHOSE[whose % len(WHOSE)]}
    if function in _MAPS:
        case |= WALKS[function][walk % len(WALKS[function])]
        case |= PAGES[page % len(PAGES)]
        case |= TABLES[table % len(TABLES)]
    for at in range(HEADER, min(len(data) - 3, HEADER + 4 * CHANGES[changes % len(CHANGES)]), 4):
        name = slots[(data[at] | (data[at + 1] & 7) << 8) % len(slots)]
        case[name] = _value(name, data[at + 1] >> 3, data[at + 2], data[at + 3])
    if case.get("page.s2page.gfn") == SAME:
        case["page.s2page.gfn"] = _mapped_page(case, function)
    return case


def random_case(rng: random.Random, function: str) -> dict[str, int]:
    """Return a random case."""
    return decode(rng.randbytes(HEADER + 4 * MAX_OPS), function)


def generator_rows(function: str) -> Iterator[dict[str, int]]:
    """Yield every profile, and every row about pages, tables and walks on the first profile that maps."""
    profiles = PROFILES[function]
    for profile in profiles:
        yield dict(profile)
    for axis in (PAGES, TABLES, WALKS[function]) if function in _MAPS else ():
        for row in {tuple(row.items()): row for row in axis}.values():
            case = {**(_FAULT if function == "restore_shadow_kvm_regs" else profiles[0]), **row}
            if case.get("page.s2page.gfn") == SAME:
                case["page.s2page.gfn"] = _mapped_page(case, function)
            yield case


def _mapped_page(case: Mapping[str, int], function: str) -> int:
    """Return the guest page that this case maps, when the proof's oracle and the host's copy say the same."""
    if function == "restore_shadow_kvm_regs":
        return case.get("core.0", 0) >> 12
    return case.get("addr", 0) >> 12


def _value(name: str, mode: int, a: int, b: int) -> int:
    own = VALUES.get(name)
    if own is not None and (mode < 24 or name not in _WIDE):
        return own[a % len(own)]
    if mode < 12:
        return COMMON[a % len(COMMON)]
    if mode < 18:
        return ((1 << a % 65) + b % 3 - 1) & INVALID64
    if mode < 26:
        return a | b << 8
    if mode < 31:
        return ((a << 8 | b) * 0x9E37_79B9_7F4A_7C15) & INVALID64
    return OVER[a % len(OVER)]


# Slots whose own values are only the frequent ones; the others (ids, levels, the model's own flags) take nothing else.
_WIDE = frozenset(
    name
    for name in SLOTS
    if name.startswith(("ctxt.", "data.", "core.", "host.", "reg_desc.", "image", "regs.", "walk.pte"))
) | {"addr", "vbar"}
