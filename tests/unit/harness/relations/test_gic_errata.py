# SPDX-License-Identifier: Apache-2.0
"""Each rule of the GIC's belongs to a kept finding, and claims what that shows, on the vCPUs that may show it."""

from __future__ import annotations

import pytest

from harness.findings.regressions import errata_of, load_regressions
from harness.layout import CONTEXTS, GIC_MACHINE
from harness.relations.divergence import Divergence
from harness.relations.errata import RULES
from harness.relations.gic_errata import GIC_RULES, may_show
from tests.support.paths import CORPUS

KEPT = {row.id: row for row in load_regressions(CORPUS / "regressions" / "expected.toml")}
WITH, WITHOUT = (next(i for i, c in enumerate(CONTEXTS) if (c.machine == GIC_MACHINE) is gic) for gic in (True, False))


def divergence(name: str) -> Divergence:
    relation, _, register = name.partition(".")
    return Divergence(relation, register, 0, 1, "HVC64", 0, 0)


def test_each_rule_is_of_a_kept_finding_and_of_one_kind() -> None:
    assert set(GIC_RULES) <= set(KEPT)
    assert not set(GIC_RULES) & set(RULES)


@pytest.mark.parametrize("name", GIC_RULES)
def test_each_signature_may_be_caused_by_the_rule(name: str) -> None:
    context, other = (WITH, WITHOUT) if GIC_RULES[name].with_gic else (WITHOUT, WITH)
    for shown in KEPT[name].divergences:
        one = divergence(shown.replace("xN", "x3"))
        assert may_show({name}, one, context), shown
        assert not may_show({name}, one, other), "of another vCPU"
        assert not may_show((), one, context)


@pytest.mark.parametrize(
    "shown", ["host.x3", "restore.pc", "save.reveal", "host.gic_line", "isolate.x3", "switch.hcr_el2"]
)
def test_what_no_gic_does_is_not_claimed(shown: str) -> None:
    assert not any(may_show(GIC_RULES, divergence(shown), context) for context in (WITH, WITHOUT))


def test_a_target_has_the_errata_that_its_findings_name() -> None:
    for target in ("kvm-nvhe", "kvm-vhe", "kvm-6.12-nvhe@6.12.43", "kvm-7.3-nvhe", "unknown"):
        found = errata_of(KEPT.values(), target)
        assert found.gic == {name for name in GIC_RULES if target.partition("@")[0] in KEPT[name].targets}
        assert not found.gic & found.rules
