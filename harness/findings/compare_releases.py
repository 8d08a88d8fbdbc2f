# SPDX-License-Identifier: Apache-2.0
"""Compare release against release: the differences of two targets' traces of one scenario; relation ``against``.

No model is used.  The comparison covers exits, the state that KVM then gives to the guest, and its reports to
userspace, record by record; interrupts come at any time and are left out.  A difference that a row of
:mod:`harness.findings.intended_changes` explains is *carried*: as long as both sides only keep their values, it is not
reported again.  The consequences of a carried value cannot be distinguished from other differences: the comparison ends
at the first other difference after one, unless only registers are carried that nothing reads.  The same applies after
an intended exit that only one run has: host steps take place at exits.  The first difference that nothing explains ends
the comparison, too: after it the two runs are no longer the same run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from harness.arch import exceptions
from harness.arch.a64 import system_register
from harness.arch.exits import FSC_TRANSLATION, FSC_TYPE, SMCCC_BY_FID, exit_class
from harness.arch.registers import NAMES
from harness.arch.sysregs import BY_ENCODING, COUNTERS
from harness.findings.checked import CheckResult, ExplainedDivergence
from harness.findings.intended_changes import Changes, Intended, Spot, Value, release
from harness.layout import CODE
from harness.protocol import MMIO_WRITE
from harness.relations.contract import system_access
from harness.relations.divergence import Divergence
from harness.relations.guest_debug import EXIT_DEBUG
from harness.relations.mmio import is_mmio
from harness.scenario.code_layout import code_of
from harness.scenario.scenario import Scenario
from harness.trace import pending
from harness.trace.debug_state import undo_debug_state
from harness.trace.environment import SCENARIO_VM, VmEnvironment
from harness.trace.events import ENTRY, EXIT, FORGED, USER, Switch, Trace
from harness.trace.slot_timeline import SlotTimeline

RELATION = "against"
EINTR = 4
MMIO = 6

NEVER_COMPARED: Mapping[str, str] = {
    "afsr0_el1": "AFSR0_EL1 is IMPLEMENTATION DEFINED (Arm ARM D17.2.15)",
    "afsr1_el1": "AFSR1_EL1 is IMPLEMENTATION DEFINED (Arm ARM D17.2.17)",
    "amair_el1": "AMAIR_EL1 is IMPLEMENTATION DEFINED (Arm ARM D17.2.24)",
    # KVM saves it while a guest debugs itself (MDSCR_EL1.MDE or KDE); QEMU's read then gives what was there before.
    "mdccint_el1": "emulator: reading MDCCINT_EL1 gives what was in the register",
}
"""Registers whose value does not depend on KVM, with the reason."""

NEVER_THE_SAME: Mapping[str, str] = {
    "TRNG_RND32": "random bits (Arm DEN 0098)",
    "TRNG_RND64": "random bits (Arm DEN 0098)",
    "VENDOR_HYP_KVM_PTP": "the time (Documentation/virt/kvm/arm/ptp_kvm.rst)",
}
"""Calls whose results in x0..x3 are never the same twice, with the reason."""

NEVER_READ = frozenset({"csselr_el1", "esr_el1", "far_el1"})
"""Registers that no step of a scenario reads, and that KVM only copies."""

_Pair = tuple[Switch | None, Switch | None]
_Records = list[tuple[int, Switch]]

KIND_NAMES: Mapping[int, str] = {EXIT: "exit", ENTRY: "entry", USER: "user"}
_RUNAWAY, _RUNS_ON = "runaway", "a guest that runs on by itself"
_MRS = 0xD53
_TRAPS = frozenset({"SYS64", "FP_ASIMD", "WFX"})


@dataclass(frozen=True, slots=True)
class Versions:
    """Package versions of two targets, in the order of their traces."""

    one: str
    other: str

    @property
    def swapped(self) -> bool:
        """Whether the first is the newer one."""
        return release(self.one) > release(self.other)


@dataclass
class _Guest:
    """One vCPU during the comparison: its last request, and the differences that its two runs carry.

    ``carried`` are registers whose values differ for a known reason: index to (reason, value here, value there).
    """

    carried: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    entry: Switch | None = None
    exits: _Pair = (None, None)
    faults: dict[int, _Pair] = field(default_factory=dict)
    label: str = "FIRST"
    forged: bool = False
    call: str = ""

    def holds(self, index: int, here: int, there: int) -> bool:
        """Whether a register has the same two values as before."""
        return index in self.carried and self.carried[index][1:] == (here, there)

    def name(self, exit_: Switch) -> None:
        """Record the reason of an exit."""
        self.label = exit_class(exit_.code, exit_.esr)
        self.forged = exit_.exit_class != self.label
        self.call = _call(exit_, self.label)


@dataclass
class _Comparison:
    """One walk along two traces.

    ``guest`` is the vCPU of the current record; ``shifted`` is why the host's steps may take place elsewhere in the two
    runs, empty if they do not.
    """

    changes: Changes
    swapped: bool
    code: Mapping[int, int]
    judged: list[ExplainedDivergence] = field(default_factory=list)
    unchecked: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    guests: dict[int, _Guest] = field(default_factory=dict)
    guest: _Guest = field(default_factory=_Guest)
    shifted: str = ""
    going: bool = True
    world: VmEnvironment = SCENARIO_VM

    def walk(self, one: Trace, other: Trace) -> None:
        """Walk both traces to their ends, or to the first difference that nothing explains."""
        left, right = list(_switches(one)), list(_switches(other))
        self.world = SlotTimeline.of((*one.events, *other.events)).all_slots()
        i = j = 0
        while i < len(left) or j < len(right):
            at, a = left[i] if i < len(left) else (-1, None)
            _, b = right[j] if j < len(right) else (-1, None)
            self.guest = self.guests.setdefault((a or b or _NOWHERE).context, _Guest())
            if a is not None and a.kind == EXIT:
                self.guest.name(a)
            nexts = left[i : i + 2], right[j : j + 2]
            alone = next((side for side in _alone(a, b, self.world) if self._extra(at, *nexts, side)), None)
            if alone is not None:
                i, j = (i, j + 2) if alone else (i + 2, j)
                continue
            why = _incomparable(a, b, one.status, other.status)
            if why:
                self.unchecked[f"{RELATION}: {why}"] += 1
                return
            self._pair(at, a, b)
            if not self.going:
                return
            self.compared += 1
            if a is not None and a.kind == EXIT:
                self.guest.exits = a, b
                if (page := _page(a)) is not None:
                    self.guest.faults[page] = a, b
            i, j = i + 1, j + 1
        if one.status == other.status:
            return
        if _RUNAWAY in (one.status, other.status):
            self.unchecked[f"{RELATION}: {_RUNS_ON}"] += 1
        else:
            self._judge(len(one.events) - 1, None, None, "run.status", one.status, other.status)

    def _extra(self, at: int, left: _Records, right: _Records, alone: int) -> bool:
        """Whether a row explains that only one of the two had an exit here; ``alone``: which one, 0 or 1."""
        exit_, after = ((right if alone else left)[k][1] if len(right if alone else left) > k else None for k in (0, 1))
        if exit_ is None or after is None or after.kind != ENTRY:
            return False
        a, b = (None, exit_) if alone else (exit_, None)
        named = self.guest.label, self.guest.forged, self.guest.call
        self.guest.name(exit_)
        page = _page(exit_)
        what, shown = ("trap", self.guest.call) if page is None else ("fault", f"fault at page {page:#x}")
        here, there = ("nothing" if side is None else shown for side in (a, b))
        known, lazy = self._explain(a, b, f"run.{what}", here, there), _lazy(exit_, after, self.world)
        if known is None and not lazy:
            self.guest.label, self.guest.forged, self.guest.call = named
            return False
        if known is not None:
            self._judge(at, a, b, f"run.{what}", here, there)
        else:
            self.unchecked[f"{RELATION}: {lazy}"] += 1
        if page is not None:
            last = self.guest.faults.get(page, (None, None))
            self.guest.faults[page] = (last[0], exit_) if alone else (exit_, last[1])
        # The agent took the host's next steps there, or it will take them later.
        self.shifted = known.id if known is not None else lazy
        self.going = True
        return True

    def _pair(self, at: int, a: Switch | None, b: Switch | None) -> None:
        if a is None or b is None or (a.kind, a.context) != (b.kind, b.context):
            shown = tuple("nothing" if s is None else _shown(s) for s in (a, b))
            self._judge(at, a, b, "run.event", *shown)
            return
        if a.kind == EXIT and exit_class(b.code, b.esr) != self.guest.label:
            self._judge(at, a, b, "run.exit", self.guest.label, exit_class(b.code, b.esr))
            return
        for name, here, there in _rows(a, b, self.guest.label):
            if here != there:
                self._judge(at, a, b, f"{KIND_NAMES[a.kind]}.{name}", here, there)
        self._registers(at, a, b)
        if a.kind == ENTRY:
            self.guest.entry = a

    def _registers(self, at: int, a: Switch, b: Switch) -> None:
        """Compare the registers of two records; those that differ for a reason are carried from here on."""
        kept: dict[int, tuple[str, int, int]] = {}
        rest: list[tuple[int, int, int]] = []
        for index, (here, there) in enumerate(zip(_seen(a), _seen(b), strict=True)):
            if here == there:
                continue
            name = NAMES[index]
            if name in NEVER_COMPARED:
                self.unchecked[f"{RELATION}: {NEVER_COMPARED[name]}"] += 1
            elif self.guest.holds(index, here, there):
                kept[index] = self.guest.carried[index]
            elif why := self._never_the_same(index, a, b):
                self.unchecked[f"{RELATION}: {why}"] += 1
                kept[index] = why, here, there
            else:
                rest.append((index, here, there))
        for index, here, there in rest:
            # A copy may stand before the register that it was made from.
            why = _copied({**self.guest.carried, **kept}, here, there)
            if why:
                self.unchecked[f"{RELATION}: a copy of what differs: {why}"] += 1
                kept[index] = why, here, there
                continue
            known = self._judge(at, a, b, f"{KIND_NAMES[a.kind]}.{NAMES[index]}", here, there)
            if known is not None:
                kept[index] = known.id, here, there
        self.guest.carried = kept

    def _never_the_same(self, index: int, a: Switch, b: Switch) -> str:
        """Return why the value of a register does not depend on KVM: a call's result, or what the guest read."""
        if a.kind != EXIT:
            if index < 4 and self.guest.call in NEVER_THE_SAME:
                return f"{self.guest.call} returns {NEVER_THE_SAME[self.guest.call]}"
            trap = self.guest.exits[0]
            read = trap is not None and self.guest.label == "SYS64" and system_access(trap.esr).rt == index
            return _why_free(self.guest.call) if read else ""
        start = _seen(self.guest.entry)[exceptions.PC] if self.guest.entry is not None else 0
        end = a.get("pc") if a.get("pc") in CODE else CODE.end  # it left the code somewhere on the way
        for address, word in self.code.items():
            if start <= address < end and word >> 20 == _MRS and word & 31 == index:
                row = BY_ENCODING.get(system_register(word))
                if row is not None and (why := _why_free(row.name)):
                    return why
        return ""

    def _reason(self) -> str:
        """Return why a difference may be a consequence; empty if nothing that is carried is ever read."""
        carried = (item for guest in self.guests.values() for item in guest.carried.items())
        read = (why for index, (why, _, _) in carried if NAMES[index] not in NEVER_READ)
        return self.shifted or next(read, "")

    def _explain(self, a: Switch | None, b: Switch | None, what: str, here: Value, there: Value) -> Intended | None:
        event, _, register = what.partition(".")
        page = _page(a or b or _NOWHERE)
        last = (None, None) if page is None else self.guest.faults.get(page, (None, None))
        exits_, faults, events = ((y, x) if self.swapped else (x, y) for x, y in (self.guest.exits, last, (a, b)))
        old, new = (there, here) if self.swapped else (here, there)
        spot = Spot(event, register, self.guest.label, self.guest.call, exits_, faults, events)
        return self.changes.explain(spot, old, new)

    def _judge(
        self, at: int, a: Switch | None, b: Switch | None, what: str, here: Value, there: Value
    ) -> Intended | None:
        """Record a difference, and whether the two runs can still be compared; return what explains it."""
        known, reason = self._explain(a, b, what, here, there), self._reason()
        if known is None and reason:
            self.unchecked[f"{RELATION}: after {reason}, which it may follow from"] += 1
        else:
            step = (a or b or _NOWHERE).step
            label = f"{FORGED}{self.guest.label}" if self.guest.forged else self.guest.label
            found = Divergence(RELATION, what, here, there, label, at, step, self.guest.call)
            self.judged.append(ExplainedDivergence(found, known))
        self.going = self.going and known is not None and not what.startswith("run.")
        return known


_NOWHERE = Switch(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ())


def compare(scenario: Scenario, one: Trace, other: Trace, changes: Changes, versions: Versions) -> CheckResult:
    """Compare two traces of one scenario; ``expected`` of a divergence is the first's value, ``observed`` the other's.

    ``event`` indexes the first trace; ``helper`` names the SMCCC function or system register that it is about.
    """
    walk = _Comparison(changes, versions.swapped, code_of(scenario))
    walk.walk(one, other)
    judged, unchecked = tuple(walk.judged), dict(walk.unchecked)
    return CheckResult("", 0, {}, {RELATION: walk.compared}, judged, unchecked, {}, ())


def _shown(event: Switch) -> str:
    """Return the kind of a record, and its vCPU if that is not the first."""
    return KIND_NAMES[event.kind] + (f" of vCPU {event.context}" if event.context else "")


def _copied(carried: Mapping[int, tuple[str, int, int]], here: int, there: int) -> str:
    """Return why two values differ that are those of another register; empty if no register has this pair."""
    return next((why for why, *values in carried.values() if values == [here, there]), "")


def _incomparable(a: Switch | None, b: Switch | None, *statuses: str) -> str:
    """Return why two records cannot be compared; empty if they can."""
    if a is None or b is None:
        return _RUNS_ON if _RUNAWAY in statuses else ""
    # The forgery hits the next exit, whichever that is.
    forged = [event.exit_class.startswith(FORGED) if event.kind == EXIT else False for event in (a, b)]
    return "only one of two exits is forged" if forged[0] != forged[1] else ""


def _page(event: Switch) -> int | None:
    """Return the guest page of an abort, None of any other record."""
    if event.kind != EXIT or exit_class(event.code, event.esr) not in ("IABT_LOW", "DABT_LOW"):
        return None
    return event.page


def _alone(a: Switch | None, b: Switch | None, world: VmEnvironment) -> Iterator[int]:
    """Yield 0 or 1, or both: which of two exits only one release may have, a fault or a trapped register."""
    if a is None or b is None or not a.kind == b.kind == EXIT or (a.get("pc"), a.far) == (b.get("pc"), b.far):
        return
    for side, exit_ in enumerate((a, b)):
        if (_page(exit_) is not None and not is_mmio(exit_, world)) or exit_class(exit_.code, exit_.esr) in _TRAPS:
            yield side


def _lazy(exit_: Switch, after: Switch, world: VmEnvironment) -> str:
    """Return why an exit may occur or not: KVM maps pages and switches state when they are used."""
    label, page = exit_class(exit_.code, exit_.esr), _page(exit_)
    in_slot = page is not None and world.slot(page) is not None
    if in_slot and exit_.esr & FSC_TYPE == FSC_TRANSLATION and _seen(after) == exit_.values:
        return "when a page is mapped, and for how long, is the host's business"
    if label == "WFX":
        return "WFI and WFE need not trap: QEMU skips them while an interrupt is pending (target/arm, HELPER(wfi))"
    if label == "FP_ASIMD":
        return "vector registers trap when they are first used"
    if label == "SYS64" and exit_.esr >> 20 & 3 == 2:
        return "debug registers trap when they are first used"
    return ""


def _why_free(register: str) -> str:
    """Return why a system register may read as any value; empty if it may not."""
    return f"{register} runs on" if register in COUNTERS else NEVER_COMPARED.get(register, "")


def _call(exit_: Switch, label: str) -> str:
    """Name the SMCCC function or the system register of a guest's request; empty if it is none of those."""
    if label == "SYS64":
        row = system_access(exit_.esr).row
        return "" if row is None else row.name
    function = SMCCC_BY_FID.get(exit_.values[0] & 0xFFFF_FFFF) if label in ("HVC64", "SMC64") else None
    return "" if function is None else function.name


def _switches(trace: Trace) -> Iterator[tuple[int, Switch]]:
    """Yield the records with their places, without interrupts: neither the exit nor the entry after it."""
    after_interrupt: dict[int, bool] = {}
    for at, event in enumerate(undo_debug_state(trace.events)):
        if not isinstance(event, Switch):
            continue
        if event.kind == EXIT:
            after_interrupt[event.context] = exit_class(event.code, event.esr) == "IRQ"
        if not after_interrupt.get(event.context) and not (event.kind == USER and event.error == EINTR):
            yield at, event


def _rows(a: Switch, b: Switch, label: str) -> Iterator[tuple[str, int, int]]:
    """Yield the differences other than registers; FAR_EL2 and HPFAR_EL2 only of aborts: else they are older."""
    if a.kind == EXIT:
        yield "esr_el2", a.esr, b.esr
        if label in ("IABT_LOW", "DABT_LOW"):
            yield "far_el2", a.far, b.far
            yield "hpfar_el2", a.hpfar, b.hpfar
    if a.kind == USER:
        yield "exit_reason", a.code, b.code
        yield "error", a.error, b.error
        if a.code == b.code == EXIT_DEBUG:
            yield "debug_hsr", a.mmio_addr, b.mmio_addr
            if label == "WATCHPT_LOW":
                yield "debug_far", a.mmio_data, b.mmio_data
        if a.code == b.code == MMIO:
            yield "mmio_addr", a.mmio_addr, b.mmio_addr
            yield "mmio_len", a.mmio_len, b.mmio_len
            if a.mmio_len & b.mmio_len & MMIO_WRITE:
                yield "mmio_data", a.mmio_bytes, b.mmio_bytes


def _seen(event: Switch) -> exceptions.State:
    """Return the registers as the guest will see them: releases differ in when they apply pending work."""
    return pending.apply_pending(event.values, event.pending) if event.kind == ENTRY else event.values
