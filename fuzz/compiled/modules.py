# SPDX-License-Identifier: Apache-2.0
"""Which modules are compiled, and the key of a build: a hash of all that can change what it does."""

from __future__ import annotations

import hashlib
import platform
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2]
"""The directory of the packages that are imported."""

RECIPE = "1"
"""How :mod:`fuzz.compiled.build` works: another number, and what was built is built again."""
MODULES: tuple[str, ...] = (
    "harness.arch.a64",
    "harness.arch.exceptions",
    "harness.arch.exits",
    "harness.findings.attribution",
    "harness.findings.check",
    "harness.findings.check_again",
    "harness.findings.checked",
    "harness.findings.explanations",
    "harness.findings.known_divergences",
    "harness.gic.distributor",
    "harness.guest.context",
    "harness.guest.debug_stops",
    "harness.guest.execute",
    "harness.guest.instruction_fetch",
    "harness.guest.load_store",
    "harness.guest.memory",
    "harness.guest.mmu",
    "harness.guest.predict_run",
    "harness.guest.stage1",
    "harness.guest.stage1_faults",
    "harness.guest.syndrome",
    "harness.guest.walk",
    "harness.relations.basis",
    "harness.relations.contract",
    "harness.relations.contract_rules",
    "harness.relations.debug_registers",
    "harness.relations.divergence",
    "harness.relations.errata",
    "harness.relations.evidence",
    "harness.relations.exit_handling",
    "harness.relations.expected_outcome",
    "harness.relations.expected_state",
    "harness.relations.fp_simd",
    "harness.relations.gic",
    "harness.relations.guest_debug",
    "harness.relations.host",
    "harness.relations.mmio",
    "harness.relations.save_restore",
    "harness.relations.switch",
    "harness.relations.userspace_actions",
    "harness.scenario.agent_operations",
    "harness.scenario.agent_program",
    "harness.scenario.code_layout",
    "harness.trace.debug_state",
    "harness.trace.decode",
    "harness.trace.environment",
    "harness.trace.events",
    "harness.trace.indexed",
    "harness.trace.pending",
    "harness.trace.rounds",
    "harness.trace.slot_timeline",
)
"""What is compiled: where a check spends its time.

Not :mod:`harness.model`, whose levels also run over numbers that are no ``int`` (:mod:`harness.model.memoised_replay`,
:mod:`harness.lemma.symbolic`), and no module that mypyc does not translate (a generic dataclass with slots).
"""

ROOMS: tuple[str, ...] = (
    "harness",
    *(f"harness/{room}" for room in ("arch", "gic", "scenario", "trace", "guest", "model", "relations", "findings")),
)
"""The directories of all modules of this project that those of :data:`MODULES` import, directly or not."""


def key_of(sources: Path = SOURCES) -> str:
    """Return the key of a build of these sources for this Python.  OSError: they cannot be read."""
    digest = hashlib.sha256(f"{RECIPE} {' '.join(MODULES)}\n{sys.version}\n{platform.machine()}\n".encode())
    for room in ROOMS:
        for path in sorted((sources / room).glob("*.py")):
            data = path.read_bytes()
            digest.update(f"{room}/{path.name} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:16]
