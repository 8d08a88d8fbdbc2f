# SPDX-License-Identifier: Apache-2.0
"""Make the symbolic start states of a question: a few plain choices (ids, halt, locks, images), every number free.

Each z3 variable has the name of its slot, so that a model of the solver is a case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import z3

from harness.lemma.case import CORE_SLOTS, ORACLE_SLOTS, Case, case_of
from harness.lemma.compare_levels import Question
from harness.lemma.symbolic import INPUT_BITS, WIDTH, Explorer, OpenBranch, Sym, SymState, choose, term
from harness.model import FUNCTION
from harness.model.constants import (
    ARM_EXCEPTION_TRAP,
    CTXT_FIELDS,
    FP,
    GPRS,
    INFO_ID,
    INVALID64,
    KERNEL_ONLY,
    MASK32,
    ctxt_id,
    is_addr,
    is_vmid,
)
from harness.model.state import BLANK, HOST_FIELDS, Image, VmInfo

IDS: tuple[tuple[int, int], ...] = ((1, 0), (15, 7), (1, 4), (0, 0), (16, 0), (17, 0), (1, 8))
LOCKING = ("prep_hvc", "reset_gp_regs", "save_shadow_kvm_regs", "restore_shadow_kvm_regs")
IMAGES_OF = ("reset_gp_regs", "restore_shadow_kvm_regs")
LOOP_BITS = 0x7FFF_FFFF
# Registers that no branch, and no arithmetic, of any level depends on are left out of the symbolic context here:
# one of them stands for all of its kind.
FREE_FP = FP[0]


@dataclass(frozen=True, slots=True)
class Start:
    """The plain choices of a start.

    ``dirty_bit``: the one register that is dirty (-1: none, None: free); ``any_dirty``: any number of registers is
    dirty; ``no_trap``: the last exit was no trap; ``open``: why this start is not explored.
    """

    vmid: int = 1
    vcpuid: int = 0
    cur_vmid: int = 1
    halt: bool = False
    locked: bool = False
    images: int = 0
    dirty_bit: int | None = None
    first_entry: bool | None = None
    no_trap: bool = False
    open: str | None = None
    any_dirty: bool = False

    @property
    def name(self) -> str:
        """Return the choices in one line."""
        return f"vm {self.vmid} vcpu {self.vcpuid} halt {int(self.halt)} lock {int(self.locked)} images {self.images}"

    def case(self, model: Any) -> Case:
        """Return the case that a model of the solver describes."""
        values = {"vmid": self.vmid, "vcpuid": self.vcpuid, "cur_vmid": self.cur_vmid, "halt": int(self.halt)}
        values |= {"lock.info": int(self.locked), "info.vm_next_load_info": self.images}
        for variable in model.decls():
            if not variable.name().startswith("box."):
                values[variable.name()] = model[variable].as_long()
        return case_of(values)


def starts(question: Question) -> Iterator[Start]:
    """Yield the starts of a question, and one for each gap, which has its reason."""
    function = question.function
    if question.coupled and function == "post_handle_shadow_s2pt_fault":
        yield Start(open="stage-2 mapping of the proof and of the kernel are compared by fuzzing only")
        return
    bits: tuple[int | None, ...] = (None,)
    if function == "sync_dirty_to_shadow":
        bits = (-1, *range(31))
        yield Start(open="two or more dirty registers: by fuzzing only") if question.coupled else Start(dirty_bit=None)
    if question.coupled and function == "restore_shadow_kvm_regs":
        bits = (-1, 0, 30)
        yield Start(open="dirty registers other than x0 and x30 alone, and the mapping: by fuzzing only")
    for vmid, vcpuid in IDS:
        for halt in (False, True):
            for bit in bits if (vmid, vcpuid, halt) == (1, 0, False) else bits[:2]:
                for first in (True, False) if question.coupled and len(bits) == 3 else (None,):
                    yield Start(vmid, vcpuid, vmid, halt, dirty_bit=bit, first_entry=first)
    if function in IMAGES_OF:
        for images in (1, 2):
            for first in (True,) if question.coupled and len(bits) == 3 else (None,):
                yield Start(images=images, dirty_bit=bits[0], first_entry=first)
    if function in LOCKING:
        yield Start(locked=True, dirty_bit=bits[0], first_entry=True if len(bits) == 3 else None)
    if function == "reset_sys_regs":
        yield Start(cur_vmid=2)


def repair_starts(question: Question) -> Iterator[Start]:
    """Yield the starts on which a repaired statement is proved.

    Where level kernel takes part these are all registers one at a time, and any number of them where no exit was a
    trap: what a hypothesis must exclude is not left to it.
    """
    function = question.function
    if not question.coupled or function not in ("restore_shadow_kvm_regs", "post_handle_shadow_s2pt_fault"):
        yield from (start for start in starts(question) if start.open is None)
        return
    for vmid, vcpuid in IDS:
        for halt in (False, True):
            first = (vmid, vcpuid, halt) == (1, 0, False)
            if function == "post_handle_shadow_s2pt_fault":
                yield Start(vmid, vcpuid, vmid, halt)
                continue
            for bit in range(-1, 31) if first else (-1, 0):
                yield Start(vmid, vcpuid, vmid, halt, dirty_bit=bit, first_entry=False)
            yield Start(vmid, vcpuid, vmid, halt, first_entry=False, no_trap=True)
            yield Start(vmid, vcpuid, vmid, halt, first_entry=True)
    if function in IMAGES_OF:
        yield from (Start(images=images, first_entry=True) for images in (1, 2))
        yield Start(locked=True, first_entry=True)


def lookup(start: Start, question: Question) -> Callable[[str], Any]:
    """Return the symbolic value of each slot of a formula in the state of a start.

    Raises :class:`~harness.lemma.symbolic.OpenBranch` for a slot that is not free there: the memory of a black
    box, or an oracle value that level kernel's registers decide.
    """
    plain = {"vmid": start.vmid, "vcpuid": start.vcpuid, "halt": int(start.halt), "lock.info": int(start.locked)}
    plain |= {"cur_vmid": start.cur_vmid, "info.vm_next_load_info": start.images}
    plain |= dict.fromkeys(("curid", "data_log", "core_data_log"), 0)

    def value(name: str) -> Any:
        if name in plain:
            return plain[name]
        kind, _, rest = name.partition(".")
        if kind in ("page", "pool") or (question.coupled and kind in ("data", "core")):
            raise OpenBranch(f"the hypothesis speaks of {name}, which is not free here")
        if kind in ("ctxt", "host") and rest in (*KERNEL_ONLY, *FP[1:]):
            return 0
        if kind.startswith("image") and int(kind[5:]) >= start.images:
            return 0
        return variable(name)

    return value


def variable(name: str) -> Any:
    """Return a free number below 2^66; the bound is in the term, because an asserted one makes each check slower."""
    return Sym(z3.ZeroExt(WIDTH - INPUT_BITS, z3.BitVec(name, INPUT_BITS)))


class _Vector:
    """``exception_vector`` with a free VBAR, as :class:`~harness.model.state.ExceptionVector` has it."""

    def __init__(self, vbar: Any) -> None:
        self._vbar = vbar

    def __call__(self, pstate: Any) -> Any:
        mode = pstate & 0x1F
        low = choose(mode == 4, 0, choose(mode == 5, 0x200, choose(mode == 0, 0x400, 0x600)))
        return self._vbar + low


def start_state(
    start: Start, question: Question, x: Explorer, kind: type[SymState] = SymState
) -> tuple[SymState, tuple[Any, ...]]:
    """Return the symbolic state, of a class of states, and the arguments; each side gets the same variables."""
    function, coupled = question.function, question.coupled

    def free(name: str) -> Any:
        return variable(name)

    skipped = {*KERNEL_ONLY, *FP[1:]}
    ctxt = {n: 0 if n in skipped else free(f"ctxt.{n}") for n in CTXT_FIELDS}
    data: list[Any] = [free(f"data.{i}") for i in range(ORACLE_SLOTS)]
    core: list[Any] = [free(f"core.{i}") for i in range(CORE_SLOTS)]
    images = tuple(
        Image(free(f"image{i}.addr"), free(f"image{i}.size"), free(f"image{i}.remap")) for i in range(start.images)
    )
    key, vmid = ctxt_id(start.vmid, start.vcpuid), start.vmid
    d = kind(
        halt=start.halt,
        cur_vmid=start.cur_vmid if function == "reset_sys_regs" else vmid,
        cur_vcpuid=start.vcpuid,
        shadow_ctxts={key: ctxt},
        data_log={vmid: 0},
        core_data_log={vmid: 0},
        vminfos={vmid: VmInfo(vm_next_load_info=start.images, images=images, vm_inc_exe=free("info.vm_inc_exe"))},
        lock={INFO_ID + vmid: True} if start.locked else {},
        exception_vector=_Vector(free("vbar")),
        reg_desc=lambda i: free(f"reg_desc.{i}"),
    )
    d.x, d.boxes, d.calls, d.on_violation, d.own_key = x, {}, [], None, key
    addr = free("addr")
    if coupled:
        host = {n: 0 if n in skipped else free(f"host.{n}") for n in HOST_FIELDS}
        d.host_regs[key] = host
        walk = (free("walk.addr"), free("walk.pte"), free("walk.level"))
        d.walk[key] = walk
        d.regs = {**BLANK, "actlr_el1": free("regs.actlr_el1")}
        data = _couple(start, function, host, d.regs["actlr_el1"])
        core = list(walk) if function == "restore_shadow_kvm_regs" else [walk[1], walk[2], 0]
    _restrict(start, question, ctxt["dirty"], x)
    if start.no_trap:
        x.solver.add(term(ctxt["ec"]) != ARM_EXCEPTION_TRAP)
    d.doracle = {vmid: (*data, *[0] * 40)}
    if d.cur_vmid != vmid:
        d.doracle = {**d.doracle, d.cur_vmid: (*reversed(data), 0)}
        d.data_log[d.cur_vmid] = 0
    d.core_doracle = {vmid: tuple(core)}
    d.boxes["paging.prot_and_map_vm_s2pt"] = _map_box
    d.boxes["paging_kernel.prot_and_map_vm_s2pt"] = _kernel_map_box
    if function == "restore_shadow_kvm_regs" and not coupled:
        d.boxes["spec.sync_dirty_to_shadow_loop"] = _sync_box
    return d, (start.vmid, start.vcpuid, addr)[: len(FUNCTION[function].args)]


def _restrict(start: Start, question: Question, dirty: Any, x: Explorer) -> None:
    if start.dirty_bit is not None:
        x.solver.add((dirty & LOOP_BITS).term == (0 if start.dirty_bit < 0 else 1 << start.dirty_bit))
    elif question.function == "sync_dirty_to_shadow" and not start.any_dirty:
        # two dirty registers stand for two and more: the refuted region
        x.solver.add(z3.Or((dirty & LOOP_BITS).term == 3, (dirty & LOOP_BITS).term == 0x4000_0001))
    if start.first_entry is not None:
        invalid = dirty.term == INVALID64
        x.solver.add(invalid if start.first_entry else z3.Not(invalid))


def _couple(start: Start, function: str, host: Mapping[str, Any], actlr: Any) -> list[Any]:
    """Lay out the oracle as :func:`harness.lemma.case.couple` does, for one known dirty register."""
    rest: list[Any] = [0] * (ORACLE_SLOTS - 3)
    if function == "reset_sys_regs":
        return [actlr, 0, 0, *rest]
    if function == "reset_gp_regs" or start.first_entry:
        return [host["pc"], host["pstate"], actlr, *rest]
    if function in ("sync_dirty_to_shadow", "restore_shadow_kvm_regs"):
        bit = start.dirty_bit
        return [host[GPRS[bit]] if bit is not None and bit >= 0 else 0, 0, 0, *rest]
    return [host["esr_el2"] & MASK32, 0, 0, *rest]


def _map_box(d: SymState, args: tuple[Any, ...]) -> None:
    """Stand for ``prot_and_map_vm_s2pt``: rely on its preconditions; after it every level only writes constants."""
    vmid, addr = args[0], args[1]
    d.rely("is_vmid vmid", is_vmid(vmid))
    d.rely("is_addr addr", is_addr(addr))
    if d.halt:
        d.calls.pop()


def _kernel_map_box(d: SymState, args: tuple[Any, ...]) -> None:
    """Stand for the kernel's ``prot_and_map_vm_s2pt``: no precondition, and no effect where ``pte`` is 0."""
    pte = args[2]
    if not isinstance(pte, Sym) and pte == 0:
        d.calls.pop()


def _sync_box(d: SymState, args: tuple[Any, ...]) -> None:
    """Stand for the register loop: write the general registers and the position, the same on both sides."""
    vmid, vcpuid, _ = args
    ctxt = d.ctxt(ctxt_id(vmid, vcpuid))
    for name in GPRS:
        box: Any = Sym(z3.BitVec(f"box.{name}", WIDTH))
        ctxt[name] = box
    position: Any = Sym(z3.BitVec("box.position", WIDTH))
    d.data_log[vmid] = position
