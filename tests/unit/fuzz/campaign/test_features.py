# SPDX-License-Identifier: Apache-2.0
"""The features of a trace, which guide a campaign."""

from __future__ import annotations

import os
import subprocess
import sys

from fuzz.campaign.features import features
from tests.support.fake_worker import TRACE, checked
from tests.support.paths import ROOT


def test_features_do_not_depend_on_the_process() -> None:
    program = "from tests.unit.fuzz.campaign.test_features import *; print(sorted(features(TRACE, checked())))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{sorted(features(TRACE, checked()))}\n"}
