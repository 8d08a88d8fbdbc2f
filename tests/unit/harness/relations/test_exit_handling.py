# SPDX-License-Identifier: Apache-2.0
"""What KVM must do at an exit, where a kernel does not agree what is beyond the VM's physical address space."""

from __future__ import annotations

import pytest

from harness.relations.divergence import Divergence, Unchecked
from harness.relations.errata import IGNORES_SIZE
from harness.relations.expected_outcome import expected_outcomes
from harness.relations.host import compare_entry_state
from harness.trace.environment import IPA_BITS
from harness.trace.rounds import Round
from tests.support.rounds import S, page
from tests.support.traces import EXCEPTION, MMIO_EXIT, SKIP, but, entry, load_esr, trap, turn, user

BEYOND = 1 << IPA_BITS
LOAD = trap(S, load_esr(3), **page(BEYOND))
TOLD = user(S, MMIO_EXIT, mmio_addr=BEYOND, mmio_len=4)
ERRATUM = frozenset({IGNORES_SIZE})


def found(round_: Round, errata: frozenset[str]) -> list[Divergence | Unchecked]:
    return list(compare_entry_state(round_, {}, None, errata))


@pytest.mark.parametrize(("x3", "differs"), [(0x55, set()), (0x56, {"host.x3"})])
def test_an_access_beyond_that_went_to_userspace(x3: int, differs: set[str]) -> None:
    """What the guest must have then is not specified; a kernel without the size completes it as any other."""
    round_ = turn(LOAD, TOLD, entry(but(S, x3=x3), SKIP, mmio_data=0x55))
    assert [type(one) for one in found(round_, frozenset())] == [Unchecked]
    assert {one.name for one in found(round_, ERRATUM) if isinstance(one, Divergence)} == differs
    assert expected_outcomes(round_) == {"inject"}
    assert expected_outcomes(round_, ERRATUM) == {"user:MMIO"}


def test_an_abort_beyond_is_the_contracts() -> None:
    after = but(S, esr_el1=0x9600_0000, far_el1=BEYOND)
    assert not found(turn(LOAD, entry(after, EXCEPTION)), frozenset())
