# SPDX-License-Identifier: Apache-2.0
"""Scenarios whose guests make no progress, for different reasons, and one whose guest leaves its code."""

from __future__ import annotations

from collections.abc import Mapping

from harness.scenario.scenario import Scenario, parse

STORM = parse(
    b"""shadowfuzz-scenario 1
about No address is translated, that of the vector neither: every fetch faults, and no instruction is executed.
reg tcr_el1 0x800080
reg sctlr_el1 0xc50079
hvc 0x0
hvc 0x0
wfi
"""
)
UNDEFINED = parse(
    b"""shadowfuzz-scenario 1
about The vector is in RAM full of zeros, which are no instruction; the first fetch there exits, the second does not.
reg vbar_el1 0x40020000
hvc 0x0
udf 0x0
udf 0x0
wfi
"""
)
ROUND = parse(
    b"""shadowfuzz-scenario 1
about The guest branches back to its first instruction without end.
reg x20 0x40000000
hvc 0x0
br x20
wfi
"""
)
RUNAWAYS: Mapping[str, Scenario] = {"storm": STORM, "undefined": UNDEFINED, "round": ROUND}
WALK = parse(
    b"""shadowfuzz-scenario 1
about The second vCPU goes where there is no code of anybody, below its own: what fills that traps for 8 KiB.
hvc 0x0
vcpu 0.1
set x20 0x40001000
hvc 0x0
br x20
hvc 0x1
wfi
"""
)
