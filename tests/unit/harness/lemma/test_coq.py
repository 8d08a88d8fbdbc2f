# SPDX-License-Identifier: Apache-2.0
"""Clusters as text of Coq."""

from __future__ import annotations

from harness.lemma.clusters import load
from harness.lemma.coq import export
from tests.support.paths import CORPUS

LEMMAS = CORPUS / "lemmas"

STORED = [c for path in sorted(LEMMAS.glob("*-*.json")) for c in load(path)]

LOW_BODY = ("low", "body")


def test_coq_export() -> None:
    text = export(c for c in STORED if c.question.pair == LOW_BODY)
    assert text.count("\nSection ") == text.count("\nEnd ") == sum(c.question.pair == LOW_BODY for c in STORED)
    assert "restore_shadow_kvm_regs_spec0 d = Some d'" in text
    assert "restore_shadow_kvm_regs_body E0 le' (m, d') Out_normal" in text
    for opening, closing in ("()", "{}", "[]"):
        assert text.count(opening) == text.count(closing)
    kernel = export(c for c in STORED if c.question.pair == ("spec", "kernel"))
    assert "\nSection " not in kernel
