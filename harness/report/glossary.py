# SPDX-License-Identifier: Apache-2.0
"""How to read a report, for somebody who has nothing else: relations, verdicts, a finding in words."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.arch.exits import EXCEPTION_CLASSES
from harness.findings.finding import Finding
from harness.relations.registry import WORDS

ABOUT = (
    "shadowfuzz runs small guests on real KVM and records the registers at every exit of the guest to KVM and every "
    "entry back into it. Each record is compared with the architecture and with a model of SeKVM's verified layer. "
    "What differs, and what nothing on record explains, is a finding."
)

LIKE = (
    "A kept finding (corpus/regressions) that has a rule is an erratum: its rule predicts, bit for bit, what a kernel "
    "with it does. A finding is new if no erratum of its target predicts what was observed. Where no rule applies, a "
    "finding is like a kept one if it has the same relation, register class, exit class and helper; its cause may be "
    "another one. New findings that probably have one cause are one problem."
)

VERDICTS: Mapping[str, str] = MappingProxyType(
    {
        "kvm": "KVM does what the architecture, PSCI, SMCCC or its own interface forbids.",
        "convention": "KVM leaves a convention of Linux; neither the architecture nor its own interface is broken.",
        "model": "A level of the proof is wrong about KVM, or about the deployed code.",
        "abstraction": "The model speaks of less than KVM does; explained to the bit, and no finding.",
        "emulator": "QEMU's doing: it goes away with another version or CPU model.",
        "unexplained": "Nothing on record explains it: somebody has to look.",
        "flaky": "It did not come back often enough when the same scenario was run again.",
        "crash": "The target was lost: a panic, a hang, or QEMU itself died.",
        "alarm": "The target's own kernel complained in its log: a WARN, its lock checker, a stall, a taint.",
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
