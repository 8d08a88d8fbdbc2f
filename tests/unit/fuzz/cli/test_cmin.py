# SPDX-License-Identifier: Apache-2.0
"""``shadowfuzz corpus cmin``: it writes into no directory that has something."""

from __future__ import annotations

from fuzz.cli.main import main
from harness.vm.config import PROJECT


def test_cmin_writes_into_no_directory_that_has_something() -> None:
    assert main(["cmin", str(PROJECT / "corpus" / "seeds"), str(PROJECT / "corpus")]) == 2
