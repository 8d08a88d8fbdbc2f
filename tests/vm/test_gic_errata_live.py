# SPDX-License-Identifier: Apache-2.0
"""The kept findings of the GIC on every target: each has its own cause, and no other."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fuzz.targets.runner import run_to_end
from harness.arch.cpu_models import cpu_model
from harness.findings.check import check
from harness.findings.checked import signature
from harness.findings.finding import difference, signature_text
from harness.findings.regressions import Regression, errata_of, load_regressions
from harness.gic.departures import ACTIVE_FILL_LISTS
from harness.relations.divergence import ANOTHER_CAUSE, Divergence
from harness.relations.gic_errata import GIC_RULES, may_show
from harness.trace.events import Trace
from harness.vm.config import list_configs, load_config
from tests.vm.running import CATALOGUE, CORPUS, REGRESSIONS, booted, two_at_a_time

KEPT = load_regressions(CORPUS / "regressions" / "expected.toml")
FINDINGS = [row for row in KEPT if row.id in GIC_RULES]
SCENARIOS = sorted({name for row in FINDINGS for name in row.scenarios})


def _record(target: str) -> Mapping[str, Trace]:
    with booted(target) as executor:
        return {name: run_to_end(executor, REGRESSIONS[name], fresh_vm=True) for name in SCENARIOS}


@pytest.fixture(scope="module")
def recorded() -> Mapping[str, Mapping[str, Trace]]:
    targets = list_configs()
    return dict(zip(targets, two_at_a_time(lambda target=target: _record(target) for target in targets), strict=True))


def _shown(trace: Trace, name: str, target: str, kept: list[Regression]) -> list[Divergence]:
    cpu, errata = cpu_model(load_config(target).cpu), errata_of(kept, target)
    found = check(REGRESSIONS[name], trace, "spec", cpu, CATALOGUE, errata=errata).unexplained
    return [one for one in found if may_show(GIC_RULES, one, trace.events[one.event].context)]


@pytest.mark.parametrize("target", list_configs())
def test_each_shows_with_its_cause_and_with_no_other(recorded: Mapping[str, Mapping[str, Trace]], target: str) -> None:
    for name in SCENARIOS:
        rows = [row for row in FINDINGS if target in row.targets and name in row.scenarios]
        found = _shown(recorded[target][name], name, target, list(KEPT))
        assert {one.cause for one in found} == {row.id for row in rows}, name
        for one in found:
            plain = signature_text(signature(one._replace(cause="")))
            assert any(row.shows(plain, [difference(one)]) for row in rows if row.id == one.cause), (name, plain)


@pytest.mark.parametrize("target", next(row.targets for row in FINDINGS if row.id == ACTIVE_FILL_LISTS))
def test_without_its_row_a_finding_has_another_cause(recorded: Mapping[str, Mapping[str, Trace]], target: str) -> None:
    """The target has another finding with the same signatures."""
    others = [row for row in KEPT if row.id != ACTIVE_FILL_LISTS]
    found = _shown(recorded[target]["gic_five_active"], "gic_five_active", target, others)
    assert {one.cause for one in found} == {ANOTHER_CAUSE}
