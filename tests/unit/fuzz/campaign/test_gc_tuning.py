# SPDX-License-Identifier: Apache-2.0
"""Garbage collection is reduced; tested in a new process, because the setting is global to the interpreter."""

from __future__ import annotations

import subprocess
import sys

from fuzz.campaign.gc_tuning import YOUNG
from tests.support.paths import ROOT

PROGRAM = f"""
import gc
from fuzz.campaign.gc_tuning import reduce_gc
before = gc.get_freeze_count()
reduce_gc()
assert before == 0 < gc.get_freeze_count()
assert gc.isenabled() and gc.get_threshold()[0] == {YOUNG}
"""


def test_existing_objects_are_frozen_and_collections_are_rare() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, cwd=ROOT)
