# SPDX-License-Identifier: Apache-2.0
"""A process that collects rarely, in a process of its own: it is a matter of the whole interpreter."""

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


def test_what_is_there_is_frozen_and_the_rest_collected_rarely() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, cwd=ROOT)
