# SPDX-License-Identifier: Apache-2.0
"""The errands of a node: what cannot be sent, and a store that hangs, are one line; what can is sent at the end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fuzz.cluster import errands as module
from fuzz.cluster.dump_sender import DumpSender
from fuzz.cluster.errands import Errands
from fuzz.store.dumps import DUMPS
from tests.unit.fuzz.cluster.test_dump_sender import Fleet


def test_what_is_left_is_sent_at_the_end(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    place = fleet.lose("one")
    errands = Errands(tmp_path, fleet.shared.url, place, fleet.files)
    errands.start()
    assert errands.last_time() == ""
    assert len(list((tmp_path / "files").rglob("*.kdump"))) == 1
    assert fleet.of(place)[0].carry() == 1 and "/run/one/" in fleet.dump()


def test_dead_nodes_are_settled(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    dead, place = fleet.lose("dead"), tmp_path / "cluster/run/alive"
    place.mkdir()
    errands = Errands(tmp_path, fleet.shared.url, place, None)
    errands.start()
    assert errands.last_time() == ""
    assert not dead.exists() and place.exists() and dead.with_name(f"{DUMPS}-dead").is_dir()


def test_what_cannot_be_sent_is_one_line(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    (tmp_path / "files").write_text("in the way")
    errands = Errands(tmp_path, fleet.shared.url, fleet.lose("one"), fleet.files)
    errands.start()
    why = errands.last_time()
    assert why.startswith("cannot ") and "run/one until it can be written" in why and "\n" not in why


def test_a_store_that_hangs_does_not_keep_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(tmp_path)
    go_on = threading.Event()
    monkeypatch.setattr(DumpSender, "send", lambda _: go_on.wait(60))
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.2)
    errands = Errands(tmp_path, fleet.shared.url, fleet.lose("one"), fleet.files)
    errands.start()
    assert errands.last_time().startswith(f"still writing to {fleet.files.url}")
    go_on.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_of_the_thread_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left on the node would be removed."""

    def fails(_sender: DumpSender) -> int:
        raise RuntimeError

    fleet = Fleet(tmp_path)
    monkeypatch.setattr(DumpSender, "send", fails)
    errands = Errands(tmp_path, fleet.shared.url, fleet.lose("one"), fleet.files)
    errands.start()
    assert "stays in" in errands.last_time()
