# SPDX-License-Identifier: Apache-2.0
"""Limits of a campaign's options: the number of workers, the modes of guidance, pauses."""

from __future__ import annotations

import os

MAX_JOBS = 64
MODEL, KVM, BOTH = "model", "kvm", "both"
MODES: tuple[str, ...] = (MODEL, KVM, BOTH)
"""Modes of guidance: decisions of the model, edges of KVM's own code, or both."""

RELOAD_SECONDS = 5
"""How often a worker reads the corpus directory."""


def default_jobs() -> int:
    """Return the default number of workers: one per core."""
    return min(MAX_JOBS, os.cpu_count() or 1)
