# SPDX-License-Identifier: Apache-2.0
"""Compute the guest state that KVM must produce at an entry, and compare it: relation ``host.*``.

The expected state starts as the exit's registers.  The rules of :mod:`harness.relations.contract` for that exit apply
first, then userspace's actions in order, then the completion of an MMIO access, which the next ``KVM_RUN`` performs.
No model is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from harness.arch import exceptions
from harness.arch.registers import NAMES
from harness.guest.predict_run import STEP_SHOWS
from harness.relations import contract
from harness.relations.divergence import Divergence, Unchecked, different
from harness.relations.errata import NONE
from harness.relations.exit_handling import apply_exit
from harness.relations.expected_state import ExpectedState
from harness.relations.userspace_actions import Order, apply_reset, apply_userspace, orders_of
from harness.trace.rounds import Round

STEP_WAITS: Final = "the guest's own PSTATE.SS while userspace steps it"
OS_LOCK: Final = "what the OS Lock hides of MDSCR_EL1"
PARTIAL: Final = frozenset({STEP_WAITS, OS_LOCK, STEP_SHOWS})
"""Reasons that concern some bits of one register; any other reason means that the whole state is undetermined."""


def expected_entry_states(
    round_: Round, walk_level: int | None = None, errata: frozenset[str] = NONE
) -> tuple[ExpectedState, ...]:
    """Return the states that are correct at the entry: one for each order in which KVM may do userspace's actions.

    ``walk_level``: of the table entry at which a stage-1 walk met no memory.
    """
    return tuple([_in_order(round_, walk_level, errata, order) for order in orders_of(round_)])


def _in_order(round_: Round, walk_level: int | None, errata: frozenset[str], order: Order) -> ExpectedState:
    exit_ = round_.exit
    state, reason = ExpectedState(list((exit_ or round_.entry).values), walk_level, errata, round_.wide), ""
    if exit_ is None:
        apply_reset(state, round_.world)
    else:
        state.hcr = exit_.hcr & exceptions.HCR_VIRTUAL
        reason = apply_exit(state, round_, exit_)
    after = apply_userspace(state, round_, order)
    state.undetermined = after if round_.reset else reason or after  # before a reset it does not matter
    return state


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
    states = expected_entry_states(round_, walk_level, errata)
    if len(states) == 1:  # most rounds
        yield from _compare(states[0], round_, lossy)
        return
    compared = [(bool(state.undetermined), tuple(_compare(state, round_, lossy))) for state in states]
    _, nearest = min(compared, key=lambda one: (_differing(one[1]), one[0]))
    yield from nearest


def _differing(compared: Iterable[Divergence | Unchecked]) -> int:
    return sum(isinstance(one, Divergence) for one in compared)


def _compare(state: ExpectedState, round_: Round, lossy: Mapping[int, int]) -> Iterator[Divergence | Unchecked]:
    """Yield how the entry differs from one of the correct states."""
    seen, hcr = round_.guest_view, round_.entry.hcr
    if (state.hcr ^ hcr) & state.hcr_certain:
        found = hcr & exceptions.HCR_VIRTUAL
        yield Divergence("host", "hcr_el2", state.hcr, found, round_.label, round_.first, round_.entry.step)
    if state.undetermined:
        yield Unchecked("host", state.undetermined)
        return
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
