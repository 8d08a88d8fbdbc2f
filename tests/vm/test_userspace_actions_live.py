# SPDX-License-Identifier: Apache-2.0
"""Whatever userspace does between two runs of a guest, in any order: what differs is an erratum, and nothing is new.

KVM may take an exception that userspace asks for at once or later, complete an access before or after it, and errata
change both (:mod:`harness.relations.userspace_actions`).  Mutated scenarios of a campaign rarely have many such actions
in one round, so that mistakes of the checker show after minutes; these have nothing else.
"""

from __future__ import annotations

import random

import pytest

from fuzz.paths import KEPT
from fuzz.targets.options import TargetOptions
from fuzz.targets.target_set import open_targets
from harness.findings.checked import signature
from harness.findings.finding import difference, place_text
from harness.findings.regressions import explaining, load_regressions
from harness.scenario.scenario import Scenario, format_scenario, parse
from harness.vm.config import list_configs

SCENARIOS = 250
GUEST = (
    *("strb w0, [x1]", "ldr x0, [x1]", "ldrsb x3, [x1]", "ldrsh w5, [x1]"),  # an MMIO access, all of one address
    *("wfi", "hvc 0x0", "mrs x4, id_isar0_el1", "br x12"),
)
HOST = (
    *("serror 0x0", "abort", "finish", "reset", "complete 0x80", "debug step", "debug off", "vcpu 0.0"),
    *("irq_line fiq 0x1", "irq_line fiq 0x0", "set vbar_el1 0x40000000", "set vbar_el1 0x40010000"),
    *("set pstate 0x0", "set pstate 0x3c5", "set pstate 0x2c5", "set pstate 0x10", "set pstate 0x30"),
    *("set pc 0x40000100", "set pc 0x1010000000", "set sctlr_el1 0x30d00800", "set sp_el1 0x55"),
    *("set esr_el1 0x77", "set far_el1 0x88", "set elr_el1 0x44", "set spsr_el1 0x3c4"),
    *("set x0 0x1234567890", "set x3 0x99"),
)
PSTATES = ("0x3c5", "0x2c5", "0x0", "0x3c4", "0x2c4", "0x200000", "0x30", "0x10")


def scenario(rng: random.Random) -> Scenario:
    """Return one to three guest instructions, each followed by up to eight actions of userspace."""
    lines = ["shadowfuzz-scenario 1", "about Userspace's actions.", "reg x1 0x9000000", "reg x12 0x40000000"]
    lines.append(f"reg pstate {rng.choice(PSTATES)}")
    for _ in range(rng.randrange(1, 4)):
        lines += [rng.choice(GUEST), *(rng.choice(HOST) for _ in range(rng.randrange(9)))]
    return parse("\n".join([*lines, "hvc 0x0", ""]).encode())


@pytest.mark.parametrize("target", list_configs())
def test_nothing_is_new_whatever_userspace_does(target: str) -> None:
    rng, kept = random.Random(f"actions of {target}"), load_regressions(KEPT)
    causes: set[str] = set()
    with open_targets(TargetOptions(target, "spec")) as targets:
        for _ in range(SCENARIOS):
            tried = scenario(rng)
            for one in targets.run_and_check(tried).checked.unexplained:
                at = place_text(signature(one)), one.cause
                assert explaining(kept, target, at, (difference(one),)), (format_scenario(tried), one)
                causes.add(one.cause)
    assert len(causes) >= 3, "errata meet"
