# SPDX-License-Identifier: Apache-2.0
"""Rounds of a lock, against docs/spec/model.md section 7."""

from __future__ import annotations

import pytest

from harness.model import locks
from harness.model.state import Undefined
from tests.support.model_states import state


def test_a_round_leaves_the_lock_free_and_its_log_balanced() -> None:
    d = state()
    locks.acquire(d, 5)
    assert (d.lock[5], d.tstate) == (True, 0)
    locks.release(d, 5, "what was written")
    assert (d.lock[5], d.tstate) == (False, 1)
    assert d.log[5] == [("WAIT_LOCK", 10), ("OPULL", 5), ("OPUSH", 5, "what was written"), ("REL_LOCK",)]
    locks.check_free(d, 5)


def test_a_lock_is_taken_once() -> None:
    d = state()
    locks.acquire(d, 5)
    with pytest.raises(Undefined, match="lock 5 free"):
        locks.acquire(d, 5)
    locks.acquire(d, 6)


def test_a_log_that_ends_inside_a_round() -> None:
    with pytest.raises(Undefined, match="log 5 balanced"):
        locks.acquire(state(log={5: [("WAIT_LOCK", 10)]}), 5)
