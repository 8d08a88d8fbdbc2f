# SPDX-License-Identifier: Apache-2.0
"""Which target or two to run on, and how their machines are made, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """One target, or two with ``against``.

    ``level`` is the level of the model that traces are compared with.  ``kernel`` is an image for the first target
    (None: its own).  ``cold``: every machine boots in full, none is a clone of a saved one.  ``deterministic``
    machines do the same after the same scenarios.  ``hyp_copy``: compare the hypervisor's own vCPUs, too; None: where
    a target has any.  ``fast_qemu``: run on the fast QEMU, if there is one; None: where the target's file says so.
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
        """The names of the targets as they were given, one or two."""
        return (self.target,) if self.against is None else (self.target, self.against)
