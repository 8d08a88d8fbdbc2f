# SPDX-License-Identifier: Apache-2.0
"""Kernels of the archive on real machines: the newest one without headers, and the one whose headers it uses.

Two kernels are fetched, both much newer than those of the targets.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fuzz.cli.main import main
from fuzz.store.findings import FINDINGS, Store
from fuzz.store.kept_findings import find_finding
from fuzz.triage.report_page import book_of
from harness.findings.release_history import SHOWS, SHOWS_NOT, sentences
from harness.report.html_report import page
from harness.vm.build.prepare import find_prepared, prepare
from harness.vm.cache import Cache, default_root
from harness.vm.config import load_config
from harness.vm.debian.kernel_archive import Kernel
from harness.vm.kernels.fetch import donors, load_kernels
from tests.support.kept import filled
from tests.vm.running import SEEDS, run_all

THREE = ("every_gpr_distinct", "mmio_load_every_register", "host_writes_every_gpr")


def _two() -> tuple[Kernel, Kernel]:
    """Return the newest kernel without headers in the archive, and the one whose headers it uses."""
    listed = [kernel for kernel in load_kernels(Cache(default_root(os.environ))).kernels if kernel.listed]
    without = [kernel for kernel in listed if not kernel.headers]
    if not without:
        pytest.skip("every kernel of the archive has its headers today")
    return without[-1], donors(without[-1], listed)[0]


@pytest.mark.parametrize("borrows", [False, True], ids=["own", "borrowed"])
def test_a_kernel_of_the_archive_boots_records_and_is_clean(borrows: bool) -> None:
    kernel = _two()[0 if borrows else 1]
    config = load_config(f"kvm-nvhe@{kernel.version}")
    prepared = prepare(config)
    assert (prepared.kernel_release, prepared.package_version) == (kernel.uname, kernel.version)
    assert bool(prepared.borrowed) == borrows
    assert find_prepared(config) == prepared
    for name, checked in run_all(config.name, {name: SEEDS[name] for name in THREE}).items():
        assert (checked.status, checked.dropped, checked.unexplained) == ("ok", 0, ()), name
        assert checked.relations["switch"] and checked.relations["restore"], name


def test_a_finding_keeps_its_release_history(tmp_path: Path) -> None:
    database = filled(tmp_path)
    (id_,) = [i for i in Store(database, FINDINGS).ids() if find_finding(database, i).ran][:1]
    ends = [f"kvm-nvhe@{kernel.version}" for kernel in _two()]
    assert main(["bisect", "--finding", id_, "--out", str(tmp_path), "--good", ends[0], "--bad", ends[1]]) in (0, 1)
    history = find_finding(database, id_).kept.history
    assert {f"kvm-nvhe@{asked.version}" for asked in history} >= set(ends)
    assert all(asked.answer in (SHOWS, SHOWS_NOT) and asked.runs == 5 for asked in history)
    text = page(book_of(database))
    assert all(sentence in text for sentence in sentences(history)) and "Release history" in text
