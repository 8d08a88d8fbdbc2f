# SPDX-License-Identifier: Apache-2.0
"""Execute scenario code from an entry to the next exit, by the Arm ARM.

Scenario code is laid out to trap at once, so nearly every walk executes no instruction.  The rest (a load from RAM that
is mapped by now, a branch, an exception to EL1) is executed here, as far as the architecture determines it.  Where it
does not, the path has the reason, and the run is counted as unchecked.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from harness.arch import a64, exceptions, exits
from harness.arch.cpu_models import BTI, IDST, NMI, VBAR_RES0
from harness.arch.exceptions import State
from harness.arch.registers import MASK64
from harness.guest import el2_refusals, mmu, pkvm_calls
from harness.guest.context import GuestContext
from harness.guest.debug_stops import access_size, is_brk
from harness.guest.execute import (
    CONDITION_ALWAYS,
    EC_DABT,
    EC_UNKNOWN,
    Access,
    Continue,
    Effect,
    RaiseException,
    Trap,
    execute,
    sources,
)
from harness.guest.gic_access import at_interface
from harness.guest.instruction_fetch import as_code, may_be_handled_at_el2, word_at
from harness.guest.load_store import Places, load, store
from harness.guest.memory import RunMemory
from harness.guest.stage1 import FSC_ADDRESS_SIZE, Mapped, Use, controls, is_on
from harness.guest.stage1_faults import STALE
from harness.guest.syndrome import accesses

STRAY_BRK: Final = "a BRK that userspace did not ask for, while it debugs the guest otherwise"
STEPPED: Final = "a virtual interrupt while userspace steps the guest: it or the end of the step may come first"
ILLEGAL: Final = "illegal execution state"
TAGGED: Final = "a branch to a tagged address"
FROM_UNKNOWN: Final = "an address or a call from an unknown value"
MAX_WALK: Final = 600
"""The most instructions of a walk; a scenario has fewer."""

_BR: Final = 0xD61F_0000
_BR_MASK: Final = 0xFFFF_FC1F
EC_WFX: Final = exits.EC_BY_NAME["WFX"]
EC_IABT: Final = exits.EC_BY_NAME["IABT_LOW"]
EC_PC_ALIGN: Final = exits.EC_BY_NAME["PC_ALIGN"]


class GuestPath(NamedTuple):
    """Where the guest's code leads: the state in which it traps at the goal, or why it does not reach the goal."""

    state: State | None
    """The state at the goal; None: the code does not lead there."""
    unknown: Mapping[int, tuple[int, str]] = MappingProxyType({})
    """The bits of registers that are unknown there, and why, by the register's index."""
    why: str = ""
    """What the guest does instead of reaching the goal."""
    certain: bool = True
    """Whether the architecture requires that; otherwise this module cannot determine what comes after."""
    stored: Mapping[int, int | None] = MappingProxyType({})
    """The words of RAM that the guest changed, by address of the default layout; None: an unknown word."""
    vectors: Mapping[int, int | None] = MappingProxyType({})
    """The vector registers that the guest wrote, as in :class:`harness.guest.execute.Continue`."""
    hcr: int = 0
    """The virtual interrupts that are still pending."""
    stopped: int = -1
    """The address at which a path without a state ends."""


class Goal(NamedTuple):
    """The instruction at which a guest was seen to trap, or to be interrupted."""

    address: int
    """The address of the instruction."""
    steps: tuple[int, int] = (0, MAX_WALK)
    """The least and the most instructions that the guest executes before it."""
    mode: int | None = None
    """PSTATE.M there; None: any."""
    accessed: int | None = None
    """The virtual address at which the data access of the instruction faulted; None: any."""


def walk(
    state: State,
    goal: Goal,
    context: GuestContext,
    hcr: int = 0,
    refusals: Mapping[int, str] = el2_refusals.NONE,
) -> GuestPath:
    """Execute the guest's code from ``state`` to ``goal``; return the path, or why the code does not lead there.

    ``hcr`` has the virtual interrupts that are pending at the start (HCR_EL2).  ``refusals`` maps the system-register
    accesses that EL2 rejects to how it does (:mod:`harness.guest.el2_refusals`).  What the guest does to the interface
    of its GIC is entered in ``context.gic``; what it stores is in the path alone.
    """
    target, (least, most), mode, accessed = goal
    gic, debugger = context.gic, context.debugger
    hcr &= exceptions.HCR_VIRTUAL
    quiet = not (hcr and exceptions.unmasked(state[exceptions.PSTATE], hcr)) and (
        gic is None or gic.quiet(state[exceptions.PSTATE])
    )
    if state[exceptions.PSTATE] & exceptions.IL:
        # The first instruction is not executed, even if it is the one that trapped later.
        return _uncertain(ILLEGAL)._replace(stopped=state[exceptions.PC])
    if _is_tagged(state, state[exceptions.PC]):
        return _uncertain(TAGGED)._replace(stopped=state[exceptions.PC])  # KVM's exception return is a branch, too
    if (
        quiet
        and state[exceptions.PC] == target
        and not least
        and accessed is None
        and mode in (None, state[exceptions.PSTATE] & exceptions.MODE)
    ):
        return GuestPath(state, hcr=hcr)  # the usual case
    if not quiet and debugger is not None and debugger.steps:
        return _uncertain(STEPPED)._replace(stopped=state[exceptions.PC])
    machine = _Guest(state, context, hcr, refusals)
    if not quiet and (stop := machine.interrupt()) is not None:
        return stop._replace(stopped=state[exceptions.PC])
    may_be_interrupted = hcr != 0 or gic is not None
    # At the goal's address, in another mode or with another access: the guest comes back, or the record is wrong.
    elsewhere: GuestPath | None = None
    for done in range(min(most + 1, MAX_WALK)):
        if machine.state[exceptions.PC] == target and done >= least:
            in_mode = mode in (None, machine.state[exceptions.PSTATE] & exceptions.MODE)
            if in_mode and (accessed is None or machine.accesses(accessed)):
                return machine.arrived()
            elsewhere = elsewhere or machine.arrived()
        if done == most:
            at = machine.state[exceptions.PC]
            # A fetch that faults comes after the step exception; QEMU fetches first.
            certain = not is_on(machine.state) and word_at(context.code, at) is not None
            return GuestPath(None, why=f"userspace's step ends at {at:#x}", certain=certain, stopped=at)
        stop = machine.step() or (machine.interrupt() if may_be_interrupted else None)
        if stop is not None:
            if stop.certain and elsewhere is not None:
                return elsewhere
            return stop._replace(stopped=machine.state[exceptions.PC])
    return GuestPath(None, why="no trap in sight", certain=False)


def comes_back(path: GuestPath, context: GuestContext) -> bool:
    """Whether a guest at the end of a path may execute on and return there without a trap.

    ``context`` is that at the beginning of the path.
    """
    if path.state is None or path.unknown.keys() - {exceptions.PSTATE}:
        return True
    there = GuestContext(context.code, context.cpu, RunMemory.after(context.memory, path.stored))
    again = walk(path.state, Goal(path.state[exceptions.PC], (1, MAX_WALK)), there, path.hcr)
    return again.state is not None or not again.certain


def _is_tagged(state: State, target: int) -> bool:
    """Whether a branch to ``target`` may replace its tag; TCR_EL1.TBID could prevent that on a CPU that has it."""
    return target >> 56 not in (0, 0xFF) and mmu.tag_ignored(state, target)


def _must_trap(what: str) -> GuestPath:
    return GuestPath(None, why=f"{what} must trap")


def _uncertain(why: str) -> GuestPath:
    return GuestPath(None, why=why, certain=False)


class _Guest:
    """A vCPU between two traps, which executes instructions that do not trap."""

    def __init__(self, state: State, context: GuestContext, hcr: int, refusals: Mapping[int, str]) -> None:
        cpu = context.cpu
        res0, _ = cpu.mask(exceptions.PSTATE)
        self.state = (*state[: exceptions.PSTATE], state[exceptions.PSTATE] & ~res0, *state[exceptions.PSTATE + 1 :])
        self.unknown: dict[int, tuple[int, str]] = {}
        self._controls = controls(self.state)
        self.memory = RunMemory(context.memory)
        self._gic = context.gic
        self.vectors: dict[int, int | None] = {}
        self._code = as_code(context.code)
        self._trap = self._code.fill[0]
        self._cpu = cpu
        self._hcr = hcr
        self._debugger = context.debugger
        self._refusals = refusals
        self._size = 0
        self._features = cpu.features
        if NMI in cpu.features:
            self.unknown[exceptions.PSTATE] = (
                exceptions.ALLINT,
                "ALLINT: the CPU model has FEAT_NMI in newer versions of QEMU",
            )

    def arrived(self) -> GuestPath:
        """Return the path that ends here."""
        stored = self.memory.stored_words
        return GuestPath(self.state, self.unknown, stored=stored, vectors=self.vectors, hcr=self._hcr)

    def accesses(self, address: int) -> bool:
        """Whether the next instruction may access the byte at a virtual address."""
        word = word_at(self._code, self.state[exceptions.PC])
        if word is None:
            return True
        access = a64.decode_access(word)
        needed = sources(word) if access is None else {access.rn}
        return not needed.isdisjoint(self.unknown) or accesses(self.state, word, address)

    def interrupt(self) -> GuestPath | None:
        """Take the virtual interrupt that is pending and not masked, if there is one."""
        pstate = self.state[exceptions.PSTATE]
        pending = exceptions.unmasked(pstate, self._hcr)
        if self._gic is not None and not self._gic.quiet(pstate):
            if not self._gic.signals() or (self._gic.may_be_fiq and not pstate & exceptions.PSTATE_F):
                return _uncertain(f"whether the GIC signals an interrupt: {self._gic.why}")
            if self._gic.late:
                return _uncertain("an interrupt that the guest has just let through, which comes in finite time")
            pending = (*pending, (exceptions.HCR_VI, exceptions.IRQ_OFFSET))
        if not pending:
            return None
        if self._debugger is not None and self._debugger.steps:
            return _uncertain(STEPPED)
        if len(pending) > 1:
            return _uncertain("two virtual interrupts at once: either may come first")
        if self.state[exceptions.VBAR] & VBAR_RES0:
            return _uncertain("an exception with RES0 bits set in VBAR_EL1")
        bit, offset = pending[0]
        if bit == exceptions.HCR_VSE:
            self._take(exits.EC_BY_NAME["SERROR"] << exits.EC_SHIFT | exits.IL_BIT, None, offset)
            self.unknown[exceptions.ESR] = exits.ISS_MASK, "the syndrome of a virtual SError"
            self._hcr &= ~bit
        else:
            self._take(None, None, offset)
        return None

    def step(self) -> GuestPath | None:
        """Execute one instruction; return a path if it ends here: the instruction traps, or its effect is unknown."""
        pc = self.state[exceptions.PC]
        if controls(self.state) != self._controls and (is_on(self.state) or self._controls[0] & exceptions.SCTLR_M):
            return _uncertain(STALE)
        if self._debugger is None and self.state[exceptions.MDSCR] & exceptions.MDSCR_SS:
            return _uncertain("software step is on")  # a debugger keeps the guest from stepping itself
        if self.state[exceptions.PSTATE] & exceptions.IL:
            return _uncertain(ILLEGAL)
        if is_on(self.state):
            found = mmu.mapped(self.state, self.memory, pc, Use.FETCH, self._cpu)
            if not isinstance(found, Mapped):
                # A PC that is not aligned comes first for the Arm ARM, QEMU fetches first.
                return self._apply(pc, found) if not pc & 3 else _uncertain("PC neither aligned nor mapped")
            return self._fetch(pc, found.ipa) if not pc & 3 else self._raise(RaiseException(EC_PC_ALIGN, 0, pc))
        beyond = mmu.exceeds_output_size(self.state, pc, self._cpu)
        if pc & 3:
            if beyond:
                return _uncertain("PC neither aligned nor inside the address size")  # QEMU fetches first
            return self._raise(RaiseException(EC_PC_ALIGN, 0, pc))
        if beyond:
            return self._raise(RaiseException(EC_IABT, FSC_ADDRESS_SIZE, pc))
        return self._fetch(pc, pc)

    def _fetch(self, pc: int, at: int) -> GuestPath | None:
        """Execute the instruction at ``pc``, which is at the guest physical address ``at``."""
        if self.memory.home(at) is not None:
            return _uncertain("code in data pages")
        word = word_at(self._code, at)
        return self._execute(pc, word) if word is not None else _must_trap(f"what is at {pc:#x}")

    @property
    def _at_el0(self) -> bool:
        return self.state[exceptions.PSTATE] & exceptions.MODE == exceptions.EL0T

    def _execute(self, pc: int, word: int) -> GuestPath | None:
        if self._debugger is not None:
            if self._debugger.breaks_at(pc, self._at_el0):
                return _must_trap(f"the breakpoint at {pc:#x}")
            if is_brk(word):
                return _must_trap(f"the BRK at {pc:#x}") if self._debugger.takes_brk else _uncertain(STRAY_BRK)
            self._size = access_size(word)
        access = a64.decode_access(word)
        if access is not None:
            return self._access(access)
        if a64.is_hvc(word):
            if self._at_el0:
                return self._raise(RaiseException(EC_UNKNOWN))  # HVC is UNDEFINED at EL0
            if 0 in self.unknown:
                return _uncertain(FROM_UNKNOWN)
            if self._code.protected and pkvm_calls.is_pkvm_call(self.state):
                known = self.unknown.keys().isdisjoint((1, 2, 3))
                return self._next(pkvm_calls.answer(self.state)) if known else _uncertain(FROM_UNKNOWN)
            if not may_be_handled_at_el2(self.state):
                return _must_trap(f"the HVC at {pc:#x}")
            self.unknown[1] = MASK64, "x1 after a call that returns x0 alone (SMCCC)"
            return self._advance({0: 0})
        if word == self._trap:
            if self._at_el0 and IDST in self._features:
                return _uncertain("a read of an ID register at EL0 on a CPU with FEAT_IDST")
            # A read of an ID register: UNDEFINED at EL0.
            return self._raise(RaiseException(EC_UNKNOWN)) if self._at_el0 else _must_trap(f"what is at {pc:#x}")
        if word == a64.ISB:
            return self._advance({})
        if word == a64.WFI and self._at_el0 and not self.state[exceptions.SCTLR] & exceptions.SCTLR_NTWI:
            if self._debugger is not None and self._debugger.steps:
                return _uncertain("a stepped WFI that EL1 traps from EL0; QEMU performs it")
            return self._raise(RaiseException(EC_WFX, CONDITION_ALWAYS))
        if word == a64.WFE and self._at_el0 and not self.state[exceptions.SCTLR] & exceptions.SCTLR_NTWE:
            return _uncertain("a WFE that EL1 traps from EL0; QEMU performs it")
        if word in (a64.WFI, a64.WFE):
            return self._advance({})  # KVM need not trap them (since 6.10 it does not always)
        if word & _BR_MASK == _BR:
            if BTI in self._features:
                return _uncertain("PSTATE.BTYPE after a branch on a CPU with FEAT_BTI")
            if (word >> 5 & 31) in self.unknown:
                return _uncertain(FROM_UNKNOWN)
            target = self.state[word >> 5 & 31]
            if _is_tagged(self.state, target):
                return _uncertain(TAGGED)
            return self._advance({exceptions.PC: target})
        if (how := self._refusals.get(word)) is not None:
            return self._apply(pc, el2_refusals.refused_effect(word, how))
        if self._gic is not None and not self._at_el0:
            effect = at_interface(self._gic, self.state, word, self.unknown)
            if effect is not None:
                return self._apply(pc, effect)
        if any(source in self.unknown for source in sources(word)):
            return _uncertain(FROM_UNKNOWN)
        if self._gic is not None and word == a64.ERET:
            self._gic.late = False  # the return synchronises
        state = self.state
        if self._debugger is not None and word == a64.ERET:  # the guest's own step is off (kvm_arm_setup_debug)
            state = (*state[: exceptions.SPSR], state[exceptions.SPSR] & ~exceptions.SS, *state[exceptions.SPSR + 1 :])
        return self._apply(pc, execute(state, word))

    def _apply(self, pc: int, effect: Effect) -> GuestPath | None:
        match effect:
            case Continue():
                return self._next(effect)
            case RaiseException():
                return self._raise(effect)
            case Access(address, size, is_store, then):
                places = self._places(mmu.DataAccess(address, size, is_store))
                if not isinstance(places, tuple):
                    return self._apply(pc, places)
                for at, _ in places if is_store else ():
                    self.memory.store(at, 16, None)  # a pair or a vector is two words
                return self._next(then)
            case Trap(what):
                return _must_trap(what or f"what is at {pc:#x}")
            case _:
                return _uncertain(effect.why)

    def _next(self, effect: Continue) -> GuestPath | None:
        if any(index in self.unknown for index in effect.reads):
            return _uncertain(FROM_UNKNOWN)
        stop = self._advance(effect.changes)
        self.unknown.update(effect.unknown)
        self.vectors.update(effect.vectors)
        for index in effect.reads:
            bits, why = self._cpu.mask(index)
            if bits:
                self.unknown.update(dict.fromkeys(effect.changes, (bits, why)))
        return stop

    def _access(self, access: a64.Access) -> GuestPath | None:
        if access.rn in self.unknown:
            return _uncertain(FROM_UNKNOWN)
        address = (self.state[access.rn] + access.offset) & MASK64
        places = self._places(mmu.DataAccess(address, access.size, access.is_store))
        if not isinstance(places, tuple):
            return self._apply(self.state[exceptions.PC], places)
        if access.is_store:
            return self._next(store(self.state, access, self.memory, places, known=access.rt not in self.unknown))
        return self._next(load(self.state, access, self.memory, places))

    def _places(self, access: mmu.DataAccess) -> Places | Effect:
        found = mmu.locate_access(self.state, self.memory, access, self._cpu)
        watched = self._debugger is not None and self._debugger.watched(access.address, self._size, access.is_store)
        return Trap(f"the watchpoint on {access.address:#x}") if watched and isinstance(found, tuple) else found

    def _raise(self, exception: RaiseException) -> GuestPath | None:
        """Take an exception to EL1 without any hypervisor."""
        if self.state[exceptions.VBAR] & VBAR_RES0:
            return _uncertain("an exception with RES0 bits set in VBAR_EL1")
        ec, far = exception.ec, exception.far
        if ec in (EC_IABT, EC_DABT) and not self._at_el0:
            ec += 1  # the class "without a change of exception level" is one above
        self._take(ec << exits.EC_SHIFT | exits.IL_BIT | exception.iss, far)
        return None

    def _take(self, esr: int | None, far: int | None, offset: int = 0) -> None:
        if self._gic is not None:
            self._gic.late = False  # to take an exception synchronises
        self.state = exceptions.take_exception(self.state, esr, far, offset)
        flags, why = self.unknown.pop(exceptions.PSTATE, (0, ""))
        written = {
            exceptions.ELR: True,
            exceptions.SPSR: True,
            exceptions.ESR: esr is not None,
            exceptions.FAR: far is not None,
        }
        for index in (index for index, is_written in written.items() if is_written):
            self.unknown.pop(index, None)
        if flags:
            self.unknown[exceptions.SPSR] = flags, why
        self.unknown[exceptions.PSTATE] = (
            exceptions.NZCV | flags,
            "flags after an exception inside the guest: QEMU clears them",
        )

    def _advance(self, changes: Mapping[int, int]) -> GuestPath | None:
        new = list(self.state)
        new[exceptions.PC] = (new[exceptions.PC] + 4) & MASK64
        for index, value in changes.items():
            new[index] = value
            self.unknown.pop(index, None)
        self.state = tuple(new)
        return None
