# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz corpus cmin`` writes only to an empty directory."""

from __future__ import annotations

from fuzz.cli.main import main
from harness.vm.config import PROJECT


def test_cmin_rejects_a_directory_that_is_not_empty() -> None:
    assert main(["cmin", str(PROJECT / "corpus" / "seeds"), str(PROJECT / "corpus")]) == 2
