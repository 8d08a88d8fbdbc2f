# SPDX-License-Identifier: Apache-2.0
"""When a rule of the host's contract counts as exercised."""

from __future__ import annotations

from harness.arch.exits import EC_BY_NAME, EC_SHIFT, IL_BIT
from harness.coverage.exercised_rules import exercised_rules
from harness.findings.checked import Comparison
from harness.layout import CODE
from harness.scenario.scenario import parse
from tests.support import traces

HVC = EC_BY_NAME["HVC64"] << EC_SHIFT | IL_BIT


def _rules(*compared: Comparison, steps: str = "hvc 0x0", host: bool = False) -> frozenset[str]:
    """A PSCI_VERSION call; with ``host``, its result is overwritten before anybody sees it."""
    start = traces.but(traces.state(), x0=0x8400_0000)
    behind = traces.but(start, pc=CODE.base + 4)
    answered = traces.but(behind, x0=0 if host else 0x10001, x1=0, x2=0, x3=0)
    written = [traces.host_set("x0", 0)] if host else []
    events = (traces.entry(start), traces.trap(behind, HVC), *written, traces.entry(answered), traces.irq(answered))
    scenario = parse(f"shadowfuzz-scenario 1\nabout A test.\n{steps}\n")
    return exercised_rules(scenario, traces.indexed(events), compared)


def test_a_rule_counts_where_it_was_compared() -> None:
    assert "call.PSCI_VERSION" in _rules(Comparison("host", 1))
    assert "call.PSCI_VERSION" not in _rules()
    assert "call.PSCI_VERSION" not in _rules(Comparison("host", 1), Comparison("host", 1, "not determined"))


def test_a_result_that_nobody_saw_is_no_exercise() -> None:
    found = _rules(Comparison("host", 1), host=True)
    assert "call.PSCI_VERSION" not in found
    assert "host.set" in found


def _fetch_outside(address: int) -> frozenset[str]:
    """A fetch outside every memory slot, for which KVM injects an abort."""
    start = traces.but(traces.state(), pc=address)
    aborted = traces.trap(
        start, EC_BY_NAME["IABT_LOW"] << EC_SHIFT | IL_BIT | 0x5, far=address, hpfar=address >> 12 << 4
    )
    events = (traces.entry(start), aborted, traces.entry(start), traces.irq(start))
    scenario = parse("shadowfuzz-scenario 1\nabout A test.\nbr x1\n")
    return exercised_rules(scenario, traces.indexed(events), (Comparison("host", 1),))


def test_an_abort_in_the_place_of_an_alignment_fault_is_the_emulators() -> None:
    assert "abort.fetch" in _fetch_outside(0x900_0000)
    assert "abort.fetch" not in _fetch_outside(0x900_0002)
