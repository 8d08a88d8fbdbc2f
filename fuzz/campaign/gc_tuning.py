# SPDX-License-Identifier: Apache-2.0
"""How a process that makes many short-lived values is kept quick."""

from __future__ import annotations

import gc

YOUNG = 50_000
"""Values more than before that make Python look for cycles; ours are in none, so every look is for nothing."""


def reduce_gc() -> None:
    """Leave what there is now out of all garbage collections, and make those rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 100)
