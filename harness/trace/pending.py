# SPDX-License-Identifier: Apache-2.0
"""Apply KVM's pending work: an exception that waits to be entered, an instruction that waits to be skipped."""

from __future__ import annotations

from harness import protocol
from harness.arch.exceptions import SERROR_OFFSET, State, skip, take_exception


def apply_pending(state: State, pending: int, wide: bool = True) -> State:
    """Return the guest's state after KVM's pending work (``protocol.PENDING`` bits).

    ESR_EL1 and FAR_EL1 of a pending exception are in the context already.  ``wide`` as in
    :func:`~harness.arch.exceptions.state_after_instruction`.
    """
    if not pending:
        return state
    if pending & protocol.PENDING["exception"]:
        return take_exception(state, offset=SERROR_OFFSET if pending & protocol.PENDING["serror_el1"] else 0)
    return skip(state, wide)
