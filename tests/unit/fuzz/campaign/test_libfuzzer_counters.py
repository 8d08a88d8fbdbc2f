# SPDX-License-Identifier: Apache-2.0
"""Counters that libFuzzer reads: the index of a key, and their effect on libFuzzer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.campaign.libfuzzer_counters import Counters, key_index
from tests.support.paths import ROOT


def test_counters() -> None:
    counters = Counters(16)
    for _ in range(300):
        counters.hit(17)
    assert (counters.value(1), counters.value(2)) == (255, 0)
    assert key_index("a", 1) == key_index("a", 1) != key_index("a", 2)
    with pytest.raises(ValueError, match="power of two"):
        Counters(10)


def test_libfuzzer_reads_the_counters(tmp_path: Path) -> None:
    """The target counts decisions; libFuzzer must keep the inputs that reach new ones."""
    code = """
import sys
from fuzz.campaign import lemma_run
from fuzz.campaign.libfuzzer_counters import Counters
counters = Counters(64)
counters.attach()
import atheris
def target(data):
    counters.hit(0)
    for i, wanted in enumerate(b"SHADOW"):
        if len(data) <= i or data[i] != wanted:
            return
        counters.hit(i + 1)
    print("reached", flush=True)
    raise SystemExit(0)
atheris.Setup([sys.argv[0], "-runs=400000", "-seed=1", "-max_len=8"], target)
atheris.Fuzz()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120
    )
    assert b"reached" in done.stdout
