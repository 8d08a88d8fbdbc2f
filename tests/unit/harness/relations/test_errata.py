# SPDX-License-Identifier: Apache-2.0
"""Each rule belongs to a kept finding, and claims only what that finding shows."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from harness.findings.regressions import errata_of, load_regressions
from harness.relations.errata import NONE, RULES, may_cause
from tests.support.paths import CORPUS

KEPT = {row.id: row for row in load_regressions(CORPUS / "regressions" / "expected.toml")}


def test_each_rule_is_of_a_kept_finding() -> None:
    assert set(RULES) <= set(KEPT)


@pytest.mark.parametrize("name", RULES)
def test_each_signature_of_the_contract_may_be_caused_by_the_rule(name: str) -> None:
    """What the finding shows of ``host.*``, at each exit class that it names."""
    for signature in KEPT[name].signatures:
        shown, _, exit_class = signature.partition("/")
        relation, _, register = shown.partition(".")
        if relation != "host" or exit_class == "FIRST":  # what a vCPU had before its first run is not in the trace
            continue
        register = "x3" if register == "xN" else register
        assert may_cause(frozenset({name}), register, "HVC64" if exit_class == "*" else exit_class), signature


def test_without_errata_nothing_is_claimed() -> None:
    assert not any(may_cause(NONE, register, "RESET") for rule in RULES.values() for register in rule.registers)


@pytest.mark.parametrize("target", ["kvm-nvhe", "kvm-nvhe@6.1.164", "kvm-7.3-nvhe", "kvm-vhe%qemu-10.0", "unknown"])
def test_a_target_has_the_errata_that_its_findings_name(target: str) -> None:
    found = errata_of(KEPT.values(), target)
    configuration = target.partition("@")[0].partition("%")[0]
    assert found.rules == {name for name in RULES if any(fnmatchcase(configuration, t) for t in KEPT[name].targets)}
    assert bool(found.rules) == (target != "unknown")


def test_where_a_finding_without_a_rule_shows_nothing_is_decided() -> None:
    """On 7.3 FAR_EL1 is wrong after an instruction abort for a cause that has no rule."""
    found = errata_of(KEPT.values(), "kvm-7.3-nvhe")
    assert found.is_undecided("far_el1", "IABT_LOW") and found.is_undecided("x7", "DABT_LOW")
    assert not found.is_undecided("far_el1", "DABT_LOW") and not found.is_undecided("pc", "RESET")
