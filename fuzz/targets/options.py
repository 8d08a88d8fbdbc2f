# SPDX-License-Identifier: Apache-2.0
"""The options of one target or two: names, level, kernel, kind of machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """One target, or two with ``against``.

    ``level`` is the level of the model that traces are compared with.  ``kernel`` is an image for the first target
    (None: its own).  ``cold``: every machine boots in full, instead of being a clone of a saved one.
    ``deterministic``: the same scenarios give the same traces.  ``hyp_copy``: also compare the hypervisor's own vCPUs;
    None: if the target has them.  ``fast_qemu``: run on the fast QEMU, if there is one; None: if the target's file says
    so.
    """

    target: str
    level: str
    kernel: Path | None = None
    against: str | None = None
    cold: bool = False
    deterministic: bool = False
    hyp_copy: bool | None = False
    fast_qemu: bool | None = False

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the targets as given, one or two."""
        return (self.target,) if self.against is None else (self.target, self.against)
