# SPDX-License-Identifier: Apache-2.0
"""What a node that died had found, and could not carry over, is carried over by the next one on its machine."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest

from fuzz.cluster.left_behind import hold, remove, settle
from fuzz.store.database import Database, default_url
from fuzz.store.dumps import DUMPS
from fuzz.store.findings import FINDINGS, Store
from harness.errors import InputError
from tests.unit.harness.findings.test_finding import finding


def dead_node(cache: Path, name: str, store: str) -> Path:
    place = cache / "cluster" / "run" / name
    with hold(place, store):
        Store(Database(default_url(place)), FINDINGS).add(finding(("restore", name, "WFX", "")), None)
    return place


def test_dead_nodes_are_settled(tmp_path: Path) -> None:
    store = default_url(tmp_path)
    one, two, own = (dead_node(tmp_path, name, store) for name in ("one", "two", "own"))
    other = dead_node(tmp_path, "other", "postgresql://secret:word@elsewhere/db")
    (two / DUMPS).mkdir()
    (two / DUMPS / "memory").write_text("x")
    assert b"secret" not in (other / "store").read_bytes()
    assert settle(tmp_path, store, but=own) == 2
    kept = Store(Database(store), FINDINGS)
    assert {kept.load(id_).signature[1] for id_ in kept.ids()} == {"one", "two"}
    assert not one.exists() and not two.exists()
    (memory,) = two.parent.glob(f"{DUMPS}-two/*")
    assert memory.read_text() == "x", "memory dumps are nowhere else"
    assert own.exists() and other.exists()
    assert settle(tmp_path, store, but=own) == 0


def test_a_node_that_lives_is_left_alone(tmp_path: Path) -> None:
    store = default_url(tmp_path)
    place = dead_node(tmp_path, "one", store)
    with hold(place, store):
        assert settle(tmp_path, store) == 0
        with pytest.raises(InputError, match="another process works as this node"), hold(place, store):
            pass
    assert settle(tmp_path, store) == 1


def test_a_node_waits_for_its_directory_while_it_is_carried_over(tmp_path: Path) -> None:
    store = default_url(tmp_path)
    place = dead_node(tmp_path, "one", store)
    begun = threading.Event()

    def carry_over() -> None:
        with hold(place, store):
            begun.set()
            time.sleep(0.5)
            remove(place)

    other = threading.Thread(target=carry_over)
    other.start()
    begun.wait()
    with hold(place, store, 30):
        other.join()
        assert sorted(path.name for path in place.iterdir()) == ["owner", "store"], "a new one, which stays"
        assert settle(tmp_path, store) == 0


def test_what_a_killed_process_was_removing_is_removed(tmp_path: Path) -> None:
    place = dead_node(tmp_path, "one", default_url(tmp_path))
    place.rename(place.with_name("gone-one"))
    assert settle(tmp_path, default_url(tmp_path)) == 0 and not place.parent.exists()


def test_two_that_remove_the_same_leave_no_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes in containers of one volume ended together, and the directory of their campaign stayed."""
    place = dead_node(tmp_path, "one", default_url(tmp_path))
    rmtree = shutil.rmtree

    def after_another(path: Path, ignore_errors: bool = False) -> None:
        rmtree(path)
        rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", after_another)
    remove(place)
    assert not place.parent.exists()


def test_what_cannot_be_carried_over_stays(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/away/findings.db"
    place = dead_node(tmp_path, "one", store)
    assert settle(tmp_path, store) == 0 and place.exists()
    (tmp_path / "away").mkdir()
    with Database(default_url(place)).access(write=True) as access:
        access.run("UPDATE findings SET document = '{}'")
    assert settle(tmp_path, store) == 0 and place.exists(), "a finding that cannot be read is not thrown away"
    remove(place)
    assert not place.parent.exists()
