# SPDX-License-Identifier: Apache-2.0
"""The scenarios that corpus/reach.json names exercise the contract's rules in a VM."""

from __future__ import annotations

from fuzz.corpus.exercise_counts import read_counts
from fuzz.targets.runner import run_to_end
from harness.arch.cpu_models import cpu_model
from harness.coverage.exercised_rules import exercised_rules
from harness.findings.check import check
from harness.findings.checked import Comparison
from harness.report.contract_page import Exercised
from harness.scenario.scenario import load
from harness.trace.indexed import index_trace
from harness.vm.config import DEFAULT_TARGET, load_config
from tests.vm.running import CATALOGUE, CORPUS, booted

BY_CHANCE = frozenset({"irq"})
"""Rules about asynchronous events: an interrupt of the host."""


def test_the_named_scenarios_exercise_their_rules() -> None:
    kept = Exercised.from_json(read_counts(CORPUS / "reach.json")).targets[DEFAULT_TARGET]
    claimed: dict[str, set[str]] = {}
    for rule, (_, one) in kept.items():
        claimed.setdefault(one, set()).add(rule)
    cpu = cpu_model(load_config(DEFAULT_TARGET).cpu)
    missing = {}
    with booted(DEFAULT_TARGET) as executor:
        for one, rules in claimed.items():
            scenario, compared = load(CORPUS / one), list[Comparison]()
            trace = run_to_end(executor, scenario, fresh_vm=True)
            check(scenario, trace, "spec", cpu, CATALOGUE, compared.append)
            if lost := rules - BY_CHANCE - exercised_rules(scenario, index_trace(trace), compared):
                missing[one] = lost
    assert missing == {}
