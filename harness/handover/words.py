# SPDX-License-Identifier: Apache-2.0
"""Describe targets for a reader without shadowfuzz: the kernel's release, and KVM's mode."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from harness.arch.exits import EXCEPTION_CLASSES

MODES: Mapping[str, str] = MappingProxyType({"nvhe": "nVHE", "vhe": "VHE", "protected": "protected mode"})
"""The modes of KVM by the last part of a target's name."""
_TARGET = re.compile(r"\bkvm-(?:(\d+\.\d+)-)?(nvhe|vhe|protected)(?:@([\d.]+)[\w.+~-]*)?")
_DEFAULT = "6.1"


def mode_of(target: str) -> str:
    """Return KVM's mode on a target; for a target that is not the project's, its name."""
    found = _TARGET.match(target)
    return target if found is None else MODES[found[2]]


def without_targets(text: str) -> str:
    """Replace the project's targets in a text by releases and modes."""
    return _TARGET.sub(lambda found: f"{(found[3] or found[1] or _DEFAULT).rstrip('.')} ({MODES[found[2]]})", text)


_EXITS: Mapping[str, str] = MappingProxyType({row.name: row.what for row in EXCEPTION_CLASSES})


def exit_in_words(exit_class: str) -> str:
    """Return the beginning of a sentence about an event after an exit of a class."""
    if exit_class == "RESET":
        return "After a reset (KVM_ARM_VCPU_INIT or PSCI CPU_ON)"
    if exit_class == "FIRST":
        return "Before the first entry"
    what = _EXITS.get(exit_class.rpartition(":")[2], exit_class)
    return f"After an exit ({what})"
