# SPDX-License-Identifier: Apache-2.0
"""Compute the guest state that KVM must produce at an entry, and compare it: relation ``host.*``.

The expected state starts as the exit's registers.  The rules of :mod:`harness.relations.contract` for that exit apply
first, then userspace's actions in order, then the completion of an MMIO access, which the next ``KVM_RUN`` performs.
No model is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from harness import protocol
from harness.arch import exceptions
from harness.arch.registers import NAMES
from harness.guest.predict_run import STEP_SHOWS
from harness.protocol import OP_IRQ_LINE, OP_RESET, OP_SERROR
from harness.relations import contract
from harness.relations.divergence import Divergence, Unchecked, different
from harness.relations.errata import (
    CPU_ON_KEEPS_SERROR,
    NONE,
    RESET_KEEPS_SERROR,
)
from harness.relations.exit_handling import apply_exit
from harness.relations.expected_state import ExpectedState
from harness.relations.userspace_actions import Order, apply_reset, apply_userspace, orders_of
from harness.trace.rounds import Round

STEP_WAITS = "the guest's own PSTATE.SS while userspace steps it"
OS_LOCK = "what the OS Lock hides of MDSCR_EL1"
PARTIAL = frozenset({STEP_WAITS, OS_LOCK, STEP_SHOWS})
"""Reasons that concern some bits of one register; any other reason means that the whole state is undetermined."""


def expected_entry_states(
    round_: Round, walk_level: int | None = None, errata: frozenset[str] = NONE
) -> tuple[ExpectedState, ...]:
    """Return the states that are correct at the entry: one for each order in which KVM may do userspace's actions.

    ``walk_level``: of the table entry at which a stage-1 walk met no memory.
    """
    return tuple(_in_order(round_, walk_level, errata, order) for order in orders_of(round_))


def _in_order(round_: Round, walk_level: int | None, errata: frozenset[str], order: Order) -> ExpectedState:
    exit_ = round_.exit
    state = ExpectedState(list((exit_ or round_.entry).values), walk_level, errata, round_.wide)
    if exit_ is None:
        apply_reset(state, round_.world)
    else:
        reason = apply_exit(state, round_, exit_)
        if reason and not round_.reset:  # after a reset it does not matter
            state.undetermined = reason
            return state
    state.undetermined = apply_userspace(state, round_, order)
    return state


def expected_virtual_interrupts(round_: Round, errata: frozenset[str] = NONE) -> tuple[int, int]:
    """Return the virtual interrupts that must be pending in HCR_EL2 at the entry, and which bits are certain.

    A reset clears a pending SError; a line keeps its last level (KVM API 4.25, 4.32).
    """
    hcr = round_.exit.hcr if round_.exit is not None else 0
    certain = exceptions.HCR_VIRTUAL
    for host in round_.host_actions:
        if host.op == OP_RESET:
            keeps = (RESET_KEEPS_SERROR if host.asked else CPU_ON_KEEPS_SERROR) in errata
            hcr, certain = hcr & exceptions.HCR_VSE if keeps else 0, exceptions.HCR_VSE
        elif host.op == OP_SERROR and not host.error:
            hcr |= exceptions.HCR_VSE
            if round_.action.inject:
                certain &= ~exceptions.HCR_VSE
        elif host.op == OP_IRQ_LINE and not host.error:
            bit = exceptions.HCR_VI if host.a == protocol.LINES["irq"] else exceptions.HCR_VF
            hcr, certain = hcr | bit if host.b else hcr & ~bit, certain | bit
    return hcr & exceptions.HCR_VIRTUAL, certain


def _step_waits(round_: Round, pstate: int) -> bool:
    """Call :func:`harness.relations.contract.step_waits`; userspace may have begun to step only after the exit."""
    exit_, wrote = round_.exit, round_.host_wrote.get(exceptions.PSTATE, 0)
    if exit_ is None or round_.reset:
        return False
    stepped = exit_.stepped or round_.entry.stepped
    return contract.step_waits(stepped, exit_.values[exceptions.PSTATE] | wrote, pstate)


def compare_entry_state(
    round_: Round, lossy: Mapping[int, int], walk_level: int | None = None, errata: frozenset[str] = NONE
) -> Iterator[Divergence | Unchecked]:
    """Yield the divergences of relation ``host.*``.

    ``lossy``: bits that the CPU does not keep, by index; ``walk_level`` and ``errata`` as in
    :func:`expected_entry_states`.  Of several correct states the nearest one counts.
    """
    pending, certain = expected_virtual_interrupts(round_, errata)
    if (pending ^ round_.entry.hcr) & certain:
        found = round_.entry.hcr & exceptions.HCR_VIRTUAL
        yield Divergence("host", "hcr_el2", pending, found, round_.label, round_.first, round_.entry.step)
    states = expected_entry_states(round_, walk_level, errata)
    compared = [tuple(_compare(state, round_, lossy)) for state in states if not state.undetermined]
    nearest = min(compared, key=_differing, default=())
    undetermined = next((state.undetermined for state in states if state.undetermined), "")
    if undetermined and (not compared or _differing(nearest)):
        yield Unchecked("host", undetermined)
    else:
        yield from nearest


def _differing(compared: Iterable[Divergence | Unchecked]) -> int:
    return sum(isinstance(one, Divergence) for one in compared)


def _compare(state: ExpectedState, round_: Round, lossy: Mapping[int, int]) -> Iterator[Divergence | Unchecked]:
    """Yield how the entry differs from one of the correct states."""
    seen = round_.guest_view
    for i in different(tuple(state.values), seen):
        want, got = state.values[i], seen[i]
        if not (want ^ got) & ~lossy.get(i, 0):
            continue
        if i == exceptions.MDSCR and exceptions.os_locked(want, got):
            yield Unchecked("host", OS_LOCK)
            continue
        if (
            i == exceptions.SPSR
            and not (want ^ got) & ~exceptions.SS
            and round_.exit is not None
            and round_.exit.stepped
        ):
            yield Unchecked("host", STEP_SHOWS)
            continue
        if i == exceptions.PSTATE and want ^ got == exceptions.SS and _step_waits(round_, got):
            yield Unchecked("host", STEP_WAITS)
            continue
        if not state.allows(i, got):
            yield Divergence("host", NAMES[i], want, got, round_.label, round_.first, round_.entry.step)
