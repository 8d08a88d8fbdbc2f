# SPDX-License-Identifier: Apache-2.0
"""Results of minimisation on real KVM: the final text of each finding, for any start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fuzz.targets.observation import signatures
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import PreparedTargets, open_targets
from fuzz.triage.minimise import choose_signature, minimise_on
from harness.scenario.scenario import format_scenario, load
from harness.vm.config import PROJECT

LEAST: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    # regression, signature to keep, the remaining lines
    ("mmio_load_signed_byte_x", "host.xN/DABT_LOW", ("ldrsb x0, [x0]", "complete 0x80")),
    ("long_mixture_mmio_hvc", "host.xN/DABT_LOW", ("ldrsb x0, [x0]", "complete 0x80")),
    (
        "reset_then_stale_completion",
        "restore.xN/RESET/prep_abort.mmio",
        ("ldrb w0, [x0]", "complete 0x1", "reset", "set pc 0x40000000"),
    ),
    ("reset_twice", "host.elr_el1/RESET", ("reg x0 0x1", "br x0", "reset")),
)


@pytest.fixture(scope="module")
def targets() -> Iterator[PreparedTargets]:
    with open_targets(TargetOptions("kvm-nvhe", "spec")) as targets:
        yield targets


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("name", "wanted", "lines"), LEAST, ids=[name for name, _, _ in LEAST])
def test_a_finding_ends_at(targets: PreparedTargets, name: str, wanted: str, lines: tuple[str, ...]) -> None:
    scenario = load(PROJECT / "corpus" / "regressions" / f"{name}.scn")
    checked = targets.run_and_check(scenario).checked
    least = minimise_on(targets, scenario, choose_signature(signatures(checked), wanted, name))
    assert tuple(format_scenario(least.scenario).splitlines()[2:]) == lines
    assert least.confirmed
    assert least.tries < 1000
