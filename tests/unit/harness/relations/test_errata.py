# SPDX-License-Identifier: Apache-2.0
"""Each rule belongs to a kept finding, and claims only what that finding shows."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

import pytest

from harness.findings.regressions import errata_of, load_regressions
from harness.relations.errata import NONE, RULES, SHARED, may_cause, rule_of
from tests.support.paths import CORPUS

KEPT = {row.id: row for row in load_regressions(CORPUS / "regressions" / "expected.toml")}
RULED = [name for name in KEPT if rule_of(name) is not None]


def test_each_rule_is_of_a_kept_finding() -> None:
    assert set(RULES) <= set(KEPT)
    assert set(SHARED) <= set(KEPT) and set(SHARED.values()) <= set(RULES) and not set(SHARED) & set(RULES)


@pytest.mark.parametrize("name", RULED)
def test_each_signature_of_a_finding_may_be_caused_by_its_rule(name: str) -> None:
    """What the finding shows where rules predict, at each exit class that it names; the model's follow from that."""
    for signature in KEPT[name].signatures:
        shown, _, exit_class = signature.partition("/")
        if shown.startswith(("save.", "restore.")):
            continue
        one = shown.replace("xN", "x3")
        rule = frozenset({SHARED.get(name, name)})
        assert may_cause(rule, one, "HVC64" if exit_class == "*" else exit_class), signature


def test_without_errata_nothing_is_claimed() -> None:
    assert not any(may_cause(NONE, name, "RESET") for rule in RULES.values() for name in rule.shows)


@pytest.mark.parametrize("target", ["kvm-nvhe", "kvm-7.3-nvhe", "kvm-vhe%qemu-10.0", "unknown"])
def test_a_target_has_the_errata_that_its_findings_name(target: str) -> None:
    found = errata_of(KEPT.values(), target)
    configuration = target.partition("%")[0]
    here = {name for name in RULED if any(fnmatchcase(configuration, t) for t in KEPT[name].targets)}
    assert found.rules == {SHARED.get(name, name) for name in here}
    assert bool(found.rules) == (target != "unknown")


def test_where_a_finding_without_a_rule_shows_nothing_is_decided() -> None:
    """Every kept finding of today has a rule."""
    assert not any(errata_of(KEPT.values(), target).unruled for target in ("kvm-nvhe", "kvm-vhe", "kvm-7.3-protected"))
    without = replace(KEPT["mmio-load-loses-sign"], id="without-a-rule")
    found = errata_of((without,), "kvm-nvhe")
    assert found.is_undecided("host.x3", "DABT_LOW") and not found.is_undecided("host.x3", "SYS64")
    assert not found.is_undecided("host.far_el1", "DABT_LOW")
