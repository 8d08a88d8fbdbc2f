# SPDX-License-Identifier: Apache-2.0
"""KVM's selftests, built from Debian's kernel sources, recorded and checked: nothing is unexplained."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from harness.vm.cache import default_root
from harness.vm.config import PROJECT

FEW = ("psci_test", "smccc_filter", "no-vgic-v3", "guest_print_test", "set_memory_region_test")
"""Selftests that take seconds; docs/recording.md has the others."""


@pytest.mark.timeout(900)
def test_selftests_of_kvm_show_nothing_unexplained() -> None:
    # The programs stay next to the cache: they are compiled once on each machine.
    argv = ["tools/kvm-selftests.sh", "--dir", default_root(os.environ) / "recorded-selftests", *FEW]
    done = subprocess.run(argv, cwd=PROJECT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[1:]}
    assert set(rows) == set(FEW)
    for name, row in rows.items():
        assert re.search(r"exited with status 0 +\d+  nothing unexplained, levels spec and kernel", row), row
        assert (re.search(r" [1-9]\d*  nothing", row) is None) is (name == "set_memory_region_test"), "no guest ran"
