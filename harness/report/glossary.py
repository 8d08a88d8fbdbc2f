# SPDX-License-Identifier: Apache-2.0
"""How to read a report, for somebody who has nothing else: relations, verdicts, a finding in words."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.arch.exits import EXCEPTION_CLASSES
from harness.findings.finding import Finding

ABOUT = (
    "shadowfuzz runs small guests on real KVM and records the registers at every exit of the guest to KVM and every "
    "entry back into it. Each record is compared with the architecture and with a model of SeKVM's verified layer. "
    "What differs, and what nothing on record explains, is a finding."
)

LIKE = (
    "A finding is new if no regression that the project keeps (corpus/regressions) shows its relation, register class, "
    "exit class and helper on its target. One that is like a kept regression is a finding all the same, and may have "
    "another cause."
)

RELATIONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        # Relation: what it compares, and a sentence about one divergence.
        "host": (
            "what the guest has after an entry, with what the architecture, PSCI, SMCCC and KVM's API owe it",
            "After an exit of class {exit} the guest's {register} is {observed}. "
            "The architecture, PSCI, SMCCC or KVM's API owes it {expected}.",
        ),
        "restore": (
            "what the guest has after an entry, with what the model of the verified layer predicts",
            "After an exit of class {exit} the guest's {register} is {observed}. "
            "The model predicts {expected}{helper}.",
        ),
        "switch": (
            "what an exit finds, with what KVM loaded at the entry before; no model is asked",
            "At an exit of class {exit} {register} is {observed}. "
            "What KVM had loaded at the entry leads to {expected}.",
        ),
        "save": (
            "what KVM does between an exit and the next entry, with what the model decides there",
            "At an exit of class {exit} KVM's {register} is {observed}. The model decides {expected}{helper}.",
        ),
        "flush": (
            "what the hypervisor is about to load, in its own copy of the vCPU, with what the host handed over",
            "Before the run that ends with an exit of class {exit} the hypervisor's {register} is {observed}. "
            "The host handed over {expected}.",
        ),
        "sync": (
            "what the host gets at an exit, with what the hypervisor saved, in its own copy of the vCPU",
            "At an exit of class {exit} the host's {register} is {observed}. The hypervisor saved {expected}.",
        ),
        "isolate": (
            "a vCPU's registers, with what they were when another vCPU was run in between",
            "Another vCPU ran, and {register} went from {expected} to {observed}.",
        ),
    }
)

VERDICTS: Mapping[str, str] = MappingProxyType(
    {
        "kvm": "KVM does what the architecture, PSCI, SMCCC or its own interface forbids.",
        "model": "A level of the proof is wrong about KVM, or about the deployed code.",
        "abstraction": "The model speaks of less than KVM does; explained to the bit, and no finding.",
        "emulator": "QEMU's doing: it goes away with another version or CPU model.",
        "unexplained": "Nothing on record explains it: somebody has to look.",
        "flaky": "It did not come back often enough when the same scenario was run again.",
        "crash": "The target was lost: a panic, a hang, or QEMU itself died.",
        "internal": "shadowfuzz itself failed; the finding has the traceback.",
    }
)


_CLASSES: Mapping[str, str] = MappingProxyType({row.name: row.what for row in EXCEPTION_CLASSES})


def _meaning(exit_class: str) -> str:
    what = _CLASSES.get(exit_class.rpartition(":")[2])  # forged exits have a prefix
    return f" ({what})" if what else ""


def in_words(finding: Finding) -> str:
    """Return a divergence as a sentence, empty if there is none or of a relation without one."""
    if not finding.divergences or finding.other is not None:
        return ""
    first = finding.divergences[0]
    words = RELATIONS.get(first.relation, ("", ""))[1]
    return words.format(
        exit=f"{first.exit_class}{_meaning(first.exit_class)}",
        register=first.register,
        observed=first.observed,
        expected=first.expected,
        helper=f" ({first.helper})" if first.helper else "",
    )
