# SPDX-License-Identifier: Apache-2.0
"""What a campaign may be asked for: how many workers, and what guides it.  The command line reads it before a start."""

from __future__ import annotations

import os

MAX_JOBS = 64
MODEL, KVM, BOTH = "model", "kvm", "both"
MODES: tuple[str, ...] = (MODEL, KVM, BOTH)
"""What guides a search: decisions of the model, edges of KVM's own code, or both."""


def default_jobs() -> int:
    """Return the number of workers where none is given: one a core."""
    return min(MAX_JOBS, os.cpu_count() or 1)
