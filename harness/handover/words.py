# SPDX-License-Identifier: Apache-2.0
"""Targets in words that a reader without shadowfuzz knows: the kernel's release, and how KVM runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

MODES: Mapping[str, str] = MappingProxyType({"nvhe": "nVHE", "vhe": "VHE", "protected": "protected mode"})
"""The modes of KVM by the last part of a target's name."""
_TARGET = re.compile(r"\bkvm-(?:(\d+\.\d+)-)?(nvhe|vhe|protected)(?:@([\d.]+)[\w.+~-]*)?")
_DEFAULT = "6.1"


def mode_of(target: str) -> str:
    """Return how KVM runs on a target; of one that is none of the project's, its name."""
    found = _TARGET.match(target)
    return target if found is None else MODES[found[2]]


def without_targets(text: str) -> str:
    """Return a text with the project's targets as releases and modes."""
    return _TARGET.sub(lambda found: f"{(found[3] or found[1] or _DEFAULT).rstrip('.')} ({MODES[found[2]]})", text)
