# SPDX-License-Identifier: Apache-2.0
"""A finding like those of a campaign."""

from __future__ import annotations

from harness.findings.finding import Finding, Subject, Tries, difference
from harness.relations.divergence import Divergence

SUBJECT = Subject("kvm-nvhe", "6.1.0-1-cloud-arm64", "ab" * 32, "spec")

DIVERGENCE = Divergence("restore", "x3", 0x1234, (1 << 64) - 1, "DABT_LOW", 7, 2, "prep_abort")


def finding(signature: tuple[str, ...] = ("restore", "xN", "DABT_LOW", "prep_abort"), detail: str = "") -> Finding:
    """Return a finding like those of a campaign."""
    differences = (difference(DIVERGENCE),)
    return Finding(
        "divergence", signature, SUBJECT, differences, 1, Tries(1, 1), Tries(1, 1), "2026-01-02T03:04:05+00:00", detail
    )
