# SPDX-License-Identifier: Apache-2.0
"""Kernels of the archive on real machines: one with its own headers, one that borrows a neighbour's.

Two kernels are fetched, those for which least is certain: the newest of each kind.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from harness.vm.archive import Kernel
from harness.vm.build import find_prepared, prepare
from harness.vm.cache import Cache, default_root
from harness.vm.config import load_config
from harness.vm.kernels import load_kernels
from tests.vm.running import SEEDS, run_all

THREE = ("every_gpr_distinct", "mmio_load_every_register", "host_writes_every_gpr")


@pytest.mark.parametrize("kind", [lambda k: bool(k.headers), lambda k: not k.headers], ids=["own", "borrowed"])
def test_the_newest_kernel_boots_records_and_is_clean(kind: Callable[[Kernel], bool]) -> None:
    listed = [k for k in load_kernels(Cache(default_root(os.environ))).kernels if k.listed and kind(k)]
    if not listed:
        pytest.skip("the archive has no such kernel today")
    config = load_config(f"kvm-nvhe@{listed[-1].version}")
    prepared = prepare(config)
    assert prepared.kernel_release == listed[-1].uname
    assert prepared.package_version == listed[-1].version
    assert bool(prepared.borrowed) == (not listed[-1].headers)
    assert find_prepared(config) == prepared
    for name, checked in run_all(config.name, {name: SEEDS[name] for name in THREE}).items():
        assert (checked.status, checked.dropped, checked.unexplained) == ("ok", 0, ()), name
        assert checked.relations["switch"] and checked.relations["restore"], name
