# SPDX-License-Identifier: Apache-2.0
"""Generate writes of registers that KVM may not switch, in one VM between two reads in another VM.

The relation is :mod:`harness.relations.isolate_unswitched`.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from fuzz.generate.values import register_value
from harness.arch.sysregs import KEEPERS
from harness.layout import CONTEXTS, GIC_MACHINE, NISV_MACHINE
from harness.scenario.scenario import Step

NAMES: tuple[str, ...] = tuple(sorted(KEEPERS))
ME = CONTEXTS[0].name
OTHERS: tuple[str, ...] = tuple(c.name for c in CONTEXTS if c.machine in (NISV_MACHINE, GIC_MACHINE) and not c.vcpu)
CALL = Step("hvc", (0,))


def unswitched_register(rng: Random, _: Sequence[Step]) -> list[Step]:
    """Return steps that read a register, write it in another VM, and read it again."""
    name, other = NAMES[int(rng.random() * len(NAMES))], OTHERS[int(rng.random() * len(OTHERS))]
    source, target = f"x{10 + rng.getrandbits(3)}", f"x{20 + rng.getrandbits(3)}"
    read = [Step("mrs", (target, name)), CALL]
    value = rng.getrandbits(8) if rng.random() < 0.8 else register_value(rng, name)
    write = [Step("vcpu", (other,)), Step("set", (source, value)), CALL, Step("msr", (name, source)), CALL]
    return [*read, *write, Step("vcpu", (ME,)), *read]
