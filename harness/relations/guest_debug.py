# SPDX-License-Identifier: Apache-2.0
"""Check what KVM does for userspace that debugs a guest, and for the guest: relation ``host.*``.

Sources: KVM API 4.87 (KVM_SET_GUEST_DEBUG) and 5 (KVM_EXIT_DEBUG: ``hsr`` is the syndrome, ``far`` is used for
watchpoints); Arm ARM D2.12 (software step: one instruction, then the exception), D17.2.37 (SPSR.SS of an exception).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from harness import protocol
from harness.arch import exceptions
from harness.guest.debug_stops import STOPS, class_of
from harness.guest.el2_errata import NO_DEBUG
from harness.protocol import DEBUG_OPS, OP_ABORT, OP_DEBUG, OP_FINISH, OP_RESET, OP_SERROR, OP_SET
from harness.relations.divergence import Divergence
from harness.relations.errata import NONE, STEP_OUTLIVES
from harness.trace.events import EXIT, Event, Host, Switch
from harness.trace.rounds import PSTATE_ID, Round

EXIT_DEBUG: Final = 4
_MAY_BEGIN_ANEW: Final = DEBUG_OPS | {OP_ABORT, OP_FINISH, OP_RESET, OP_SERROR}


def begins(round_: Round) -> bool | None:
    """Whether a step must begin at the entry (True), or the exception of the last one be pending; None: either.

    A call is a complete instruction: PC is after it.  An access whose page was only mapped is not complete.
    """
    exit_, entry = round_.exit, round_.entry
    if not entry.stepped or exit_ is None or exit_.forged or entry.pending or round_.action.inject:
        return None
    if not exit_.stepped:
        # The access of the exit may be completed in a KVM_RUN that is stepped already: that is the instruction.
        completed = any(host.op == OP_FINISH and not host.error for host in round_.host_actions)
        return None if completed and round_.reported_mmio else True
    if any(host.op in _MAY_BEGIN_ANEW and not host.error for host in round_.host_actions):
        return None
    kind = class_of(exit_)
    if kind in STOPS or (kind == "DABT_LOW" and round_.action.outcome == "resume"):
        return True
    return False if kind == "HVC64" else None


def left_pending(round_: Round, events: Sequence[Event]) -> bool | None:
    """Whether the exception of a vCPU's last step pended when userspace ended stepping, and no debugging was ended.

    None: the guest has a PSTATE.SS of its own, which KVM puts back at an exit: the record does not show the step's.
    ``events`` are those of the trace as they were recorded.  Source: kvm_arm_clear_debug, restore_guest_debug_regs in
    arch/arm64/kvm/debug.c of 6.1, kvm_vcpu_put_debug there in 7.3, and kvm_arch_vcpu_ioctl_set_guest_debug in guest.c.
    """
    pends: bool | None = False
    own, context = False, round_.entry.context
    for event in (*events[: round_.first], *round_.host_actions):
        if event.context != context:
            continue
        if isinstance(event, Host):
            if event.op == OP_DEBUG and not event.a and not event.error:
                pends = False
            own = own or (event.op == OP_SET and event.a == PSTATE_ID and bool(event.b & exceptions.SS))
            continue
        shown = bool(event.values[exceptions.PSTATE] & exceptions.SS)
        if event.kind == EXIT and event.stepped:
            pends = False if class_of(event) == "SOFTSTP_LOW" else None if shown and own else not shown
        elif event.kind == EXIT:
            own = own or shown
    return pends


def compare_debugged(
    round_: Round, events: Sequence[Event] = (), errata: frozenset[str] = NONE
) -> Iterable[Divergence]:
    """Return the divergences of a round of a debugged guest; ``events`` as in :func:`left_pending`."""
    exit_, entry = round_.exit, round_.entry
    if exit_ is None or not (exit_.debugged or entry.debugged):
        return ()
    step = begins(round_)
    if step and STEP_OUTLIVES in errata and not exit_.stepped:
        pends = left_pending(round_, events)
        step = None if pends is None else not pends
    if step and NO_DEBUG in errata and exit_.stepped:
        # No step happened: if an instruction cleared SS, KVM treats its exception as pending (kvm_vcpu_put_debug).
        step = bool(exit_.values[exceptions.PSTATE] & exceptions.SS)
    return _compare(round_, exit_, entry, step)


def _compare(round_: Round, exit_: Switch, entry: Switch, step: bool | None) -> Iterator[Divergence]:
    where = round_.label, round_.first, entry.step
    found = entry.marks & protocol.MARK_STEP_BEGINS != 0
    if step is not None and step != found:
        yield Divergence("host", "step_begins", int(step), int(found), *where)
    if not exit_.debugged or exit_.forged or class_of(exit_) not in STOPS:
        return
    told = next((user for user in round_.userspace_exits if not user.error), None)
    if told is None or told.code != EXIT_DEBUG:
        yield Divergence("host", "exit_reason", EXIT_DEBUG, "none" if told is None else told.code, *where)
        return
    if told.mmio_addr != exit_.esr:
        yield Divergence("host", "debug_hsr", exit_.esr, told.mmio_addr, *where)
    if class_of(exit_) == "WATCHPT_LOW" and told.mmio_data != exit_.far:
        yield Divergence("host", "debug_far", exit_.far, told.mmio_data, *where)
