# SPDX-License-Identifier: Apache-2.0
"""Explain how to read a report, for readers without other documents: relations, verdicts, a finding in words."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.arch.exits import EXCEPTION_CLASSES
from harness.findings.finding import Finding
from harness.relations.registry import WORDS

ABOUT = (
    "shadowfuzz runs small guests on real KVM and records the registers at every exit of the guest to KVM and every "
    "entry back into it. Each record is compared with the architecture and with a model of SeKVM's verified layer. "
    "A difference that no entry on record explains is a finding."
)

LIKE = (
    "A kept finding (corpus/regressions) that has a rule is an erratum: its rule predicts, bit for bit, the behaviour "
    "of a kernel with it. A finding is new if no erratum of its target predicts the observed value. If no "
    "rule applies, a finding is like a kept one if it has the same relation, register class, exit class and "
    "helper; its cause may be different. New findings that probably have one cause are one problem."
)

VERDICTS: Mapping[str, str] = MappingProxyType(
    {
        "kvm": "KVM violates the architecture, PSCI, SMCCC or its own API.",
        "convention": "KVM violates a convention of Linux, but neither the architecture nor its own API.",
        "model": "A level of the proof is wrong about KVM, or about the deployed code.",
        "abstraction": "The model covers less than KVM; explained to the bit, and not a finding.",
        "emulator": "Caused by QEMU: it does not occur with another version or CPU model.",
        "unexplained": "No entry on record explains it: it must be analysed.",
        "flaky": "It was not reproduced often enough when the same scenario was run again.",
        "crash": "The target was lost: a panic, a hang, or QEMU itself died.",
        "alarm": "The log of the target's kernel has an alarm: a WARN, a lockdep report, a stall, a taint.",
        "internal": "shadowfuzz itself failed; the finding has the traceback.",
    }
)


_CLASSES: Mapping[str, str] = MappingProxyType({row.name: row.what for row in EXCEPTION_CLASSES})


def _meaning(exit_class: str) -> str:
    what = _CLASSES.get(exit_class.rpartition(":")[2])  # forged exits have a prefix
    return f" ({what})" if what else ""


def in_words(finding: Finding) -> str:
    """Return a divergence as a sentence; empty if there is none, or if its relation has no sentence."""
    if not finding.divergences or finding.other is not None:
        return ""
    first = finding.divergences[0]
    words = WORDS.get(first.relation)
    if words is None:
        return ""
    return words.sentence.format(
        exit=f"{first.exit_class}{_meaning(first.exit_class)}",
        register=first.register,
        observed=first.observed,
        expected=first.expected,
        helper=f" ({first.helper})" if first.helper else "",
    )
