# SPDX-License-Identifier: Apache-2.0
"""A GIC with an enabled SPI, and a scenario of the VM with a GIC."""

from __future__ import annotations

from harness import protocol
from harness.arch.a64 import encode
from harness.arch.cpu_models import cpu_model
from harness.findings.known_divergences import Catalogue
from harness.gic.distributor import Gic
from harness.layout import CODE, CONTEXTS, GIC_MACHINE, GICD
from harness.scenario.code_layout import base_of
from harness.scenario.scenario import parse
from harness.vm.config import PROJECT

CPU = cpu_model("cortex-a72")

AT = CODE.base

VCPU = next(i for i, c in enumerate(CONTEXTS) if c.machine == GIC_MACHINE)

MARKS = VCPU << protocol.FLAGS_VCPU_SHIFT

HVC = encode("hvc", 0)

CATALOGUE = Catalogue.load(PROJECT / "corpus" / "known", "spec")


def spi(gic: Gic, intid: int, priority: int = 0x80, *, edge: bool = False, route: int = 0) -> None:
    """Enable an SPI, as a guest does."""
    gic.write(GICD.base, 4, 2)
    gic.write(GICD.base + 0x80 + intid // 32 * 4, 4, 0xFFFF_FFFF)
    gic.write(GICD.base + 0xC00 + intid // 16 * 4, 4, edge * 2 << intid % 16 * 2)
    gic.write(GICD.base + 0x400 + intid, 1, priority)
    gic.write(GICD.base + 0x6000 + 8 * intid, 8, route)
    gic.write(GICD.base + 0x100 + intid // 32 * 4, 4, 1 << intid % 32)


def opened(gic: Gic, vcpu: int = 0, mask: int = 0xF0) -> None:
    """Enable interrupts of a vCPU's CPU interface."""
    interface = gic.interfaces[vcpu]
    for name, value in (("icc_pmr_el1", mask), ("icc_igrpen1_el1", 1), ("icc_ctlr_el1", 0)):
        interface.write(name, value)


def made(*, edge: bool = False, raised: bool = True) -> Gic:
    """Return a GIC whose SPI 40 is enabled and routed to vCPU 0."""
    gic = Gic(2)
    opened(gic)
    spi(gic, 40, edge=edge)
    if raised:
        gic.irq(0, 40).set_line(True)
    return gic


SCENARIO = parse("shadowfuzz-scenario 1\nabout x\nhvc 0x0\nvcpu 2.0\nldr w3, [x1]\nhvc 0x0\n")

HERE = base_of(VCPU)
