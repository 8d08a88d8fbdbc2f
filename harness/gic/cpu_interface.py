# SPDX-License-Identifier: Apache-2.0
"""Model the CPU interface of one vCPU while its guest runs: its pending interrupts, and the effects of ICC_* accesses.

Source: IHI 0069, interrupt prioritization, and the pages of the ICC_* registers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.arch.exceptions import PSTATE_F, PSTATE_I
from harness.arch.registers import MASK64
from harness.gic.registers import IMPLEMENTED_MASK, IMPLEMENTED_PRIORITY, SPURIOUS

TRAPPED: frozenset[str] = frozenset({"icc_sgi1r_el1", "icc_sgi0r_el1", "icc_asgi1r_el1"})
"""Must trap: HCR_EL2.IMO and FMO redirect ICC_* to the virtual interface, which generates no SGIs (IHI 0069)."""
_INTID = 0xFF_FFFF
_SPECIAL = range(1020, 1024)
NO_EFFECT: frozenset[str] = frozenset({"icc_sre_el1"})
"""Registers whose writes change nothing that is compared."""
CROWDED = "more interrupts than list registers"
EOI_MODE, CBPR = 1 << 1, 1 << 0
"""ICC_CTLR_EL1: the effect of an end of interrupt, and whether group 1 uses the binary point of group 0."""
SMALLEST_POINT = 3
"""The smallest value that every ICC_BPR1_EL1 can hold: at least 5 bits of a priority preempt (IHI 0069,
ICH_VTR_EL2.PREbits)."""
SIGN = 1 << 31
"""Emulator: a value written to ICC_BPR1_EL1 is treated as an int (QEMU 7.2 hw/intc/arm_gicv3_cpuif.c, write_vbpr)."""


def below(priority: int, mask: int) -> bool | None:
    """Whether a priority is higher (a lower number) than ICC_PMR_EL1, whatever low bits are implemented."""
    if priority < mask & IMPLEMENTED_MASK:
        return True
    return None if priority & IMPLEMENTED_PRIORITY < mask else False


@dataclass
class Interface:
    """State of one vCPU's interface.

    ``pending``: INTIDs that are certain to be presented, with their priority; ``waiting``: those of a lower priority
    for which no list register may be free (IHI 0069, ICH_HCR_EL2.UIE: in finite time); ``maybe``: why there may be
    others; ``may_be_fiq``: some of these may be of group 0, which ``enabled_0`` lets through (``enabled``: group 1).
    ``again``: INTIDs that are pending once more when they are deactivated.  ``running`` are the INTIDs whose priority
    was not dropped, ``dropped`` those that are only active; ``acknowledged`` and ``ended`` what the guest did since the
    entry.  ``lost``: why the whole state is unknown.  ``late``: the guest wrote to the interface, and an interrupt that
    this lets through takes effect in finite time.  ``point`` is the value of ICC_BPR1_EL1, which ``shares_point``
    (CBPR) hides; ``settled``: no write of the guest made that value unknown.

    By a departure of the GIC, each with its priority: ``doubled`` are active INTIDs whose list register is also
    pending: the interface signals them at once when they are deactivated; ``kept_away`` are pending INTIDs that are not
    presented because active ones use all list registers.
    """

    pending: dict[int, int] = field(default_factory=dict)
    waiting: dict[int, int] = field(default_factory=dict)
    maybe: str = ""
    may_be_fiq: bool = False
    again: frozenset[int] = frozenset()
    doubled: dict[int, int] = field(default_factory=dict)
    kept_away: dict[int, int] = field(default_factory=dict)
    mask: int | None = None
    enabled: bool | None = False
    enabled_0: bool = False
    drops_only: bool | None = None
    shares_point: bool | None = None
    point: int | None = None
    settled: bool = True
    running: list[tuple[int, int]] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    lost: str = ""
    late: bool = False

    def mark_unknown(self, why: str) -> None:
        """Mark the state of the interface as unknown."""
        self.lost = self.lost or why

    def hold_back(self, room: int) -> None:
        """Keep as certain to be presented only ``room`` of the pending interrupts: those of the highest priority."""
        ranks = sorted(priority & IMPLEMENTED_PRIORITY for priority in self.pending.values())
        end = ranks[room] if len(ranks) > room else MASK64
        self.waiting = {i: priority for i, priority in self.pending.items() if priority & IMPLEMENTED_PRIORITY >= end}
        self.pending = {i: priority for i, priority in self.pending.items() if i not in self.waiting}
        self._let_in()

    def _let_in(self) -> None:
        if self.waiting and not self.pending:
            self.maybe = self.maybe or CROWDED

    def _candidate(self, priority: int) -> bool | None:
        assert self.mask is not None
        found = below(priority, self.mask)
        if found is False or not self.running:
            return found
        highest = min(running for _, running in self.running)
        return False if priority >= highest else None  # whether it preempts depends on ICC_BPR1_EL1

    def signals(self) -> bool | None:
        """Whether the interface signals an interrupt (IHI 0069, interrupt prioritization); None: unknown."""
        if self.lost:
            return None
        if not (self.pending or self.maybe) or self.enabled is False or self.mask == 0:
            return False
        if self.enabled is None or self.mask is None:
            return None
        found = {self._candidate(priority) for priority in self.pending.values()}
        if True in found:
            return True
        return None if None in found or self.maybe else False

    def quiet(self, pstate: int) -> bool:
        """Whether it is certain that a guest in this PSTATE is not interrupted."""
        if (self.may_be_fiq or self.lost) and not pstate & PSTATE_F:
            return False
        return bool(pstate & PSTATE_I) or self.signals() is False

    @property
    def why(self) -> str:
        """Why :meth:`signals` is None."""
        return self.lost or self.maybe or "a priority or a control that is unknown"

    def acknowledge(self) -> int | None:
        """Read ICC_IAR1_EL1: the INTID that becomes active, 1023 for none, None if it is unknown."""
        signals = self.signals()
        if signals is False:
            return SPURIOUS
        ranks = sorted((priority & IMPLEMENTED_PRIORITY, intid) for intid, priority in self.pending.items())
        if not signals or self.maybe or (len(ranks) > 1 and ranks[0][0] == ranks[1][0]):
            self.mark_unknown(self.why if not signals or self.maybe else "two interrupts of one priority")
            return None
        intid = ranks[0][1]
        self.running.append((intid, self.pending.pop(intid)))
        self._let_in()
        self.acknowledged.add(intid)
        self.ended.discard(intid)
        return intid

    def read(self, name: str) -> tuple[int, int]:
        """Return the value of a register, and its unknown bits."""
        match name:
            case "icc_iar1_el1":
                intid = self.acknowledge()
                return (0, MASK64) if intid is None else (intid, 0)
            case "icc_pmr_el1" if self.mask is not None and not self.lost:
                return self.mask, 0xFF & ~IMPLEMENTED_MASK
            case "icc_igrpen1_el1" if self.enabled is not None and not self.lost:
                return int(self.enabled), 0
        if name == "icc_iar0_el1" and (self.lost or self.may_be_fiq):
            self.mark_unknown("an acknowledge of group 0")
        return 0, MASK64

    def write(self, name: str, value: int | None) -> None:
        """Write a register; None: an unknown value."""
        if value is None:
            self.mark_unknown("a register of the interface written with an unknown value")
            return
        late, self.late = self.late, True
        match name:
            case "icc_pmr_el1":
                self.mask = value & 0xFF
            case "icc_igrpen1_el1":
                self.enabled = bool(value & 1)
            case "icc_igrpen0_el1":
                self.enabled_0 = bool(value & 1)
            case "icc_ctlr_el1":
                self.drops_only, self.shares_point = bool(value & EOI_MODE), bool(value & CBPR)
            case "icc_bpr1_el1":
                kept = self.shares_point is False and value & 7 >= SMALLEST_POINT and not value & SIGN
                self.point, self.settled = value & 7 if kept else None, kept
            case "icc_eoir1_el1":
                self._end(value & _INTID, late)
            case "icc_dir_el1":
                self._deactivate(value & _INTID, late)
            case _ if name not in NO_EFFECT:
                self.mark_unknown(f"a write to {name}")

    def _end(self, intid: int, late: bool) -> None:
        if intid in _SPECIAL or self.lost:
            return
        if not self.running or self.running[-1][0] != intid:
            self.mark_unknown("the end of an interrupt that is not the running one")
            return
        self.running.pop()
        if self.drops_only is None:
            self.mark_unknown("ICC_CTLR_EL1.EOImode was never written")
        elif self.drops_only:
            self.dropped.append(intid)
        else:
            self._inactive(intid, late)

    def _deactivate(self, intid: int, late: bool) -> None:
        if intid in _SPECIAL or self.lost:
            return
        if not self.drops_only or intid not in self.dropped:
            self.mark_unknown("a deactivation of what was not ended before")
            return
        self.dropped.remove(intid)
        self._inactive(intid, late)

    def _inactive(self, intid: int, late: bool) -> None:
        self.ended.add(intid)
        if intid in self.doubled:
            self.late = late or bool(self.pending)
            self.pending[intid] = self.doubled.pop(intid)
        elif intid in self.again:
            self.maybe = self.maybe or "an interrupt that is asserted again, which takes effect in finite time"
