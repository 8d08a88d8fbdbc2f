# SPDX-License-Identifier: Apache-2.0
"""List the rules of errata about a GIC: the point of the model where each applies, and its divergences.

The code is in :mod:`harness.gic` under the rule's name (:mod:`harness.gic.departures`), that of the shared interface in
:mod:`harness.relations.shared_interface`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import NamedTuple

from harness.gic.departures import ACTIVE_FILL_LISTS, COMES_AFTER_END, ENABLE_LOSES, SHARED_INTERFACE
from harness.layout import CONTEXTS, GIC_MACHINE
from harness.relations import shared_interface
from harness.relations.divergence import Divergence


class GicRule(NamedTuple):
    """Where a rule applies, and what the kernel does there.

    The erratum may cause divergences with these names (patterns), of vCPUs with a GIC or (``with_gic`` is false)
    without one.
    """

    shows: tuple[str, ...]
    with_gic: bool
    point: str
    does: str


_OF_THE_GIC = (
    *("host.gic_list", "host.gic_read", "host.ich_*", "switch.ich_*", "switch.x*", "switch.v*"),
    *(f"switch.{name}" for name in ("pc", "pstate", "elr_el1", "spsr_el1", "esr_el1", "far_el1")),
    *(f"switch.{name}" for name in ("esr_el2", "far_el2", "hpfar_el2")),
)
"""Divergences of a guest that is interrupted or is not, and of its view of the GIC.

Not HCR_EL2: its virtual interrupts do not come from a GIC.
"""
GIC_RULES: Mapping[str, GicRule] = MappingProxyType(
    {
        ENABLE_LOSES: GicRule(
            _OF_THE_GIC,
            True,
            "GICD_CTLR.EnableGrp1 is written, or an exit while it is 0",
            "an interrupt is presented only if it is on its vCPU's list: a write to GICD_CTLR puts none there; at an "
            "exit while the distributor is disabled all but active ones are taken off; where one is raised, enabled or "
            "made pending it is put there, if it is to be presented then",
        ),
        COMES_AFTER_END: GicRule(
            _OF_THE_GIC,
            True,
            "a list register of an active, edge-triggered interrupt that is pending and not forwarded",
            "it is pending, too, so that the end of the active half signals the interrupt at once",
        ),
        ACTIVE_FILL_LISTS: GicRule(
            _OF_THE_GIC,
            True,
            "an entry with as many active interrupts as list registers",
            "no other interrupt is presented, whatever its priority",
        ),
        SHARED_INTERFACE: GicRule(
            tuple(f"isolate.{name}" for name in sorted(shared_interface.NAMES)),
            False,
            "ICC_* of a VM without in-kernel GIC",
            "all such VMs access one ICH_VMCR_EL2, which has what they or a VM with a GIC left there",
        ),
    }
)
"""By the id of the kept finding."""


def may_show(rules: Iterable[str], divergence: Divergence, context: int) -> bool:
    """Whether one of the rules may be the cause of a divergence of the vCPU with this context."""
    with_gic = CONTEXTS[context].machine == GIC_MACHINE
    return any(
        rule.with_gic == with_gic and any(fnmatchcase(divergence.name, pattern) for pattern in rule.shows)
        for rule in (GIC_RULES[name] for name in rules)
    )
