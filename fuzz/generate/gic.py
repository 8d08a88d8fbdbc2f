# SPDX-License-Identifier: Apache-2.0
"""Generate steps in the VM with an in-kernel GICv3: configure, raise, acknowledge and end interrupts, send SGIs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from fuzz.generate.values import Weights
from harness.arch import exceptions
from harness.gic.registers import BANK_BY_NAME, FRAME, PRIVATE, REDISTRIBUTOR, SGIS
from harness.layout import CONTEXTS, GIC_INTERRUPTS, GIC_MACHINE, GICD, GICR
from harness.scenario.scenario import Step

VCPUS: tuple[str, ...] = tuple(c.name for c in CONTEXTS if c.machine == GIC_MACHINE)
DISTRIBUTOR, SGI_PAGE, VALUE, ACKNOWLEDGED = "x20", "x21", "x22", "x23"
"""Registers reserved for these steps: two bases, a value to write, an INTID."""
_W_VALUE = VALUE.replace("x", "w")

PRIORITIES = Weights((0x80, 40.0), (0x40, 20.0), (0xA0, 15.0), (0x00, 10.0), (0xF0, 10.0), (0x88, 5.0))
MASKS = Weights((0xF0, 60.0), (0xF8, 15.0), (0x80, 10.0), (0x40, 10.0), (0x00, 5.0))
SPIS = Weights((33, 30.0), (40, 25.0), (32, 20.0), (50, 15.0), (63, 10.0))
"""Only a few INTIDs, so that distant steps use the same interrupt."""
PRIVATES = Weights((1, 40.0), (16, 40.0), (15, 10.0), (20, 10.0))
UNMASKED = Weights((0x345, 80.0), (0x340, 10.0), (0x305, 10.0))
"""PSTATE with PSTATE.I clear: EL1h, EL0t, EL1h with PSTATE.F clear too."""
LAST = 60
"""Number of previous steps that are searched for the set-up of the VM."""

Act = Callable[[Random], list[Step]]


def _put(register: str, value: int) -> Step:
    return Step("set", (register, value))


def _store(kind: str, source: str, base: str, offset: int, value: int) -> list[Step]:
    return [_put(VALUE, value), Step(kind, (source, base, offset))]


def enable_interface(rng: Random, vcpu: int) -> list[Step]:
    """Enable the CPU interface of a vCPU, and set its base registers to the addresses of the GIC."""
    return [
        _put(DISTRIBUTOR, GICD.base),
        _put(SGI_PAGE, GICR.base + vcpu * REDISTRIBUTOR + FRAME),
        _put(VALUE, MASKS.pick(rng)),
        Step("msr", ("icc_pmr_el1", VALUE)),
        Step("msr", ("icc_ctlr_el1", VALUE if rng.random() < 0.2 else "xzr")),
        Step("movz", (VALUE, 1)),
        Step("msr", ("icc_igrpen1_el1", VALUE)),
        Step("hvc", (0,)),
    ]


def configure_spi(rng: Random) -> list[Step]:
    """Configure and enable an SPI: group 1, trigger mode, priority, routing."""
    intid = SPIS.pick(rng)
    word, bit = intid // 32 * 4, 1 << intid % 32
    edge, route = rng.random() < 0.4, int(rng.random() < 0.2)
    offset = {name: bank.offset for name, bank in BANK_BY_NAME.items()}
    return [
        *_store("str", _W_VALUE, DISTRIBUTOR, 0, 2),
        *_store("str", _W_VALUE, DISTRIBUTOR, offset["igroupr"] + word, 0xFFFF_FFFF),
        *_store("str", _W_VALUE, DISTRIBUTOR, offset["icfgr"] + intid // 16 * 4, edge * 2 << intid % 16 * 2),
        *_store("strb", _W_VALUE, DISTRIBUTOR, offset["ipriorityr"] + intid, PRIORITIES.pick(rng)),
        *_store("str", VALUE, DISTRIBUTOR, offset["irouter"] + 8 * intid, route),
        *_store("str", _W_VALUE, DISTRIBUTOR, offset["isenabler"] + word, bit),
    ]


def configure_private(rng: Random) -> list[Step]:
    """Configure and enable an SGI or a PPI of the vCPU."""
    intid = PRIVATES.pick(rng)
    offset = {name: bank.offset for name, bank in BANK_BY_NAME.items()}
    return [
        *_store("str", _W_VALUE, DISTRIBUTOR, 0, 2),
        *_store("str", _W_VALUE, SGI_PAGE, offset["igroupr"], 0xFFFF_FFFF),
        *_store("strb", _W_VALUE, SGI_PAGE, offset["ipriorityr"] + intid, PRIORITIES.pick(rng)),
        *_store("str", _W_VALUE, SGI_PAGE, offset["isenabler"], 1 << intid),
    ]


def drive_line(rng: Random) -> list[Step]:
    """Raise or lower an interrupt line; rarely one that does not exist."""
    level = int(rng.random() < 0.65)
    if rng.random() < 0.05:
        return [Step("gic_line", ("spi", int(rng.random() * 2 * GIC_INTERRUPTS), level))]
    if rng.random() < 0.75:
        return [Step("gic_line", ("spi", SPIS.pick(rng), level))]
    return [Step("gic_line", ("ppi", PRIVATES.pick(rng) if rng.random() < 0.7 else SGIS, level))]


def unmask(rng: Random) -> list[Step]:
    """Unmask interrupts, then trap, to observe whether one was taken."""
    return [_put("pstate", UNMASKED.pick(rng)), Step("hvc", (0,))]


def acknowledge(rng: Random) -> list[Step]:
    """Acknowledge an interrupt at EL1, and usually end it."""
    steps = [Step("mrs", (ACKNOWLEDGED, "icc_iar1_el1")), Step("msr", ("icc_eoir1_el1", ACKNOWLEDGED))]
    if rng.random() < 0.2:
        steps.append(Step("msr", ("icc_dir_el1", ACKNOWLEDGED)))
    elif rng.random() < 0.3:
        steps.pop()
    # Usually mask interrupts first: an interrupt that is taken at one of these instructions replaces it.
    begin = [_put("pstate", exceptions.EL1H | exceptions.DAIF), Step("hvc", (0,))] if rng.random() < 0.8 else []
    return [*begin, *steps, Step("hvc", (0,))]


def send_sgi(rng: Random) -> list[Step]:
    """Send an SGI to one of the vCPUs, or to all except the sender."""
    targets = 1 << 40 if rng.random() < 0.2 else 1 + int(rng.random() * 3)
    intid = PRIVATES.pick(rng) % SGIS
    return [_put(VALUE, targets | intid << 24), Step("msr", ("icc_sgi1r_el1", VALUE))]


def access_registers(rng: Random) -> list[Step]:
    """Read registers of the GIC, or write a bit of an interrupt."""
    names = tuple(BANK_BY_NAME)
    bank = BANK_BY_NAME[names[int(rng.random() * len(names))]]
    intid = SPIS.pick(rng) if rng.random() < 0.7 or not bank.private else PRIVATES.pick(rng)
    base = DISTRIBUTOR if intid >= PRIVATE else SGI_PAGE
    kind, width = {8: ("b", 8), 64: ("", 64)}.get(bank.bits, ("", 32))
    offset = bank.offset + intid * bank.bits // width * (width // 8)
    register = VALUE if width == 64 else _W_VALUE
    if rng.random() < 0.6:
        return [Step(f"ldr{kind}", (register, base, offset))]
    return _store(f"str{kind}", register, base, offset, 1 << intid * bank.bits % width)


def write_cpu_interface(rng: Random) -> list[Step]:
    """Write a register of the CPU interface."""
    name, value = (("icc_pmr_el1", MASKS.pick(rng)), ("icc_igrpen1_el1", rng.getrandbits(1)))[rng.getrandbits(1)]
    return [Step("movz", (VALUE, value)), Step("msr", (name, VALUE)), Step("hvc", (0,))]


ACTS: Weights[Act] = Weights(
    (drive_line, 30.0),
    (unmask, 22.0),
    (acknowledge, 22.0),
    (send_sgi, 10.0),
    (access_registers, 10.0),
    (write_cpu_interface, 4.0),
    (configure_spi, 4.0),
)


def gic_interrupts(rng: Random, before: Sequence[Step]) -> list[Step]:
    """Switch to a vCPU of the VM with a GIC, configure the GIC if necessary, and generate some interrupts."""
    names = [str(step.args[0]) for step in before if step.kind == "vcpu"]
    name = VCPUS[int(rng.random() < 0.3)]
    steps = [] if names and names[-1] == name else [Step("vcpu", (name,))]
    recent = any(step.kind == "gic_line" for step in before[-LAST:])
    if name not in names or not recent:
        steps += enable_interface(rng, VCPUS.index(name))
        steps += configure_spi(rng) if rng.random() < 0.8 else configure_private(rng)
    elif rng.random() < 0.15:
        steps += configure_private(rng)
    for _ in range(2 + rng.getrandbits(2)):
        steps += ACTS.pick(rng)(rng)
    return steps if rng.random() < 0.6 else [*steps, Step("vcpu", (CONTEXTS[0].name,)), Step("hvc", (0,))]
