# SPDX-License-Identifier: Apache-2.0
"""Every rule of the host's contract has a scenario that exercises it on every target, or a reason why it cannot."""

from __future__ import annotations

import copy
import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from fuzz.corpus.exercise_counts import read_counts
from harness.errors import InputError
from harness.relations.contract_rules import ABSENT, RULES, why_absent
from harness.report.contract_page import Exercised, contract_page
from harness.vm.config import list_configs
from tests.support.paths import CORPUS


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return read_counts(CORPUS / "reach.json")


def test_every_rule_has_a_scenario_or_a_reason_on_every_target(kept: dict[str, Any]) -> None:
    exercised = Exercised.from_json(kept)
    assert set(exercised.targets) == set(list_configs())
    assert list(exercised.without_reason()) == []


def test_what_a_reason_says_cannot_be_is_not(kept: dict[str, Any]) -> None:
    exercised = Exercised.from_json(kept)
    for row in ABSENT:
        assert row.why
        assert row.source
        rules = [rule.name for rule in RULES if fnmatchcase(rule.name, row.rules)]
        assert rules, row
        for target in (name for name in list_configs() if fnmatchcase(name, row.targets)):
            assert [rule for rule in rules if rule in exercised.targets[target]] == [], (row, target)


def test_the_scenarios_that_are_named_are_there(kept: dict[str, Any]) -> None:
    for rules in Exercised.from_json(kept).targets.values():
        assert {one for _, one in rules.values() if not (CORPUS / one).is_file()} == set()


def test_the_page_is_of_the_kept_data(kept: dict[str, Any]) -> None:
    page = CORPUS.parent / "docs" / "contract.md"
    assert page.read_text() == contract_page(Exercised.from_json(kept))


def test_a_rule_that_is_lost_is_shown(kept: dict[str, Any]) -> None:
    document = copy.deepcopy(kept)
    del document["targets"]["kvm-vhe"]["rules"]["call.PSCI_VERSION"]
    exercised = Exercised.from_json(document)
    assert list(exercised.without_reason()) == [("call.PSCI_VERSION", "kvm-vhe")]
    assert "| none |" in contract_page(exercised)


def test_a_rule_that_nobody_wrote_is_one_clear_error(kept: dict[str, Any], tmp_path: Path) -> None:
    document = copy.deepcopy(kept)
    document["targets"]["kvm-vhe"]["rules"]["call.NOTHING"] = {"scenarios": 1, "one": "seeds/a.scn"}
    path = tmp_path / "reach.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="not what `shadowfuzz corpus reach --keep` writes"):
        read_counts(path)


def test_rules_have_one_name_and_a_source() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.expected and rule.source for rule in RULES)
    assert why_absent("call.PSCI_VERSION", "kvm-nvhe") is None
