# SPDX-License-Identifier: Apache-2.0
"""Registers that show that a guest will never execute an instruction again."""

from __future__ import annotations

import pytest

from harness.vm.fetch_storm import is_storm

VECTOR = 0x4001_0200
STORM = {"pc": VECTOR, "VBAR": 0x4001_0000, "ELR_EL1": VECTOR, "FAR_EL1": VECTOR, "ESR_EL1": 0x8600_0004}


def test_a_fetch_at_the_vector_that_faults_comes_to_the_vector() -> None:
    assert is_storm(STORM)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pc", VECTOR + 4),
        ("VBAR", 0x4001_0800),
        ("ELR_EL1", 0x4000_0000),  # the first fault, of another instruction: the vector was not fetched yet
        ("FAR_EL1", 0x4000_0000),
        ("ESR_EL1", 0x8200_0004),  # from EL0
        ("ESR_EL1", 0x0200_0000),  # an undefined instruction was executed: time advances
    ],
)
def test_other_registers_are_not_a_storm(name: str, value: int) -> None:
    assert not is_storm(STORM | {name: value})
