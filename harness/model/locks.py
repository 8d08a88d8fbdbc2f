# SPDX-License-Identifier: Apache-2.0
"""Model lock rounds and their event logs, at the levels spec, low and body (docs/spec/model.md section 7).

One CPU and no events of others.  An ``OPUSH`` event has the values that the round wrote to the shared object: for the
same object, equal writes give the same new value, and the log stays short.
"""

from __future__ import annotations

from harness.model.constants import WAIT_BOUND
from harness.model.state import RData

REL_LOCK = ("REL_LOCK",)


def check_free(d: RData, lock: int) -> None:
    """Rely on the lock being free and its log balanced."""
    log = d.log.get(lock)
    d.rely(f"lock {lock} free", not d.lock.get(lock, False))
    d.rely(f"log {lock} balanced", not log or log[-1] == REL_LOCK)


def acquire(d: RData, lock: int) -> None:
    """Acquire a lock: ``WAIT_LOCK(10)``, then ``OPULL(id)``; ``tstate := 0``.  Undefined unless it is free."""
    check_free(d, lock)
    d.note(lock, ("WAIT_LOCK", WAIT_BOUND), ("OPULL", lock))
    d.lock[lock] = True
    d.tstate = 0


def release(d: RData, lock: int, *written: object) -> None:
    """Release a lock: ``OPUSH`` of the object's new value, then ``REL_LOCK``; ``tstate := 1``."""
    d.note(lock, ("OPUSH", lock, *written), REL_LOCK)
    d.lock[lock] = False
    d.tstate = 1
