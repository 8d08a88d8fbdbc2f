# SPDX-License-Identifier: Apache-2.0
"""Kernels of the archive on real machines: the newest one that borrows its headers, and the one that lends them.

So two kernels are fetched, both much newer than those of the targets.
"""

from __future__ import annotations

import os

import pytest

from harness.vm.build import find_prepared, prepare
from harness.vm.cache import Cache, default_root
from harness.vm.config import load_config
from harness.vm.kernels import donors, load_kernels
from tests.vm.running import SEEDS, run_all

THREE = ("every_gpr_distinct", "mmio_load_every_register", "host_writes_every_gpr")


@pytest.mark.parametrize("borrows", [False, True], ids=["own", "borrowed"])
def test_a_kernel_of_the_archive_boots_records_and_is_clean(borrows: bool) -> None:
    listed = [kernel for kernel in load_kernels(Cache(default_root(os.environ))).kernels if kernel.listed]
    without = [kernel for kernel in listed if not kernel.headers]
    if not without:
        pytest.skip("every kernel of the archive has its headers today")
    borrower = without[-1]
    kernel = borrower if borrows else donors(borrower, listed)[0]
    config = load_config(f"kvm-nvhe@{kernel.version}")
    prepared = prepare(config)
    assert (prepared.kernel_release, prepared.package_version) == (kernel.uname, kernel.version)
    assert bool(prepared.borrowed) == borrows
    assert find_prepared(config) == prepared
    for name, checked in run_all(config.name, {name: SEEDS[name] for name in THREE}).items():
        assert (checked.status, checked.dropped, checked.unexplained) == ("ok", 0, ()), name
        assert checked.relations["switch"] and checked.relations["restore"], name
