# SPDX-License-Identifier: Apache-2.0
"""What makes two divergences members of one cluster."""

from __future__ import annotations

import pytest

from harness.findings.checked import signature
from harness.relations.divergence import Divergence


def _divergence(relation: str, register: str, exit_class: str = "WFX", helper: str = "prep_wfx") -> Divergence:
    return Divergence(relation, register, 0, 1, exit_class, 3, 4, helper)


def test_signatures_fold_general_purpose_registers() -> None:
    assert signature(_divergence("restore", "x7")) == ("restore", "xN", "WFX", "prep_wfx")
    assert signature(_divergence("restore", "x7")) == signature(_divergence("restore", "x30"))
    assert signature(_divergence("save", "dirty.x7")) == ("save", "dirty.xN", "WFX", "prep_wfx")


@pytest.mark.parametrize("register", ["pc", "elr_el1", "ttbr0_el1", "tpidr_el0", "sp_el0", "sp_el1", "spsr_0", "class"])
def test_signatures_keep_every_other_register(register: str) -> None:
    assert signature(_divergence("restore", register))[1] == register


def test_signatures_tell_relations_classes_and_helpers_apart() -> None:
    rows = [
        *(_divergence("restore", "x1"), _divergence("switch", "x1"), _divergence("save", "dirty.x1")),
        *(_divergence("restore", "x1", "HVC64"), _divergence("restore", "x1", helper="prep_hvc")),
    ]
    assert len({signature(row) for row in rows}) == len(rows)
