# SPDX-License-Identifier: Apache-2.0
"""What a guest runs on, where nothing else is said."""

from __future__ import annotations

import pytest

from harness.arch.cpu_models import cpu_model
from harness.guest.context import GuestContext
from harness.layout import DATA


def test_memory_is_unknown_unless_given_and_no_two_guests_share_it() -> None:
    one, other = (GuestContext({}, cpu_model("cortex-a72")) for _ in range(2))
    assert one.memory.read(DATA.base) is None
    one.memory.write(DATA.base, 5)
    assert one.memory.read(DATA.base) == 5 and other.memory.read(DATA.base) is None


def test_a_context_is_immutable() -> None:
    with pytest.raises(AttributeError):
        GuestContext({}, cpu_model("cortex-a72")).gic = None  # type: ignore[misc]
