# SPDX-License-Identifier: Apache-2.0
"""What a worker writes of its findings, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz.store.database import StoreError
from fuzz.store.findings import Store
from tests.support.fake_worker import DIVERGENCE, TEXT, checked, make_worker


def test_fake_members_of_a_cluster_are_written_periodically_and_at_the_end(tmp_path: Path) -> None:
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 6)
    for _ in range(4):  # the first is confirmed by two more runs
        b.worker.run_input(TEXT)
    (id_,) = b.findings.ids()
    assert (b.findings.count(id_), b.count("unexplained")) == (2, 4)
    b.worker.close()
    assert b.findings.count(id_) == 4


def test_fake_findings_that_cannot_be_written_are_reported(tmp_path: Path) -> None:
    b = make_worker(tmp_path, *[checked(DIVERGENCE)] * 6)
    with pytest.MonkeyPatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise StoreError("database or disk is full")

        patch.setattr(Store, "add", full)
        b.worker.run_input(TEXT)
    assert (b.count("unexplained"), b.count("unwritten")) == (1, 1)
    b.worker.run_input(TEXT)  # the disk has room again
    assert len(b.findings.ids()) == 1 and b.get("count", "scenarios") == 2
