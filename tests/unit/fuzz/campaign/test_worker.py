# SPDX-License-Identifier: Apache-2.0
"""A worker of the live campaign, on a fake executor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuzz.campaign.counters_file import read_stats
from fuzz.campaign.worker import SAMPLED
from harness.errors import SetupError, VmLost
from harness.findings.checked import CheckResult
from tests.support.fake_worker import DIVERGENCE, TEXT, FakeExecutor, checked, make_worker


def test_fake_clean_scenario_is_counted(tmp_path: Path) -> None:
    b = make_worker(tmp_path)
    b.worker.run_input(TEXT)
    b.worker.run_input(b"no scenario")
    stats = read_stats(tmp_path / "stats")
    assert stats.group("exits") == {"HVC64": 2}
    assert stats.group("count") == {"checked_exits": 1, "invalid": 1, "scenarios": 1}
    assert stats.group("unchecked") == {"switch: masked": 1}
    assert stats.group("branches") == {"hvc=yes": 1}
    assert (stats.get("time", "ready"), stats.get("time", "first_exit")) == (100, 101)
    assert b.executor.fresh == [False]
    assert stats.coverage == len(b.hits) == len(set(b.hits)) > 0


@pytest.mark.parametrize(("second", "unstable"), [(checked(DIVERGENCE), 0), (checked(), 1)])
def test_fake_sample_is_run_again(tmp_path: Path, second: CheckResult, unstable: int) -> None:
    first = [checked(DIVERGENCE)] * (SAMPLED + 2)  # the first one is confirmed
    b = make_worker(tmp_path, *first, second)
    for _ in range(SAMPLED):
        b.worker.run_input(TEXT)
    assert (b.get("count", "again"), b.get("count", "unstable")) == (1, unstable)


def test_setup_error_ends_the_worker(tmp_path: Path) -> None:
    b = make_worker(tmp_path, VmLost("fake", "gone"))
    b.worker.run_input(TEXT)

    @contextmanager
    def boot() -> Iterator[FakeExecutor]:
        raise SetupError("QEMU is not installed")
        yield b.executor

    b.executor.boot = boot  # type: ignore[method-assign]
    with pytest.raises(SetupError):
        b.worker.run_input(TEXT)


@pytest.mark.parametrize("losses", [1, 2])
def test_fake_first_boot_is_tried_twice(tmp_path: Path, losses: int) -> None:
    b = make_worker(tmp_path)
    boots = iter([VmLost("fake", "QEMU ended with status -9")] * losses)

    @contextmanager
    def boot() -> Iterator[FakeExecutor]:
        for lost in boots:
            raise lost
        yield b.executor

    b.worker.close()
    b.executor.boot = boot  # type: ignore[method-assign]
    if losses == 2:
        with pytest.raises(VmLost):
            b.worker.begin()
    else:
        b.worker.begin()
        b.worker.run_input(TEXT)
    assert (b.count("lost"), b.get("count", "scenarios")) == (losses, 2 - losses)
