# SPDX-License-Identifier: Apache-2.0
"""Classify what a divergence violates: a requirement of the architecture, the KVM API, or a convention of Linux."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

from harness.arch import reset_values
from harness.arch.registers import BY_ONE_REG, INDEX, STATE
from harness.protocol import OP_ABORT, OP_RESET, OP_SERROR, OP_SET
from harness.relations.divergence import Divergence
from harness.trace.rounds import Round

ARCHITECTURE: Final = "requirement of the architecture"
"""Arm ARM, GIC (IHI 0069)."""
API: Final = "requirement of the KVM API"
"""With PSCI (DEN 0022), SMCCC (DEN 0028) and the documents in Documentation/virt/kvm."""
CONVENTION: Final = "convention of Linux"
"""Another kernel may differ here without a violation of either."""
BASES: Final[tuple[str, ...]] = (ARCHITECTURE, API, CONVENTION)

_BY_NAME: Final[tuple[tuple[str, str], ...]] = (
    # Divergences that no register of a round decides; the first pattern that fits.
    ("switch.*", ARCHITECTURE),
    ("isolate.*", ARCHITECTURE),
    ("host.gic_line", API),
    ("host.gic*", ARCHITECTURE),
    ("host.ich_*", ARCHITECTURE),
    ("host.mmio_*", API),
    ("host.debug_*", API),
    ("host.dbg*", API),
    *((f"host.{name}", API) for name in ("step_begins", "exit_reason", "mdcr_el2", "slot", "write", "hcr_el2")),
)
_OF_AN_EXCEPTION: Final = frozenset({"esr_el1", "far_el1", "elr_el1", "spsr_el1"})
_CALLS: Final = frozenset({"HVC64", "HVC32", "SMC64", "SMC32"})
_UNKNOWN: Final = frozenset(
    row.name
    for row in STATE
    if row.kept_by_reset or reset_values.RESET_VALUES.get(row.name) == reset_values.UNKNOWN_RESET
)
"""Registers that the architecture leaves UNKNOWN after a reset; KVM's value is its own (sys_regs.c, reset_unknown)."""


@lru_cache(maxsize=1024)
def _named(name: str) -> str:
    """Return the basis that the name of a divergence alone decides, empty if it does not."""
    return next((basis for pattern, basis in _BY_NAME if fnmatchcase(name, pattern)), "")


def basis_of(divergence: Divergence, round_: Round | None = None) -> str:
    """Return which of :data:`BASES` a divergence violates; empty: it is one from the model or from another target.

    ``round_`` is that of a divergence of ``host.<register>``.
    """
    known = _named(divergence.name)
    if known or divergence.relation != "host" or round_ is None:
        return known
    if round_.reset:
        return _of_a_reset(divergence, round_)
    written = INDEX.get(divergence.register) in round_.host_wrote
    return API if written or round_.reported_mmio or round_.exit_class in _CALLS else ARCHITECTURE


def _asks_for_an_exception(round_: Round) -> bool:
    """Whether userspace asked for an exception after the last reset of a round."""
    last = max((i for i, host in enumerate(round_.host_actions) if host.op == OP_RESET), default=-1)
    return any(host.op in (OP_ABORT, OP_SERROR) and not host.error for host in round_.host_actions[last + 1 :])


def _of_a_reset(divergence: Divergence, round_: Round) -> str:
    """Return the basis for a reset vCPU: it holds reset values only (KVM API 4.82); KVM may choose an UNKNOWN value.

    An exception that userspace asked for after the reset gives its registers their values (Arm ARM D1.3).
    """
    if divergence.register in _OF_AN_EXCEPTION and _asks_for_an_exception(round_):
        return ARCHITECTURE
    index = INDEX.get(divergence.register)
    if index is None or divergence.register not in _UNKNOWN or index in round_.host_wrote:
        return API
    before = {switch.values[index] for switch in (*round_.userspace_exits, round_.exit) if switch is not None}
    for host in round_.host_actions:
        if host.op == OP_RESET:
            break
        if host.op == OP_SET and BY_ONE_REG.get(host.a) == index:
            before.add(host.b)
    return API if divergence.observed in before else CONVENTION
